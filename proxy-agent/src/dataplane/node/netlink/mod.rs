//! Netlink: the agent's requests to the kernel about devices, routes, sockets, conntrack entries and TC filters.
//!
//! The message types come from the `netlink-packet` crates; this module holds the conversation and picks what matters
//! from the answers. A socket belongs to the network namespace in which it was created.
//!
//! | file | concept |
//! |---|---|
//! | `conversation` | a request and its answers, to the end or an error |
//! | `network` | devices, addresses and routes |
//! | `routes` | where a route leads, and its source address |
//! | `wires` | devices whose other end is in another namespace |
//! | `notifications` | changes of devices, addresses and routes |
//! | `filters` | TC filters of a device, for kernels without TCX |
//! | `message` | messages of netfilter, by hand |
//! | `conntrack` | deleting and making conntrack entries, listing translated ones |
//! | `nftables` | chains of nftables and iptables, what they say, and deleting them |
//! | `sockets` | connected UDP sockets, and destroying one |
//! | `fuzzing` | what fuzzers throw at all of these |

mod conntrack;
mod conversation;
mod filters;
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod network;
mod nftables;
mod notifications;
mod routes;
mod sockets;
mod wires;

#[cfg(test)]
pub(crate) use self::network::Assigned;
pub(crate) use self::{
    conntrack::{Conntrack, Translated},
    filters::{Direction, Filters},
    network::{Kind, Link, LinkLayer, Network, Route},
    nftables::{Chain, Change, Expression, Extension, Nftables, REDIRECTING, Rule, Ruleset, Verdict},
    notifications::Notifications,
    routes::{Routes, WayOut},
    sockets::{Diag, Found},
    wires::{Wire, Wires},
};
