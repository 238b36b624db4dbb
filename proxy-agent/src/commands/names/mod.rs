//! Whom and what people name on the command line, and what they are told in return: clients, Services, Pods.
//!
//! | file | concept |
//! |---|---|
//! | `client` | a client; `pod`: one that is named as a pod of this node |
//! | `destination` | an address, or the addresses of a Service |
//! | `namespaces` | who is in a network namespace |
//! | `near` | what somebody may have meant |

mod client;
mod destination;
mod namespaces;
mod near;
mod pod;

pub(super) use client::{Client, ClientName, PathTaken};
pub(super) use destination::{Destination, ServiceName, problems_of_services};
pub(super) use namespaces::{Namespaces, unknown};
pub(super) use pod::Pods;
