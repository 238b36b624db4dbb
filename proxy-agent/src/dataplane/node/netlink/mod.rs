//! Netlink: the agent's requests to the kernel about devices, routes, sockets, conntrack entries and TC filters.
//!
//! The message types come from the `netlink-packet` crates; this module holds the conversation and picks what matters
//! from the answers. A socket belongs to the network namespace in which it was created.
//!
//! | file | concept |
//! |---|---|
//! | `conversation` | a question and its answers, to the end or an error |
//! | `network` | which devices, addresses and routes there are |
//! | `routes` | which source address a route has |
//! | `notifications` | that something of this has changed |
//! | `filters` | TC filters of a device, for kernels without TCX |
//! | `conntrack` | taking an entry away from connection tracking |
//! | `sockets` | which connected UDP sockets there are, and destroying one |

mod conntrack;
mod conversation;
mod filters;
mod network;
mod notifications;
mod routes;
mod sockets;

#[cfg(test)]
pub(crate) use self::network::Assigned;
pub(crate) use self::{
    conntrack::Conntrack,
    filters::{Direction, Filters},
    network::{Kind, Link, LinkLayer, Network, Route},
    notifications::Notifications,
    routes::Routes,
    sockets::{Diag, Found},
};
