//! A child process that ends with this one, however this one ends.
//!
//! The kernel ties a child to the *thread* that started it (`PR_SET_PDEATHSIG`), so that thread lives as long as the
//! child is needed. The child inherits only its three standard descriptors, and not, say, a lock held by the build; and
//! no signal is blocked in it.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;

/// A child process. Dropping this kills it if it still runs.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The process to wait for.
    pub(crate) child: Child,
    alive: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Kept {
    /// Starts `command` on a thread that first calls `enter`.
    pub(crate) fn start(
        mut command: Command,
        enter: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(cut_ties) };
        let (alive, gone) = channel::<()>();
        let (started, start) = channel();
        let name = command.get_program().to_string_lossy().into_owned();
        let keeper = thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let child = enter().and_then(|()| Ok(command.spawn()?));
            if started.send(child).is_ok() {
                // Never receives a message; returns when the sender is dropped.
                let _ = gone.recv();
            }
        })?;
        let child = start.recv().context("the thread that starts the process panicked")?;
        let child = child.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, alive: Some(alive), keeper: Some(keeper) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cut_ties() -> io::Result<()> {
    /// `CLOSE_RANGE_CLOEXEC` (5.11); on an older kernel, descriptors are inherited as usual.
    const CLOEXEC: libc::c_uint = 4;
    SigSet::empty().thread_set_mask()?;
    // SAFETY: neither call takes a pointer.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOEXEC);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
