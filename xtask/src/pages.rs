//! Tests of the documents: their links work, and the tasks that they name exist.
//!
//! `proxy-agent/tests/pages.rs` does the same for the agent's commands and maps.

use clap::CommandFactory as _;
use sidestep_tests::pages::{self, Program};

use crate::Cli;

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    let faults = pages::faults_of_links(&pages::all().expect("pages"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn tasks_that_documents_name_exist() {
    let program = Program::new(&["cargo", "xtask"], Cli::command());
    let faults = pages::faults_of_commands(&program, &pages::all().expect("pages"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
