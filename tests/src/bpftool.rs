//! What `bpftool` shows: a view of the kernel that is independent of Sidestep's code.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Runs `bpftool -j` and returns what it prints.
pub fn json(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool")
        .arg("-j")
        .args(arguments)
        .output()
        .context("cannot run `bpftool` (package bpftool)")?;
    ensure!(
        output.status.success(),
        "bpftool {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // Of nothing it prints nothing.
    let printed = output.stdout.trim_ascii();
    if printed.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(printed)?) }
}

/// The id of every map and link that is pinned below `directory`, by path. Equal ids mean the same objects.
pub fn pinned_ids(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut ids = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.to_str().context("a pin's name in UTF-8")?;
            let shown = ["map", "link"].iter().find_map(|kind| json(&[kind, "show", "pinned", name]).ok());
            if let Some(id) = shown.as_ref().and_then(|shown| shown.get("id")).and_then(Value::as_u64) {
                ids.insert(name.to_owned(), id);
            }
        }
    }
    Ok(ids)
}

/// The ids of the programs attached to a cgroup itself.
pub fn cgroup_programs(cgroup: &Path) -> Result<Vec<u64>> {
    let shown = json(&["cgroup", "show", cgroup.to_str().context("a cgroup's name in UTF-8")?])?;
    let programs = shown.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(programs.iter().filter_map(|program| program.get("id").and_then(Value::as_u64)).collect())
}
