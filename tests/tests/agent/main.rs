//! The agent as a process: start, stop and crash, what it rejects, what it reports, and what it leaves behind.

mod bad_manifests;
mod cleanup;
mod comes_and_goes;
mod command_line;
mod events;
mod explain_by_name;
mod faults;
mod growing_tables;
mod health_and_metrics;
mod log_of_changes;
mod memory;
mod monitor;
mod sysctls;
mod wrong_places;
