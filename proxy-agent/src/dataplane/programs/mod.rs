//! The kernel programs: their options, loading them on the pinned maps, and attaching the socket programs.
//!
//! | file | concept |
//! |---|---|
//! | `options` | where a datapath lives, how much it holds, what its programs are told |
//! | `hooks` | the programs by name, and where those of sockets are attached |
//! | `load` | creating maps, loading programs |
//! | `attach` | attaching to a cgroup, replacing programs behind their links |

pub(super) mod attach;
pub(super) mod hooks;
pub(super) mod load;
pub(super) mod options;
