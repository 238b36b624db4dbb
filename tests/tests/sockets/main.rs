//! Sockets of the node and its pods: TCP and UDP through a Service, from `connect` and `sendmsg` to what a socket
//! believes of its peer.

mod addresses_of_somebody_else;
mod hairpin;
mod multipath_tcp;
mod reconnecting;
mod stale_udp;
mod tcp;
mod tcp_fast_open;
mod udp;
mod udp_keeps_its_endpoint;
mod untouched;
