//! Tests that cannot run here say so, by name and with the reason, and are counted.

use std::{fs::OpenOptions, io::Write};

/// The variable that names the file in which skipped tests are counted.
pub const SKIP_LOG: &str = "SIDESTEP_SKIP_LOG";

/// The variable with which only tests run that do without root and the kernel: [`missing`] always has a reason then.
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

/// What is missing for a lab to run at all; `None` if nothing is.
pub fn missing() -> Option<String> {
    if std::env::var_os(NO_KERNEL).is_some() {
        return Some(format!("{NO_KERNEL} is set: nothing that uses the kernel runs"));
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
