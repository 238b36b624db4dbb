//! Finding the machine's network namespaces, cheapest and likeliest first.
//!
//! 1. This process's own, which is the node's.
//! 2. Those that are mounted somewhere: container runtimes and `ip netns` do that with a pod's.
//! 3. Those of every process, then of every thread.
//!
//! A namespace that only an open descriptor holds is not found. Processes other than our own are visible
//! only in the host's process namespace (`hostPID`).

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::host;
use crate::dataplane::Error;

/// A walk through the namespaces.
pub(crate) struct Walk<V> {
    visit: V,
    /// Inodes of the namespaces that were visited.
    seen: HashSet<u64>,
    /// Whether every namespace that was found could be opened.
    whole: bool,
}

impl<V: FnMut(&File, &Path) -> ControlFlow<()>> Walk<V> {
    /// Visits each namespace once, until `visit` stops it. Returns whether all of them could be opened.
    pub(crate) fn through(visit: V) -> Result<bool, Error> {
        let mut walk = Self { visit, seen: HashSet::new(), whole: true };
        walk.everywhere()?;
        Ok(walk.whole)
    }

    fn everywhere(&mut self) -> Result<(), Error> {
        if self.link(Path::new("/proc/thread-self/ns/net")).is_break() {
            return Ok(());
        }
        for mount in host::mounts("self")?.into_iter().filter(|mount| mount.fs_type == "nsfs") {
            if let Some(inode) = inode(&mount.root)
                && self.place(inode, &mount.mount_point).is_break()
            {
                return Ok(());
            }
        }
        let processes = numbered(Path::new("/proc"));
        for process in &processes {
            if self.link(&process.join("ns/net")).is_break() {
                return Ok(());
            }
        }
        for thread in processes.iter().flat_map(|process| numbered(&process.join("task"))) {
            if self.link(&thread.join("ns/net")).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &Path) -> ControlFlow<()> {
        match fs::read_link(path) {
            Ok(target) => match target.to_str().and_then(inode) {
                Some(inode) => self.place(inode, path),
                None => ControlFlow::Continue(()),
            },
            Err(error) => self.failed(&error),
        }
    }

    fn place(&mut self, inode: u64, path: &Path) -> ControlFlow<()> {
        if self.seen.contains(&inode) {
            return ControlFlow::Continue(());
        }
        match File::open(path) {
            // Unmounted meanwhile: what was below the mount is no namespace.
            Ok(file) if file.metadata().is_ok_and(|found| found.ino() != inode) => ControlFlow::Continue(()),
            Ok(namespace) => {
                self.seen.insert(inode);
                (self.visit)(&namespace, path)
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Ignores processes that have ended; denied access counts.
    fn failed(&mut self, error: &io::Error) -> ControlFlow<()> {
        self.whole &= error.kind() != io::ErrorKind::PermissionDenied;
        ControlFlow::Continue(())
    }
}

/// The inode in `net:[4026531840]`, as links and mounts of namespaces spell it.
fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The entries of a directory whose names are numbers; none if it is gone.
pub(crate) fn numbered(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaces_link_names_its_inode() {
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        for other in ["mnt:[4026531840]", "net:[]", "net:4026531840", "/"] {
            assert_eq!(inode(other), None, "{other}");
        }
    }

    #[test]
    fn each_namespace_is_visited_once_and_ours_first() {
        let own = fs::read_link("/proc/thread-self/ns/net").expect("procfs");
        let mut visited = Vec::new();
        Walk::through(|_, path| {
            visited.push(fs::read_link(path).ok());
            ControlFlow::Continue(())
        })
        .expect("the mounts");
        assert_eq!(visited.first(), Some(&Some(own.clone())));
        assert_eq!(visited.iter().filter(|found| found.as_ref() == Some(&own)).count(), 1);
    }
}
