//! Developer tasks: `cargo xtask <command>` is the only entry point, for people and for CI alike.
//!
//! Every command begins with [`setup::ensure`], so a fresh clone needs no manual set-up.

mod bench;
mod build;
mod chaos;
mod demo;
mod fuzz;
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
mod upgrade;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sidestep's developer tasks
///
/// Each task finds or installs what it needs (as `setup` does), so a fresh clone can start with any of them. Tasks that
/// load programs or make network namespaces need root, and touch nothing of the machine outside of their own.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant a task; each task's arguments live in its own module.
#[derive(Subcommand)]
enum Command {
    /// Find or install everything that building and testing needs
    ///
    /// The other tasks do this for themselves. As root on Debian it installs what is missing by apt; elsewhere it lists
    /// what to install.
    Setup,
    /// Build the kernel programs and the `sidestep` binary that embeds them
    ///
    /// Prints the paths of both. The kernel programs are always optimized; the agent is with --release.
    Build(build::Args),
    /// Measure the cost of translation, compared with direct connections and with kube-proxy's rules
    ///
    /// Builds in release, then runs the benchmark: `connect`, `udp`, `nodeport`, `pods`, `sync` or `start`. See
    /// `cargo xtask bench --help` for its options, and docs/performance.md for results.
    Bench(bench::Args),
    /// Disturb agents and the API server under traffic, and count broken, failed and misrouted connections
    ///
    /// Two nodes with an agent each, thousands of long-lived connections and new ones all the time, while agents are
    /// killed, stopped, replaced and starved, and thousands of Services come and go. Prints a seed that repeats it. Needs root.
    Chaos(chaos::Args),
    /// Show Services at work in a lab of network namespaces, with the agent on `deploy/demo`
    ///
    /// Two nodes and a north-south client, real traffic, and a table of what each client got. Fails if a check fails.
    Demo(demo::Args),
    /// Look for bytes from outside that break what decodes them, guided by coverage
    ///
    /// Manifests, watch lines, configurations, netlink, packets, connection records and files; the corpora are in fuzz/.
    Fuzz(fuzz::Args),
    /// Load the kernel programs on a cgroup of their own, and show how to inspect them
    ///
    /// Only processes in that cgroup use the Services; Ctrl-C removes everything. Needs root.
    BuildAndLoad(load::Args),
    /// Write the agent's container image as one file for containerd, Docker and kind
    ///
    /// Builds a static agent; needs no container engine. Prints the commands that load the file.
    Image(image::Args),
    /// Check formatting, clippy, rustdoc and dependencies
    ///
    /// Covers the host's crates and the kernel programs; warnings are errors. Also fails on a dependency circle of files,
    /// and on an import of a later stage.
    Lint,
    /// Write the agent as a Debian package, for nodes that run it outside of pods
    ///
    /// The package holds a static agent, a systemd unit, its settings, man pages and completions. Needs no Debian tools.
    Package(package::Args),
    /// Show the rows of service semantics, and the tests that prove them
    ///
    /// The rows in docs/kube-proxy-parity.md compare Sidestep with kube-proxy; a test names its rows in its doc comment.
    Rows(test::RowsArgs),
    /// Stress a node's connection table with clients that reuse ports, floods and restarts, and count failures
    ///
    /// Runs for minutes in a lab of network namespaces, and fails if a connection broke that should have survived. Needs root.
    Soak(soak::Args),
    /// Run all tests, or those whose name contains a filter
    ///
    /// Includes the scenarios in network namespaces, which need root and otherwise count as skipped. Ends with two lines
    /// of counts: tests, and rows of service semantics.
    Test(test::Args),
    /// Replace the last release by this tree under traffic
    ///
    /// Builds it from the repository's history, and runs the test `previous_release` with it.
    Upgrade(upgrade::Args),
    /// Test the agent on other kernels, in emulated machines
    ///
    /// Boots Debian's kernels in QEMU without KVM, so it runs anywhere and changes nothing on the host.
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::BuildAndLoad(args) => load::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Lint => lint::run(),
        Command::Package(args) => package::run(&args),
        Command::Rows(args) => test::Rows::read().and_then(|rows| rows.print(&args)),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    // The causes, in one line; a backtrace of a task would not help.
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
