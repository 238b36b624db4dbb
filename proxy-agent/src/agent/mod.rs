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
//! | `problems` | the current problems, each logged once; `not_installed`: full tables as problems with a remedy |
//! | `grow` | bigger tables before they are full; `growth`: what is under way |
//! | `report` | the report to the other commands: one small file, and the lock that makes the agent its only writer |
//! | `change_log` | a log line for each added, changed or removed Service |
//! | `neighbours` | programs of others, other service proxies |
//! | `missing_node` | a node name that no Node object has |

mod change_log;
mod event_loop;
mod follow;
mod grow;
mod growth;
mod missing_node;
mod neighbours;
mod not_installed;
mod problems;
pub mod report;
mod start;

pub use event_loop::run;
pub use start::{Objects, Start};
