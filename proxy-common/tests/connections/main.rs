//! The life of connections, on tables in memory.
//!
//! What never happens: a packet of a confirmed connection goes to another endpoint; two live connections share a
//! SNAT source towards one endpoint; a masqueraded connection reaches its endpoint with the address of the client;
//! an answer goes to a client that did not ask; a flood confirms a connection.
//!
//! | file | concept |
//! |---|---|
//! | `memory` | the tables, and a second processor that acts between two accesses of the first |
//! | `node` | both hooks of a node |
//! | `story` | a sequence of events, and what must hold after each; the fuzzer runs these too |
//! | `stories` | random sequences of events, in tables of all sizes |
//! | `losses` | every part of a connection that can be lost |
//! | `remapped` | connections of one client port to one endpoint |
//! | `processors` | every interleaving of two processors that the code distinguishes |
//! | `crowded` | one client port with many frontends, many clients, and full tables |

mod crowded;
mod losses;
mod memory;
mod node;
mod processors;
mod remapped;
mod stories;
mod story;
