//! Shows the attached programs, the maps as bpftool prints them, and commands to continue with.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process;

/// The most lines of a dump to show.
const LINES: usize = 24;
/// bpftool's command for each map, in the order in which a lookup reads them. Arrays are long and mostly empty, so
/// this shows the first element in use: indexes of Services begin at 1.
const MAPS: &[(&str, &[&str], &[&str])] = &[
    ("FRONTENDS", &["dump"], &[]),
    ("ADDRESSES", &["dump"], &[]),
    ("SERVICES", &["lookup"], &["key", "1", "0", "0", "0"]),
    ("ENDPOINTS", &["lookup"], &["key", "0", "0", "0", "0"]),
];

/// Prints what is attached to `cgroup` and pinned in `pins` by the agent `binary` with its report in `run`.
pub(super) fn print(binary: &Path, cgroup: &Path, pins: &Path, run: &Path) -> Result<()> {
    let (bin, pin_dir, run_dir) = (binary.display(), pins.display(), run.display());
    let maps = pins.join("v1");
    show(Command::new("bpftool").args(["cgroup", "show"]).arg(cgroup))?;
    for (name, before, after) in MAPS {
        let map = maps.join(name);
        show(Command::new("bpftool").arg("map").args(*before).arg("pinned").arg(map).args(*after))?;
    }
    show(Command::new(binary).arg("status").arg("--pin-dir").arg(pins).arg("--run-dir").arg(run))?;

    println!("\n--- what to try next");
    println!("all maps are in {}:", maps.display());
    let entries = fs::read_dir(&maps).with_context(|| format!("no maps in {}", maps.display()))?;
    let names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    println!("  {}", names.join(" "));
    println!("a shell that sees the Services:");
    println!("  sudo sh -c 'echo $$ > {}/cgroup.procs; exec bash'", cgroup.display());
    println!("how Sidestep decides for a client:");
    println!("  sudo {bin} explain --pin-dir {pin_dir} --run-dir {run_dir} CLIENT ADDRESS:PORT/PROTOCOL");
    Ok(())
}

/// Prints a command and the beginning of its output.
fn show(command: &mut Command) -> Result<()> {
    println!("\n--- {}", process::line(command));
    // Not every PATH has the administrators' folders.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut child = command.env("PATH", path).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("the output is a pipe")?;
    let mut lines = BufReader::new(output).lines();
    for line in lines.by_ref().take(LINES) {
        println!("{}", line?);
    }
    if lines.next().is_some() {
        println!("…");
        // Millions of lines may follow.
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}
