//! Whether anything was mounted: a container runtime mounts the network namespace of each new pod, and the
//! kubelet its volumes.

use std::{fs::File, os::fd::AsFd as _};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The mount tables of this process and of the node's first one, if that is visible.
#[derive(Debug)]
pub(super) struct Mounts {
    tables: Vec<File>,
}

impl Mounts {
    pub(super) fn new() -> Self {
        let tables = ["/proc/1/mountinfo", "/proc/self/mountinfo"];
        Self { tables: tables.into_iter().filter_map(|path| File::open(path).ok()).collect() }
    }

    /// Whether a table has changed since the last call (`mounts_poll` in the kernel). Never waits.
    pub(super) fn have_changed(&self) -> bool {
        let mut polled: Vec<PollFd<'_>> =
            self.tables.iter().map(|table| PollFd::new(table.as_fd(), PollFlags::POLLPRI)).collect();
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}
