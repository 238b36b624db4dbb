//! Developer tasks: `cargo xtask <command>` is the only entry point, for people and for CI alike.
//!
//! Every command begins with [`setup::ensure`], so none of them asks the reader to install something first.

mod bench;
mod build;
mod demo;
mod image;
mod lint;
mod load;
mod package;
#[cfg(test)]
mod pages;
mod process;
mod progress;
mod setup;
mod soak;
mod structure;
mod tarball;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

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
    /// Watch Services work in a lab of network namespaces, by the agent on `deploy/demo`
    Demo(demo::Args),
    /// Load the kernel programs on a cgroup of their own and show how to inspect them
    BuildAndLoad(load::Args),
    /// Write the agent as a container image, in one file that containerd, Docker and kind load
    Image(image::Args),
    /// Check the format, clippy, rustdoc and dependencies, on the host's crates and the kernel programs
    Lint,
    /// Write the agent as a Debian package, for nodes that run it outside of pods
    Package(package::Args),
    /// Show the rows of service semantics with the tests that prove them
    Rows(test::RowsArgs),
    /// Let clients, floods, changes and restarts at a node for minutes, and count the promises that are broken
    Soak(soak::Args),
    /// Run all tests, or those whose name contains a filter
    Test(test::Args),
    /// Boot other kernels in emulated machines and try the agent there
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::BuildAndLoad(args) => load::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Lint => lint::run(),
        Command::Package(args) => package::run(&args),
        Command::Rows(args) => test::Rows::read().and_then(|rows| rows.print(&args)),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Causes in one line; a backtrace of a task would lead the reader astray.
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
