//! The life of connections on tables in memory.
//!
//! What never happens: a packet of a confirmed connection goes to another endpoint; two live connections share a source towards
//! one endpoint; a connection that is to be masqueraded reaches its endpoint with the client's address; an answer goes to somebody
//! who did not ask; a flood confirms anything.
//!
//! | file | concept |
//! |---|---|
//! | `memory` | the tables, and another processor that does something between two accesses of this one |
//! | `node` | both hooks of a node |
//! | `stories` | random lives, in tables of all sizes |
//! | `losses` | every part that can be lost |
//! | `processors` | every interleaving of two processors that the code distinguishes |
//! | `crowded` | one client port, many frontends; many clients, few source ports |

mod crowded;
mod losses;
mod memory;
mod node;
mod processors;
mod stories;
