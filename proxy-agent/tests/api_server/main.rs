//! The source and the planner against an API server's double that goes wrong, on a clock that jumps: hours take
//! milliseconds.
//!
//! Whatever happens: as long as it happens, no endpoint leaves the plan that exists at the server; and when it is
//! over, the plan is soon the one that a fresh start computes. [`world`] watches over the first, step by step.

mod absence;
mod history;
mod lists;
mod order;
mod random;
mod watches;
mod world;
