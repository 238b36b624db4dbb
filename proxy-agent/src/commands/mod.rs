//! The command line. One command a file; each is an edge of the library and holds no rules of its own.

mod cleanup;
mod doctor;
mod explain;
mod flows;
mod inventory;
mod manual;
mod mount;
mod run;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::dataplane;

/// A Kubernetes service proxy without iptables, conntrack or kube-proxy: Services live in BPF maps.
#[derive(Debug, Parser)]
#[command(name = "sidestep", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the datapath is on this node; the defaults are those of a node.
#[derive(Clone, Debug, Args)]
pub struct Paths {
    /// Directory on a BPF file system for maps and links.
    #[arg(long, global = true, default_value = "/sys/fs/bpf/sidestep", env = "SIDESTEP_PIN_DIR")]
    pub pin_dir: PathBuf,
    /// Directory for the agent's lock and report.
    #[arg(long, global = true, default_value = "/run/sidestep", env = "SIDESTEP_RUN_DIR")]
    pub run_dir: PathBuf,
    /// Cgroup whose processes are served [default: the node's root].
    #[arg(long, global = true, env = "SIDESTEP_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
}

impl Paths {
    /// The cgroup to attach to: the given one, or the node's root. A container's own is refused.
    fn cgroup_root(&self) -> Result<PathBuf, dataplane::Error> {
        self.cgroup_root.clone().map_or_else(dataplane::node_cgroup, Ok)
    }

    /// Refuses a BPF file system that goes with this container. Who names a cgroup knows what they do.
    fn check_bpffs(&self) -> Result<(), dataplane::Error> {
        if self.cgroup_root.is_some() { Ok(()) } else { dataplane::check_bpffs(&self.pin_dir) }
    }
}

/// How a command answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch Services and keep the kernel's tables right
    Run(Box<run::Arguments>),
    /// Show the installed Services, their endpoints and counters, and what could not be installed
    Status(status::Arguments),
    /// Tell which endpoint a client gets for an address, and why
    Explain(explain::Arguments),
    /// Show the flows of packets from outside
    Flows(flows::Arguments),
    /// Check this machine, and try translation on real sockets
    Doctor(doctor::Arguments),
    /// Mount cgroup2 and the BPF file system where the node lacks them (for an init container)
    Mount(mount::Arguments),
    /// Detach and unpin everything that is Sidestep's, and nothing else
    Cleanup(cleanup::Arguments),
    /// Print a shell's completions
    Completions(manual::Completions),
    /// Write man pages
    Man(manual::Man),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(arguments) => run::run(*arguments),
            Command::Status(arguments) => status::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Flows(arguments) => flows::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Mount(arguments) => mount::run(&arguments),
            Command::Cleanup(arguments) => cleanup::run(&arguments),
            Command::Completions(arguments) => Ok(manual::completions(&arguments)),
            Command::Man(arguments) => manual::man(&arguments),
        }
    }
}
