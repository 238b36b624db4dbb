//! `cargo xtask test --unit`: what needs neither root nor the kernel, and which tests that leaves out.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use sidestep_tests::skip::NO_KERNEL;

use crate::workspace;

/// Has the runner build and run everything but the lab's crate; tests elsewhere that would use the kernel skip.
pub(super) fn only(runner: &mut Command) {
    // The kernel programs are no host crate: they have no tests.
    runner.args(["--workspace", "--exclude", "proxy-ebpf", "--exclude", "sidestep-tests"]);
    runner.env(NO_KERNEL, "1");
}

/// What [`only`] leaves out, in words: the themes are the folders of scenarios.
pub(super) fn left_out() -> Result<String> {
    let folder = workspace::path("tests/tests");
    let mut themes = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.path().is_dir() {
            themes.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    themes.sort_unstable();
    Ok(format!(
        "the lab and its scenarios ({}), which need root and the kernel; `cargo xtask test` runs them, too",
        themes.join(", ")
    ))
}
