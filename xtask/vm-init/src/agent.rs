//! Starts the agent on the two Services, and waits for it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The agent's binary in the initramfs.
const BINARY: &str = "/sidestep";
const RUN_DIR: &str = "/run/sidestep";
const REPORT: &str = "/run/sidestep/report.json";
/// Where the agent pins by default, with its tables' version.
const PINS: &str = "/sys/fs/bpf/sidestep/v1";
/// Longest wait for the agent. An emulated processor is slow, but a verifier that takes longer is a defect.
const SYNC_LIMIT: Duration = Duration::from_mins(1);

/// Starts the agent; it detects everything but the manifests and the device.
pub(crate) fn start() -> Result<Child> {
    fs::create_dir_all(RUN_DIR).with_context(|| format!("cannot create {RUN_DIR}"))?;
    let mut command = Command::new(BINARY);
    command.args(["run", "--manifests", "/manifests", "--node-name", "vm", "--run-dir", RUN_DIR]);
    // The machine's only device.
    command.args(["--interface", "lo"]);
    command.spawn().with_context(|| format!("cannot start {BINARY}"))
}

/// Waits until the agent reports that it has installed the manifests.
pub(crate) fn wait_until_synced(agent: &mut Child) -> Result<()> {
    let start = Instant::now();
    loop {
        let report = fs::read_to_string(REPORT).unwrap_or_default();
        let report: Value = serde_json::from_str(&report).unwrap_or_default();
        if report["synced"] == true {
            return match report["problems"].as_array() {
                Some(problems) if !problems.is_empty() => {
                    bail!("the agent synced with problems: {problems:?}")
                }
                _ => Ok(()),
            };
        }
        if let Some(status) = agent.try_wait()? {
            bail!("the agent ended with {status}");
        }
        if start.elapsed() > SYNC_LIMIT {
            bail!("the agent was not synced after {} s", SYNC_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The problems in the agent's report.
pub(crate) fn problems() -> String {
    let report = fs::read_to_string(REPORT).unwrap_or_default();
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    report["problems"].to_string()
}

/// Checks that the device serves north-south traffic, and returns how its programs are attached.
pub(crate) fn devices() -> Result<String> {
    let output = Command::new(BINARY)
        .args(["status", "--output", "json"])
        .output()
        .context("cannot start `sidestep status`")?;
    let status: Value =
        serde_json::from_slice(&output.stdout).context("cannot parse the output of `sidestep status`")?;
    let device = &status["devices"][0];
    if device["name"] != "lo" || device["attached"] != true {
        bail!("`sidestep status` shows lo as not attached: {}", status["devices"]);
    }
    Ok(device["way"].as_str().unwrap_or_default().to_owned())
}

/// Checks that the tables are pinned.
pub(crate) fn loaded() -> Result<()> {
    let table = Path::new(PINS).join("FRONTENDS");
    if table.exists() { Ok(()) } else { bail!("{} is missing", table.display()) }
}

/// Checks that links of programs are pinned, and returns how many.
pub(crate) fn attached() -> Result<usize> {
    let links = Path::new(PINS).join("links");
    let count = fs::read_dir(&links).with_context(|| format!("{} is missing", links.display()))?.count();
    if count > 0 { Ok(count) } else { bail!("{} is empty", links.display()) }
}

/// Runs `sidestep doctor`, with its output on the console.
pub(crate) fn doctor() -> Result<()> {
    let status = Command::new(BINARY).arg("doctor").status().context("cannot start `sidestep doctor`")?;
    if status.success() { Ok(()) } else { bail!("`sidestep doctor` ended with {status}") }
}

/// Runs `sidestep cleanup`, and checks that nothing is left: no pins, no programs, no reserved ports.
pub(crate) fn cleanup() -> Result<String> {
    let output =
        Command::new(BINARY).args(["cleanup", "--run-dir", RUN_DIR]).output().context("cannot start it")?;
    if !output.status.success() {
        bail!("`sidestep cleanup`: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
    }
    let left: Vec<String> =
        fs::read_dir("/sys/fs/bpf")?.flatten().map(|entry| entry.path().display().to_string()).collect();
    if !left.is_empty() {
        bail!("pins are left: {}", left.join(", "));
    }
    let ports = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports")?;
    if !ports.trim().is_empty() {
        bail!("ports are still reserved: {ports}");
    }
    // The kernel frees programs a moment after their last link.
    let start = Instant::now();
    loop {
        let programs = crate::programs::names()?;
        if programs.is_empty() {
            return Ok(String::new());
        }
        if start.elapsed() > SYNC_LIMIT {
            bail!("programs are left: {}", programs.join(", "));
        }
        thread::sleep(Duration::from_millis(50));
    }
}
