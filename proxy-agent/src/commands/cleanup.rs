//! `sidestep cleanup`: removes everything that Sidestep made on the node.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{
    Paths,
    patience::{Patience, left},
};
use crate::{
    agent::{self, Presence},
    dataplane::{self, Drain},
};

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// First let north-south connections end, while kube-proxy serves new ones
    ///
    /// For the way back to kube-proxy, which must have its rules in place: removes every frontend from the tables, so
    /// that the programs only follow the connections that they have, and waits until none is left.
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { paths, drain, patience } = arguments;
    ensure!(*drain || patience.is_default(), "--wait and --break-the-rest go with --drain");
    remove(paths, drain.then_some(patience))
}

/// Removes everything; with patience, waits first for the connections of clients outside the node.
pub(super) fn remove(paths: &Paths, patience: Option<&Patience>) -> anyhow::Result<ExitCode> {
    let Paths { pin_dir, run_dir, .. } = paths;
    let agent = Presence::of(run_dir);
    if agent.is_running() {
        bail!("an agent is still running and would install everything again: stop it first ({agent})");
    }
    if dataplane::abi_dir(pin_dir).exists() {
        // The lock of the tables, as the agent may have another run directory.
        drop(dataplane::lock(pin_dir)?);
        if let Some(patience) = patience
            && !is_drained(pin_dir, patience)?
        {
            return Ok(left());
        }
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
    let netfilter = dataplane::release_netfilter().unwrap_or_else(|error| {
        eprintln!("cannot see whether a takeover or a drain kept something in netfilter: {error}");
        false
    });
    if netfilter {
        println!("removed what a takeover or a drain kept in netfilter");
    }
    agent::remove_run_dir(run_dir).with_context(|| format!("cannot remove {}", run_dir.display()))?;
    if removed.is_empty() && ports.is_none() && !netfilter {
        println!("nothing to remove under {}", pin_dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until no north-south connection is left; whether the programs may go.
fn is_drained(pin_dir: &Path, patience: &Patience) -> anyhow::Result<bool> {
    let mut drain = Drain::begin(pin_dir)?;
    println!("removed all frontends from the tables: new connections are kube-proxy's");
    patience.outlasts("clients outside the node", || Ok(drain.left()?))
}
