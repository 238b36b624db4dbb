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
//! | `resize` | bigger tables before they are full, smaller ones when they are nearly empty; `growth`: what is under way |
//! | `report` | the report to the other commands |
//! | `run_dir` | where it is written, and the lock that makes the agent its only writer; `note`: what the lock file says |
//! | `presence` | what the other commands see: is there an agent, and what became of it |
//! | `change_log` | a log line for each added, changed or removed Service |
//! | `neighbours` | programs of others, other service proxies |
//! | `missing_node` | a node name that no Node object has |

mod change_log;
mod event_loop;
mod follow;
mod growth;
mod missing_node;
mod neighbours;
mod not_installed;
mod note;
mod presence;
mod problems;
mod report;
mod resize;
mod run_dir;
mod start;

pub use event_loop::run;
pub use presence::{Presence, State};
pub use report::{PodHere, Report};
pub use run_dir::{note_end, remove as remove_run_dir};
pub use start::{Objects, Start};
