//! Developer tasks: `cargo xtask <command>` is the only entry point, for people and for CI alike.
//!
//! Every command begins with [`setup::ensure`], so none of them asks the reader to install something first.

mod bench;
mod build;
mod demo;
mod process;
mod progress;
mod setup;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Sidestep's developer tasks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant a task; each task's arguments live in its own module.
#[derive(Subcommand)]
enum Command {
    /// Find or install everything that building and testing needs (the other commands do this by themselves)
    Setup,
    /// Build the kernel programs and the `sidestep` binary that carries them
    Build(build::Args),
    /// Measure what translation costs, against no translation and against kube-proxy's way
    Bench(bench::Args),
    /// Watch Services work in a lab of network namespaces
    Demo,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo => demo::run(),
    }
}
