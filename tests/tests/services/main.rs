//! Fields of Services and endpoints, as east-west clients see their effect.

mod affinity_of_a_live_service;
mod client_ip_affinity;
mod conditions_of_endpoints;
mod endpoint_changes;
mod external_addresses;
mod no_endpoints;
mod node_ports;
mod source_ranges;
mod traffic_policy;
