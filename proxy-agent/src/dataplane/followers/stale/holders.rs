//! Descriptors of sockets that other processes hold, borrowed with `pidfd_getfd` (5.6). Needs CAP_SYS_PTRACE, and to see
//! the host's processes.

use std::{
    collections::{HashMap, HashSet},
    fs,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use proxy_common::HeldSocket;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use crate::dataplane::node::{namespaces::numbered, netlink::Found};

/// `PIDFD_THREAD` (6.9, 64bef697d33b): a thread whose leader has ended, or with descriptors of its own.
const OF_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0x80);

/// A descriptor of our own for a socket that an iterator found, if its holder still has it.
pub(super) fn borrow(held: &HeldSocket) -> Option<OwnedFd> {
    let descriptor = i32::try_from(held.descriptor).ok()?;
    let of = |number: u32, flags| borrow_from(i32::try_from(number).ok()?, descriptor, flags);
    of(held.process, PidfdFlags::empty())
        .filter(|socket| is(socket, held.cookie))
        .or_else(|| of(held.thread, OF_THREAD).filter(|socket| is(socket, held.cookie)))
}

fn is(socket: &OwnedFd, cookie: u64) -> bool {
    SockRef::from(socket).cookie().is_ok_and(|found| found == cookie)
}

fn borrow_from(process: i32, descriptor: i32, flags: PidfdFlags) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(process)?, flags).ok()?;
    pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()
}

/// Calls back with a descriptor of each socket among `wanted` that a visible process holds, and returns the others. For
/// kernels without iterators.
pub(super) fn walk(wanted: Vec<Found>, mut each: impl FnMut(&Found, &OwnedFd)) -> Vec<Found> {
    let mut missing: HashMap<u32, Found> = wanted.into_iter().map(|found| (found.inode, found)).collect();
    in_all_processes(|held| {
        if let Some(found) = missing.get(&held.inode).cloned()
            && let Some(socket) = held.borrow().filter(|socket| is(socket, found.cookie()))
        {
            each(&found, &socket);
            missing.remove(&found.inode);
        }
        if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    missing.into_values().collect()
}

/// Calls back with a descriptor of every socket that a visible process holds.
pub(crate) fn every_socket(mut each: impl FnMut(&OwnedFd)) {
    let mut seen = HashSet::new();
    in_all_processes(|held| {
        if !seen.contains(&held.inode)
            && let Some(socket) = held.borrow()
        {
            seen.insert(held.inode);
            each(&socket);
        }
        ControlFlow::Continue(())
    });
}

/// A descriptor of a process, or of a thread that has its own.
struct Held {
    thread: i32,
    descriptor: i32,
    inode: u32,
}

impl Held {
    fn borrow(&self) -> Option<OwnedFd> {
        let &Self { thread, descriptor, .. } = self;
        borrow_from(thread, descriptor, PidfdFlags::empty())
            .or_else(|| borrow_from(thread, descriptor, OF_THREAD))
    }
}

/// Visits the descriptors of sockets as `ss -p` finds them, by the inode that `/proc/<pid>/fd` names.
fn in_all_processes(mut visit: impl FnMut(&Held) -> ControlFlow<()>) {
    for process in numbered(Path::new("/proc")) {
        for holder in descriptor_tables(&process) {
            for link in numbered(&holder.join("fd")) {
                let inode = fs::read_link(&link).ok().and_then(|target| inode(target.to_str()?));
                if let (Some(inode), Some(thread), Some(descriptor)) = (inode, number(&holder), number(&link))
                    && visit(&Held { thread, descriptor, inode }).is_break()
                {
                    return;
                }
            }
        }
    }
}

/// The process, and those of its threads that have descriptors of their own, as far as the kernel tells: all of them
/// where the leader has ended.
fn descriptor_tables(process: &Path) -> Vec<PathBuf> {
    let leader = number(process).unwrap_or_default();
    let has_ended = fs::read_dir(process.join("fd")).is_ok_and(|mut entries| entries.next().is_none());
    let own = |thread: &PathBuf| {
        let thread = number(thread).unwrap_or_default();
        thread != leader && (has_ended || !shares_descriptors(leader, thread))
    };
    let threads = numbered(&process.join("task")).into_iter().filter(own);
    std::iter::once(process.to_owned()).chain(threads).collect()
}

/// Whether two threads have one table of descriptors; yes if the kernel does not tell.
fn shares_descriptors(one: i32, other: i32) -> bool {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: kcmp(2) takes plain numbers and reads no memory of ours.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) <= 0 }
}

fn number(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.parse().ok()
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
