//! Static binaries, for images and emulated machines without libraries.

use std::path::PathBuf;

use anyhow::Result;

use super::agent::Profile;
use crate::{process, workspace};

/// The host's target. An explicit `--target` keeps the flags away from build scripts and macros, which must be dynamic.
#[cfg(target_arch = "x86_64")]
const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Builds the binaries of `packages` around the kernel programs that [`super::kernel::build`] left, and returns
/// the folder where they are.
pub(crate) fn build(packages: &[&str], profile: Profile) -> Result<PathBuf> {
    let folder = workspace::target("static");
    let mut command = workspace::cargo();
    command.args(["build", "--bins", "--target", TARGET]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.arg("--target-dir").arg(&folder);
    let profile = match profile {
        Profile::Dev => {
            // The initramfs lies in the machine's memory, and minutes of optimization would save a second of emulation.
            command.env("CARGO_PROFILE_DEV_DEBUG", "0");
            "debug"
        }
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Cstrip=symbols".to_owned()];
    // Absolute paths leak details of the build machine, and make the binary differ from one machine to the next.
    flags.push(format!("--remap-path-prefix={}=/sidestep", workspace::root().display()));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    process::run(&mut command)?;
    Ok(folder.join(TARGET).join(profile))
}
