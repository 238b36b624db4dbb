//! The network-namespace lab: one node of a cluster, made of only this machine's kernel.
//!
//! A [`Lab`] is a node (a namespace with its addresses and a bridge), the pods on it, and another node beside it.
//! Processes run Sidestep's own binary ([`Agent`]) and ordinary sockets; nothing is mocked. Scenario tests,
//! `cargo xtask demo` and `cargo xtask bench` all use this one lab.
//!
//! What never happens: traffic that leaves the machine (no namespace has a route out), a program attached to the
//! machine's own cgroup, deletion of anything that a lab did not make. Everything that a lab makes is called
//! `ss-<pid>-<number>…`; dropping the lab removes it, panic or not, and the next lab that starts removes what a killed
//! process left ([`sweep`]).

pub mod agent;
pub mod api_server;
pub mod bpftool;
pub mod capture;
pub mod cgroup;
pub mod chaos;
pub mod cluster;
pub mod container;
pub mod control_plane;
pub mod denied;
pub mod devices;
pub mod eventually;
pub mod foreign;
pub mod frames;
pub mod hold;
pub mod identity;
mod kept;
pub mod kube_proxy;
pub mod lab;
pub mod listener;
pub mod manifest;
pub mod many;
pub mod mounts;
pub mod name_server;
pub mod namespace;
pub mod netfilter;
pub mod offload;
pub mod other_layout;
pub mod pace;
pub mod packets;
pub mod pages;
pub mod pins;
pub mod place;
pub mod pressure;
pub mod program;
pub mod random;
pub mod report;
pub mod seat;
pub mod skip;
pub mod snmp;
pub mod soak;
pub mod sockets;
pub mod sweep;
pub mod topology;
pub mod traffic;
pub mod two_nodes;
pub mod wiretap;

pub use agent::Agent;
pub use eventually::eventually;
pub use lab::Lab;
pub use place::Place;
pub use two_nodes::TwoNodes;
