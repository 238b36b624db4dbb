//! The documents say what the agent is: its commands and flags, and the maps of the kernel programs.
//!
//! `xtask/src/pages.rs` does the same for links and tasks.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use proxy_agent::{commands::Cli, dataplane::MAPS};
use sidestep_tests::pages::{self, Program};

/// Flags of other programs that documents name by themselves.
const FLAGS_OF_OTHERS: &[(&str, &str)] = &[
    ("bench", "check"),
    ("bench", "quick"),
    ("cargo xtask image", "name"),
    ("cargo xtask soak", "minutes"),
    ("cargo xtask test", "keep"),
    ("cargo xtask test", "release"),
    ("cargo xtask test", "unit"),
    ("cargo xtask vm", "only"),
    ("kubeadm", "skip-phases"),
];

#[test]
fn commands_that_documents_name_exist() {
    let program = Program::new(&["sidestep"], Cli::command());
    let faults = pages::faults_of_commands(&program, &pages::all().expect("pages"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn flags_that_documents_name_by_themselves_exist() {
    let program = Program::new(&["sidestep"], Cli::command());
    let mut faults = Vec::new();
    for page in pages::all().expect("pages") {
        for span in &page.spans {
            let Some(flag) = span.text.strip_prefix("--") else { continue };
            let name = flag.split([' ', '=', '[']).next().unwrap_or(flag);
            if !program.has_flag(name) && FLAGS_OF_OTHERS.iter().all(|(_, known)| *known != name) {
                faults.push(format!("{}:{}: no command has --{name}", page.path.display(), span.line));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The one list of maps is the table in ARCHITECTURE.md whose first column is `map`.
#[test]
fn the_table_of_maps_names_those_of_the_object() {
    let page = pages::page("ARCHITECTURE.md").expect("the page");
    let (_, rows) = page.tables.iter().find(|(header, _)| header == "map").expect("a table of maps");
    let told: BTreeSet<&str> = rows.iter().flat_map(|cell| cell.split(", ")).collect();
    let are: BTreeSet<&str> = MAPS.iter().map(|map| map.name).collect();
    assert_eq!(told, are);
}
