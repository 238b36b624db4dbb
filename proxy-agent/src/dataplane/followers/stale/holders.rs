//! What SOCKETS holds for sockets of other processes.
//!
//! The map is asked with a descriptor, so one is borrowed (`pidfd_getfd`, 5.6) from a process that holds the
//! socket, found as `ss -p` finds it: by the inode that `/proc/<pid>/fd` names. Needs CAP_SYS_PTRACE, and to
//! see the host's processes. A socket that no visible process holds gets no answer.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use proxy_common::Translation;

use crate::dataplane::{
    bpf,
    node::{namespaces::numbered, netlink::Found},
};

/// The records of those sockets among `wanted` that have one, by the socket's cookie.
pub(super) fn records(sockets: &MapData, wanted: Vec<Found>) -> HashMap<u64, Translation> {
    let mut missing: HashMap<u32, Found> = wanted.into_iter().map(|found| (found.inode, found)).collect();
    let mut answers = HashMap::new();
    for process in numbered(Path::new("/proc")) {
        if missing.is_empty() {
            break;
        }
        for descriptor in numbered(&process.join("fd")) {
            let Some(found) = fs::read_link(&descriptor)
                .ok()
                .and_then(|target| missing.get(&inode(target.to_str()?)?).cloned())
            else {
                continue;
            };
            let number = |path: &Path| path.file_name()?.to_str()?.parse::<i32>().ok();
            if let (Some(process), Some(descriptor)) = (number(&process), number(&descriptor))
                && let Some(socket) = borrow(process, descriptor)
                && cookie(&socket) == Some(found.cookie())
            {
                missing.remove(&found.inode);
                answers.extend(bpf::socket_storage(sockets, &socket).map(|record| (found.cookie(), record)));
            }
        }
    }
    if !missing.is_empty() {
        tracing::debug!(sockets = missing.len(), "connected UDP sockets that no visible process holds");
    }
    answers
}

/// A descriptor of our own for what a descriptor of another process stands for.
fn borrow(process: i32, descriptor: i32) -> Option<OwnedFd> {
    // SAFETY: system calls without pointers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let process = owned(process)?;
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

fn owned(result: libc::c_long) -> Option<OwnedFd> {
    let descriptor = i32::try_from(result).ok().filter(|descriptor| *descriptor >= 0)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn cookie(socket: &OwnedFd) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the option writes at most `length` bytes to `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

/// The inode in `socket:[4711]`.
fn inode(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sockets_link_names_its_inode() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for other in ["pipe:[4711]", "socket:[]", "/dev/null"] {
            assert_eq!(inode(other), None, "{other}");
        }
    }
}
