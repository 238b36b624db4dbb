//! Network namespaces that are deleted with their value.
//!
//! They are mounted below `/run/netns`, as `ip netns` does it, so `ip netns exec ss-… ss -tan` looks into a running
//! lab. Code runs in a namespace on a thread of its own ([`Namespace::enter`]), which is never used for anything else.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// The directory of `ip netns`.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A network namespace; deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with loopback up.
    pub fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let file = File::open(Path::new(DIRECTORY).join(&name))
            .with_context(|| format!("cannot open the namespace {name}"))?;
        let namespace = Self { name, file };
        namespace
            .run(|| {
                // Addresses are unique by construction, so duplicate address detection would only cost time.
                fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
            })?
            .context("cannot disable duplicate address detection (accept_dad)")?;
        namespace.ip_batch("link set lo up")?;
        Ok(namespace)
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Moves the calling thread into the namespace permanently; call this on a thread of your own.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Runs `work` in the namespace, on a thread of its own. Processes that it starts are in the namespace, too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(&self.name, || self.enter().map(|()| work()))
    }

    /// Runs lines of `ip -batch` in the namespace; an error shows the first line that failed.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        use std::io::Write;
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip` (package iproute2)")?;
        child.stdin.take().context("the pipe to ip")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip -n {} -batch: {}\n{lines}", self.name, stderr.trim());
        Ok(())
    }

    /// The hardware address of a device.
    pub fn hardware_address(&self, device: &str) -> Result<[u8; 6]> {
        let output = Command::new("ip").args(["-n", &self.name, "-j", "link", "show", device]).output()?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).context("the output of ip")?;
        let address = links[0]["address"].as_str().with_context(|| format!("no device {device}"))?;
        let bytes: Vec<u8> = address
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()
            .with_context(|| address.to_owned())?;
        bytes.try_into().ok().with_context(|| address.to_owned())
    }

    /// Runs `ip -6` with these arguments in the namespace: a line of a batch cannot select the family.
    pub(crate) fn ip6(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name, "-6"], arguments].concat())
    }

    /// Runs `bridge` with these arguments in the namespace.
    pub(crate) fn bridge(&self, arguments: &[&str]) -> Result<()> {
        run("bridge", &[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            eprintln!("namespace {}: {error:#}", self.name);
        }
    }
}

/// Runs `work` on a new thread and returns its result; a panic in it resumes in the caller.
///
/// The thread takes the caller's name, so that a skip or a panic in it names the test.
pub(crate) fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let name = thread::current().name().unwrap_or(name).to_owned();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, work).expect("a thread");
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Deletes a namespace by name.
pub(crate) fn delete(name: &str) -> Result<()> {
    ip(&["netns", "delete", name])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

/// Runs a program of iproute2.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run `{program}` (package iproute2)"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), stderr.trim());
    Ok(())
}
