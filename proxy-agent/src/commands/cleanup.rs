//! `sidestep cleanup`: removes everything that Sidestep made on the node.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Paths;
use crate::{agent::report, dataplane};

/// Arguments of `cleanup`.
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
    let Paths { pin_dir, run_dir, .. } = &arguments.paths;
    if let Some((report, true)) = report::read(run_dir) {
        bail!(
            "the agent is still running (process {}) and would install everything again: stop it first",
            report.pid
        );
    }
    if dataplane::abi_dir(pin_dir).exists() {
        // The lock of the tables, as the agent may have another run directory.
        drop(dataplane::lock(pin_dir)?);
    }
    let removed = dataplane::cleanup(pin_dir)?;
    for path in &removed {
        println!("removed {}", path.display());
    }
    // After the programs that use these ports are gone.
    let ports = dataplane::release_ports(run_dir)?;
    if let Some(ports) = &ports {
        println!("released the reserved ports {ports}");
    }
    report::remove(run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    if removed.is_empty() && ports.is_none() {
        println!("nothing to remove under {}", pin_dir.display());
    }
    Ok(ExitCode::SUCCESS)
}
