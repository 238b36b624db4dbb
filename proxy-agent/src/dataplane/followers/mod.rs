//! What goes on beside the tables, each in a thread of its own: they follow what changes, and never hold it up.
//!
//! | file | concept |
//! |---|---|
//! | `stale` | closing the connected UDP sockets of endpoints that are gone |
//! | `clients` | by which addresses the sockets of a network namespace are judged |
//! | `flows` | how long flows of packets stay, and taking away those that are idle |

pub(super) mod clients;
pub(super) mod flows;
pub(super) mod stale;
