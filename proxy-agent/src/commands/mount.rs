//! `sidestep mount`: the part of a start that needs most privileges, for an init container.

use std::process::ExitCode;

use clap::Args;

use super::Paths;
use crate::dataplane;

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
}

impl From<Paths> for Arguments {
    fn from(paths: Paths) -> Self {
        Self { paths }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let made = dataplane::mount_missing(&arguments.paths.run_dir.join("cgroup2"))?;
    for path in &made {
        println!("mounted {}", path.display());
    }
    if made.is_empty() {
        println!("cgroup2 and the BPF file system were already mounted");
    }
    Ok(ExitCode::SUCCESS)
}
