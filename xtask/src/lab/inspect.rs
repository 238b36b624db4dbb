//! What there is to see: the attached programs, the maps as bpftool shows them, and how to go on from there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Lines of a map that are shown; the arrays are long, and mostly empty.
const LINES: usize = 24;
/// The maps to show, in the order in which a lookup goes through them.
const MAPS: &[&str] = &["FRONTENDS", "ADDRESSES", "SERVICES", "ENDPOINTS"];

/// Prints all of it.
pub(super) fn print(cgroup: &Path, pins: &Path) -> Result<()> {
    let maps = pins.join("v1");
    heading("programs");
    print!("{}", bpftool(&["cgroup", "show", &cgroup.to_string_lossy()])?);
    for name in MAPS {
        heading(&format!("bpftool map dump pinned {}", maps.join(name).display()));
        let dump = bpftool(&["map", "dump", "pinned", &maps.join(name).to_string_lossy()])?;
        for line in dump.lines().take(LINES) {
            println!("{line}");
        }
        let more = dump.lines().count().saturating_sub(LINES);
        if more > 0 {
            println!("… {more} lines more");
        }
    }
    heading("all maps");
    let entries = fs::read_dir(&maps).with_context(|| format!("no maps in {}", maps.display()))?;
    for name in entries.flatten() {
        println!("  {}", name.path().display());
    }
    heading("a shell that sees the Services");
    println!("  sudo sh -c 'echo $$ > {}/cgroup.procs; exec bash'", cgroup.display());
    heading("questions");
    println!("  sidestep status --pin-dir {}", pins.display());
    println!("  sidestep explain --pin-dir {} CLIENT ADDRESS:PORT/PROTOCOL", pins.display());
    Ok(())
}

fn heading(text: &str) {
    println!("\n--- {text}");
}

fn bpftool(args: &[&str]) -> Result<String> {
    // Administrators' folders are not on every path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    process::output(Command::new("bpftool").env("PATH", path).args(args))
}
