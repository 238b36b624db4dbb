//! Where a process runs: its network namespace and cgroup, set by the parent, and its processor, set by itself.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
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

/// Whether a process has to share its processor with the rest of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// Like every process.
    Ordinary,
    /// Preempts every ordinary process (`SCHED_FIFO`), where permitted.
    RealTime,
}

/// The processors that this process may use.
pub(crate) fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Pins the calling thread.
pub(crate) fn pin(processor: usize) -> nix::Result<()> {
    pin_thread(Pid::from_raw(0), processor)
}

/// Pins a thread, of the kernel's for instance.
pub(crate) fn pin_thread(thread: Pid, processor: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(thread, &set)
}

/// Puts a thread before all ordinary ones.
pub(crate) fn hurry(thread: Pid) -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call.
    match unsafe { libc::sched_setscheduler(thread.as_raw(), libc::SCHED_FIFO, &raw const lowest) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `command` start in this place, keep these descriptors, and end when this process does.
pub(crate) fn put(
    command: &mut Command,
    namespace: &Namespace,
    cgroup: &Cgroup,
    keep: Vec<RawFd>,
    urgency: Urgency,
) -> Result<()> {
    let namespace = File::open(namespace.path())?;
    let threads = cgroup.path().join("cgroup.threads");
    ensure!(threads.exists(), "{} does not exist", threads.display());
    // Between fork and exec the child writes a file, and makes some system calls.
    let enter = move || {
        std::fs::write(&threads, "0")?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        for &descriptor in &keep {
            // SAFETY: the caller has them open, and so has its child.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if urgency == Urgency::RealTime {
            // Where it is not permitted, the figures are only noisier.
            let _ = hurry(Pid::from_raw(0));
        }
        Ok(())
    };
    // SAFETY: this process has one thread while it starts workers, so nothing that the child calls can be locked.
    unsafe { command.pre_exec(enter) };
    Ok(())
}
