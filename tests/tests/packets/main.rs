//! The kernel programs of packets, run on packets of the tests' own (`BPF_PROG_TEST_RUN`), byte by byte: every shape of
//! header, and a flood of packets of little sense.
//!
//! | file | concept |
//! |---|---|
//! | `node` | Services in real tables, and the real programs on them |
//! | `test_run` | one run of a program on one packet |
//! | `shapes` | every shape of header, there and back, with exactly the bytes that are expected |
//! | `refusals` | what is refused, and what its sender is told |
//! | `flood` | a million packets: valid, mutated and random ones |
//! | `judge` | what may become of a packet |

mod flood;
mod judge;
mod node;
mod refusals;
mod shapes;
mod test_run;
