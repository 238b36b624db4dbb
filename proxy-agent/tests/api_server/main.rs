//! The source and the planner against a faulty test double of an API server, with a simulated clock: hours take
//! milliseconds.
//!
//! During any fault, no endpoint that exists at the server leaves the plan; after it, the plan is soon the one that a
//! fresh start computes. [`world`] checks the former at every step.

mod absence;
mod history;
mod lists;
mod order;
mod random;
mod watches;
mod world;

/// How many kinds are followed.
const KINDS: usize = proxy_agent::model::Kind::ALL.len();
