//! What fuzzers throw at the commands: what other programs print.

pub use super::doctor::fuzzing::dropped;
