//! North-south traffic: packets of clients outside the node, through the real datapath, in a lab of two nodes.
//!
//! Scenarios run with direct routing and with a VXLAN, each without and with a CNI's rules, in both families.

mod affinity;
mod agent;
mod bulk;
mod client_addresses;
mod clsact;
mod conntrack;
mod datagrams;
mod devices;
mod doctor;
mod established;
mod flows;
mod fragments;
mod growing_connections;
mod growing_tables;
mod held_nat;
mod icmp_errors;
mod interfaces;
mod interfaces_without_tcx;
mod left_by_kube_proxy;
mod legacy_rules;
mod local_policy;
mod monitor;
mod netfilter;
mod no_endpoints;
mod nobodys_requests;
mod node_port_addresses;
mod one_client_port;
mod options;
mod other_nodes;
mod other_programs;
mod past_the_stack;
mod path_mtu;
mod reserved_ports;
mod reused_ports;
mod rules_of_kube_proxy;
mod shadow;
mod source_ports;
mod source_ranges;
mod survival;
mod takeover;
mod takeover_by_the_agent;
mod talks;
mod udp_sockets_of_before;
mod vlan_tags;
mod ways_back;

use sidestep_tests::{Agent, TwoNodes, cluster::Backend, two_nodes::web};

/// Publishes the Service `web` with these endpoints, and starts the agent.
fn serve(nodes: &TwoNodes, endpoints: &[&Backend]) -> Agent {
    nodes.publish("web", &web(), endpoints).expect("manifests");
    nodes.lab().agent().expect("an agent")
}
