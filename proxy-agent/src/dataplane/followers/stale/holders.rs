//! What SOCKETS holds for sockets of other processes.
//!
//! The map is asked with a descriptor, so one is borrowed (`pidfd_getfd`, 5.6) from a process that holds the
//! socket, found as `ss -p` finds it: by the inode that `/proc/<pid>/fd` names. Needs CAP_SYS_PTRACE, and to
//! see the host's processes. A socket that no visible process holds gets no answer.

use std::{collections::HashMap, fs, os::fd::OwnedFd, path::Path};

use aya::maps::{MapData, SkStorage};
use proxy_common::Translation;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use crate::dataplane::node::{namespaces::numbered, netlink::Found};

/// The records of those sockets among `wanted` that have one, by the socket's cookie.
pub(super) fn records(
    sockets: &SkStorage<MapData, Translation>,
    wanted: Vec<Found>,
) -> HashMap<u64, Translation> {
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
                && SockRef::from(&socket).cookie().is_ok_and(|cookie| cookie == found.cookie())
            {
                missing.remove(&found.inode);
                answers.extend(sockets.get(&socket, 0).map(|record| (found.cookie(), record)));
            }
        }
    }
    if !missing.is_empty() {
        tracing::debug!(
            sockets = missing.len(),
            "left connected UDP sockets alone: no visible process holds them"
        );
    }
    answers
}

/// A descriptor of our own for what a descriptor of another process stands for.
fn borrow(process: i32, descriptor: i32) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()
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
