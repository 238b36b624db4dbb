//! `cargo xtask test --unit`: the tests that need neither root nor the kernel, and a note on those left out.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use sidestep_tests::skip::NO_KERNEL;

use crate::workspace;

/// Has the runner build and run everything but the lab's crate; kernel tests of other crates skip.
pub(super) fn only(runner: &mut Command) {
    // The kernel programs are not built for the host, and have no tests.
    runner.args(["--workspace", "--exclude", "proxy-ebpf", "--exclude", "sidestep-tests"]);
    runner.env(NO_KERNEL, "1");
}

/// Describes what [`only`] leaves out; the folders of scenarios are the themes.
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
