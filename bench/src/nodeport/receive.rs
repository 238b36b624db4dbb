//! How north-south packets reach a node in measurements of loss.
//!
//! Usually the processor that sends a packet into a veth device also processes it at the other end: the node would
//! slow the sender down, and nothing would be lost. So the node's uplink gets what a network card has: a ring of 256
//! packets, and a kernel thread (NAPI) that empties it on a processor of its own. Packets beyond the thread's
//! capacity are dropped at the ring, before any work on them.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use sidestep_tests::namespace::Namespace;

use super::site::Site;
use crate::place;

/// From now on a thread on this processor receives all packets that arrive at the uplink.
pub(super) fn on_a_thread(site: &Site, processor: usize) -> Result<()> {
    let Site { outside, node, uplink, .. } = site;
    // With receive offload a veth device has NAPI; packets take that way where the sender cuts them itself.
    run(outside, "ethtool -K eth0 tso off tx-udp-segmentation off")?;
    run(node, &format!("ethtool -K {uplink} gro on"))?;
    run(node, &format!("echo 1 > /sys/class/net/{uplink}/threaded"))?;
    let thread = thread(uplink)?;
    place::pin_thread(thread, processor).context("pinning the thread that receives")?;
    // Where it is not permitted, the figures are only noisier.
    let _ = place::hurry(thread);
    Ok(())
}

/// The kernel's thread of a device: `napi/<device>-<number>`.
fn thread(device: &str) -> Result<Pid> {
    let name = format!("napi/{device}-");
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let is_it =
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|command| command.starts_with(&name));
        if is_it && let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) {
            return Ok(Pid::from_raw(pid));
        }
    }
    anyhow::bail!("the kernel has no thread {name}…, which needs Linux 5.13")
}

/// Runs a line of shell where `/sys` is the namespace's own.
fn run(namespace: &Namespace, line: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name(), "sh", "-c", line]);
    let output = command.output().context("running `ip` (package iproute2)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", stderr.trim());
    Ok(())
}
