//! Netlink: what the agent asks the kernel, and tells it, about devices, routes, sockets and TC filters.
//!
//! The messages are those of the `netlink-packet` crates; here is the conversation, and what of the answers
//! matters to us. A socket speaks of the network namespace in which it was made.
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
