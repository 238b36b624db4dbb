//! What fuzzers throw at `doctor`: what other programs print.

pub use super::outside::fuzzing::dropped;
