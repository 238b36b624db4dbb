//! The packet programs, run on the tests' own packets (`BPF_PROG_TEST_RUN`) and checked byte by byte: every shape of
//! header, and a flood of mutated packets.
//!
//! | file | concept |
//! |---|---|
//! | `node` | Services in real tables, with the real programs |
//! | `test_run` | one run of a program on one packet |
//! | `shapes` | every shape of header, there and back, with exactly the bytes that are expected |
//! | `refusals` | refused packets, and the answers to their senders |
//! | `flood` | a million packets: valid, mutated and random ones |
//! | `listeners` | a flood of events |
//! | `judge` | the allowed outcomes of a packet |

mod flood;
mod judge;
mod listeners;
mod node;
mod refusals;
mod shapes;
mod test_run;
