//! The agent: the stages after the source, one after the other, and the report about them.
//!
//! | file | concept |
//! |---|---|
//! | `follow` | the stages after the source, and the report about them |
//! | `change_log` | a line in the log for each Service that came, changed or went |
//! | `missing_node` | a node name that no Node object has |
//! | `report` | what a running agent tells the other commands, and the lock that makes it the only one |
//! | `memory` | giving back what a first sync took |

mod change_log;
pub(crate) mod follow;
mod memory;
mod missing_node;
pub mod report;
