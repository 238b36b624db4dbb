//! Sockets of the node and its pods: TCP and UDP through a Service, from `connect` and `sendmsg` to what a socket
//! believes of its peer.

mod addresses_of_somebody_else;
mod any_calls;
mod connecting_is_no_request;
mod connecting_keeps_the_endpoint;
mod connecting_to_oneself;
mod failed_connects;
mod hairpin;
mod loopback_sources;
mod many_services;
mod multipath_tcp;
mod names_of_answers;
mod owners_that_never_reconnect;
mod reconnecting;
mod shared_ports;
mod stale_udp;
mod tcp;
mod tcp_fast_open;
mod udp;
mod udp_keeps_its_endpoint;
mod untouched;
mod unusual_holders;
mod without_storage;
