//! How packets from outside reach a node when it is to be shown where it loses some.
//!
//! Between two ends of a veth device a packet is usually worked on at once, by the processor that sends it: the sender
//! would be slowed down by the node, and nothing would ever be lost. So the node's uplink is given what a network card
//! has: a ring of 256 packets, and a thread of the kernel (NAPI) that takes them out, on a processor of its own. What
//! the thread does not manage is dropped at the ring, before any work was spent on it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use sidestep_tests::namespace::Namespace;

use super::site::Site;
use crate::place;

/// Has everything that arrives from outside received by a thread on this processor, from now on.
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
