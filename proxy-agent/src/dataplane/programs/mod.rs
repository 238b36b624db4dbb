//! The kernel programs: their options, loading them on the pinned maps, and attaching the socket programs.
//!
//! | file | concept |
//! |---|---|
//! | `options` | a datapath's paths, capacity, and constants of its programs |
//! | `hooks` | the programs by name, and the hooks of the socket programs |
//! | `links` | the pinned links of the socket hooks |
//! | `load` | creating maps, loading programs |
//! | `attach` | attaching to a cgroup, replacing programs behind their links |
//! | `successors` | giving packets to the programs on bigger tables |
//! | `neighbours` | programs of others at the same hooks; `service_proxies`: those that do what ours do |

pub(super) mod attach;
pub(super) mod hooks;
mod links;
pub(super) mod load;
pub(super) mod neighbours;
pub(super) mod options;
pub(super) mod service_proxies;
pub(super) mod successors;
