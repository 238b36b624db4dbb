//! Names: everything that a lab makes has its process id in the name, which tells leftovers from running labs.

use std::{
    fmt, fs,
    sync::atomic::{AtomicU32, Ordering},
};

/// The prefix of all names that a lab uses.
const PREFIX: &str = "ss-";

/// A lab's name, unique on this machine: `ss-<pid>-<number>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pid: u32,
    number: u32,
}

impl Identity {
    /// A name that no lab had before.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { pid: std::process::id(), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether `name` belongs to a lab whose process has ended.
    pub fn is_leftover(name: &str) -> bool {
        name.strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !is_alive(pid))
    }
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: u32) -> bool {
    // 12333 (torn_reads) Z 1 …
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, number } = self;
        write!(f, "{PREFIX}{pid}-{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn only_names_of_dead_processes_are_leftovers() {
        assert!(!Identity::is_leftover(&Identity::new().to_string()));
        assert!(!Identity::is_leftover("ss-one-0"));
        assert!(!Identity::is_leftover("cilium-1-0"));
        assert!(Identity::is_leftover("ss-4294967295-0-node"), "no process has this id");
    }
}
