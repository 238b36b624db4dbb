//! The lab itself, before anything is tested in it.

mod cgroups_of_threads;
mod one_node;
mod two_nodes;
