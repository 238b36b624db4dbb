//! Skipped tests, counted and reported by name and reason.

use std::{fs::OpenOptions, io::Write};

/// The variable with the path of the file that lists skipped tests.
pub const SKIP_LOG: &str = "SIDESTEP_SKIP_LOG";

/// The variable that limits a run to tests without root and kernel: with it, [`missing`] always returns a reason.
pub const NO_KERNEL: &str = "SIDESTEP_NO_KERNEL";

/// Prints `SKIPPED <test>: <reason>` and appends the same line to the file that [`SKIP_LOG`] names.
///
/// Tests use the macro [`skip!`](crate::skip!), which also returns.
pub fn announce(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("unnamed"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIP_LOG) {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// What this machine lacks to run a lab; `None` if nothing.
pub fn missing() -> Option<String> {
    if std::env::var_os(NO_KERNEL).is_some() {
        return Some(format!("{NO_KERNEL} is set, which excludes tests that use the kernel"));
    }
    if !nix::unistd::Uid::effective().is_root() {
        return Some("the lab needs root, for network namespaces and BPF programs".to_owned());
    }
    if let Err(error) = crate::cgroup::own_directory() {
        return Some(format!("the lab needs cgroup2: {error:#}"));
    }
    None
}

/// Skips the rest of the test, saying why.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::announce(&format!($($reason)+));
        return;
    }};
}

/// A new [`Lab`](crate::Lab), or a skipped test where a lab cannot run.
#[macro_export]
macro_rules! lab {
    () => {{
        if let Some(reason) = $crate::skip::missing() {
            $crate::skip!("{reason}");
        }
        $crate::Lab::new().expect("a lab")
    }};
}
