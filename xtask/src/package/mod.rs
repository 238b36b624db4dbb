//! `cargo xtask package`: the agent as a Debian package, for nodes that run it outside of pods. Needs no tool of Debian.

mod contents;
mod deb;
mod manuals;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::contents::Contents;
use crate::build::{agent::Profile, freestanding, kernel};
use crate::setup::{self, Need};
use crate::{progress, workspace};

/// Where the package goes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File to write [default: in target/package, with the name that Debian expects]
    ///
    /// The directory is created if it does not exist.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builds the static agent, packs it with its unit, settings, manual and completions, and says how to install it.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild])?;
    kernel::build()?;
    let binary = freestanding::build(&["proxy-agent"], Profile::Release)?.join("sidestep");
    let path = args.output.clone().unwrap_or_else(default_path);
    progress::step("write the package", || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
        let contents = Contents::new(bytes, manuals::of(&binary)?)?;
        fs::write(&path, deb::build(&contents)?).with_context(|| format!("cannot write {}", path.display()))
    })?;
    let file = path.display();
    println!("{file}: {} MB", fs::metadata(&path)?.len() / 1_000_000);
    println!(
        "install   apt install {file}   (then /etc/default/sidestep, and systemctl enable --now sidestep)"
    );
    println!("remove    apt remove sidestep   (also removes its programs and maps from the kernel)");
    Ok(())
}

/// The default path, where tests look for the package, too.
pub(crate) fn default_path() -> PathBuf {
    workspace::target(&format!("package/sidestep_{}_{}.deb", deb::version(), deb::ARCHITECTURE))
}
