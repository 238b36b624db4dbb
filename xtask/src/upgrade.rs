//! `cargo xtask upgrade`: builds the release before this one, and tests that this one replaces it without anybody's notice.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// The last release.
const TAG: &str = "0.1.0";
/// Its commit, for clones without tags.
const COMMIT: &str = "3c918ee13f841ce9947a09c755d95b974b333be7";

/// From what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A tag or commit of this repository, instead of the last release
    from: Option<String>,
}

/// Builds it, and runs the test `previous_release` with it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let commit = commit(args.from.as_deref())?;
    let binary = build(&commit)?;
    let mut test = workspace::cargo();
    process::run(test.args(["xtask", "test", "previous_release"]).env("SIDESTEP_PREVIOUS", binary))
}

fn commit(from: Option<&str>) -> Result<String> {
    let find = |name: &str| {
        let mut command = git();
        command.args(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]);
        process::output(&mut command).map(|text| text.trim().to_owned())
    };
    match from {
        Some(name) => find(name).with_context(|| format!("`{name}` names no commit of this repository")),
        None => find(TAG).or_else(|_| find(COMMIT)).with_context(|| {
            format!("this clone has neither the tag {TAG} nor its commit {COMMIT}: fetch the whole history")
        }),
    }
}

/// The binary of that commit, built in a directory of its own.
fn build(commit: &str) -> Result<PathBuf> {
    let tree = workspace::target("previous").join(commit);
    let binary = tree.join("target/debug/sidestep");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
    let archive = tree.with_extension("tar");
    process::run(git().args(["archive", "--output"]).arg(&archive).arg(commit))?;
    process::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    println!("building {commit}, which takes some minutes the first time");
    let mut cargo = workspace::cargo();
    process::run(cargo.current_dir(&tree).args(["xtask", "build"]).env_remove("CARGO_TARGET_DIR"))?;
    Ok(binary)
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(workspace::root());
    git
}
