//! Static binaries, for images and emulated machines without libraries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::agent::Profile;
use crate::{process, workspace};

/// The host's target. An explicit `--target` keeps the flags away from build scripts and macros, which must be dynamic.
#[cfg(target_arch = "x86_64")]
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Builds the binaries of `packages` around the kernel programs that [`super::kernel::build`] left, and returns
/// the folder where they are.
pub(crate) fn build(packages: &[&str], profile: Profile) -> Result<PathBuf> {
    let mut command = cargo("build", profile);
    command.arg("--bins");
    for package in packages {
        command.args(["--package", package]);
    }
    process::run(&mut command)?;
    let profile = if profile == Profile::Release { "release" } else { "debug" };
    Ok(folder().join(TARGET).join(profile))
}

/// Builds these integration tests of a package, and returns their binaries by name.
pub(crate) fn tests(package: &str, names: &[&str]) -> Result<HashMap<String, PathBuf>> {
    let mut command = cargo("test", Profile::Dev);
    command.args(["--no-run", "--message-format", "json-render-diagnostics", "--package", package]);
    for name in names {
        command.args(["--test", name]);
    }
    let mut found = HashMap::new();
    for line in process::output(&mut command)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("what cargo prints")?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_owned(), Path::new(path).to_owned());
        }
    }
    Ok(found)
}

fn folder() -> PathBuf {
    workspace::target("static")
}

/// A cargo subcommand whose binaries are static.
fn cargo(subcommand: &str, profile: Profile) -> Command {
    let mut command = workspace::cargo();
    command.args([subcommand, "--target", TARGET]).arg("--target-dir").arg(folder());
    match profile {
        // The initramfs lies in the machine's memory, and minutes of optimization would save a second of emulation.
        Profile::Dev => command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0"),
        Profile::Release => command.arg("--release"),
    };
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Cstrip=symbols".to_owned()];
    // Absolute paths leak details of the build machine, and make the binary differ from one machine to the next.
    flags.push(format!("--remap-path-prefix={}=/sidestep", workspace::root().display()));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command
}
