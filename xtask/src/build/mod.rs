//! `cargo xtask build`: the kernel programs, then the binary that carries them.

pub(crate) mod agent;
pub(crate) mod freestanding;
pub(crate) mod kernel;

use anyhow::Result;

use crate::setup::{self, Need};

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the agent with optimizations
    ///
    /// The kernel programs are always optimized.
    #[arg(long)]
    release: bool,
}

/// Builds the kernel programs and the agent, and prints their paths.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Need::KernelBuild])?;
    let object = kernel::build()?;
    let profile = if args.release { agent::Profile::Release } else { agent::Profile::Dev };
    let binary = agent::build(profile)?;
    println!("kernel programs  {}", object.display());
    println!("agent            {}", binary.display());
    Ok(())
}
