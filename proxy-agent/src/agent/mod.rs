//! The agent: combines sources, plan and dataplane, and runs until it is stopped; the datapath stays in place.
//!
//! One thread runs all stages in turn (a source only waits for the network or for files); the dataplane's followers
//! and the reader of manifests have threads of their own.
//!
//! | file | concept |
//! |---|---|
//! | `start` | what the agent is started with, and the order in which it starts |
//! | `event_loop` | what wakes it: sources, the network, time, signals |
//! | `follow` | the stages after the source, one after the other |
//! | `problems` | what is wrong now, told once; `not_installed`: what the tables lack, in an operator's words |
//! | `report` | what it tells the other commands: one small file, and the lock that makes it the only writer |
//! | `change_log` | a line in the log for each Service that came, changed or went |
//! | `missing_node` | a node name that no Node object has |
//! | `memory` | giving back what a first sync took |

mod change_log;
mod event_loop;
mod follow;
mod memory;
mod missing_node;
mod not_installed;
mod problems;
pub mod report;
mod start;

pub use event_loop::run;
pub use start::{Objects, Start};
