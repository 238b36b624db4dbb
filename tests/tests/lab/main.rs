//! The lab itself.

mod cgroups_of_threads;
mod one_node;
mod two_nodes;
