//! The `sidestep` binary.

fn main() {}
