//! Where a process runs: network namespace and cgroup, which it is put in, and processor, which it chooses itself.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns},
    unistd::Pid,
};
use sidestep_tests::{cgroup::Cgroup, namespace::Namespace};

/// The processors of the two sides, different ones where there are two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    /// Of every client.
    pub(crate) client: usize,
    /// Of every server.
    pub(crate) server: usize,
}

impl Processors {
    /// The first and the last processor that this process may use.
    pub(crate) fn find() -> Result<Self> {
        let allowed = allowed()?;
        let client = *allowed.first().context("no processor")?;
        let server = *allowed.last().context("no processor")?;
        Ok(Self { client, server })
    }
}

/// The processors that this process may use.
pub(crate) fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Pins the calling thread.
pub(crate) fn pin(processor: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Makes `command` start in this place, and end when this process does.
pub(crate) fn put(command: &mut Command, namespace: &Namespace, cgroup: &Cgroup) -> Result<()> {
    let namespace = File::open(namespace.path())?;
    let threads = cgroup.path().join("cgroup.threads");
    ensure!(threads.exists(), "{} is not there", threads.display());
    // Between fork and exec the child writes a file, and makes two system calls.
    let enter = move || {
        std::fs::write(&threads, "0")?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: this process has one thread while it starts workers, so nothing that the child calls can be locked.
    unsafe { command.pre_exec(enter) };
    Ok(())
}
