//! The command line: a file for each command. Commands are the edges of the library and hold no rules of their own.

mod cleanup;
mod clock;
mod doctor;
mod explain;
mod flows;
#[doc(hidden)]
pub mod fuzzing;
mod inventory;
mod manual;
mod monitor;
mod mount;
mod names;
mod patience;
mod run;
mod status;
mod takeover;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    agent::Report,
    dataplane::{self, Beside},
};

/// A Kubernetes service proxy in eBPF: a replacement for kube-proxy without iptables, nftables or IPVS
///
/// East-west connections get their endpoint in `connect`, without NAT and without conntrack. North-south traffic is
/// translated at TC by connection records in BPF maps, without netfilter. Maps and programs are pinned: they keep
/// working while the agent restarts, and `status`, `explain` and `flows` read them without it.
#[derive(Debug, Parser)]
#[command(name = "sidestep", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where this node's datapath lives; the defaults suit a node with one agent.
#[derive(Clone, Debug, Args)]
pub struct Paths {
    /// Directory on a BPF file system for pinned maps and links
    ///
    /// Pins outlive the agent: the next one adopts the maps and updates the links, so connections and Services do not
    /// notice a restart. Agents with different directories have nothing in common.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/sidestep",
        env = "SIDESTEP_PIN_DIR"
    )]
    pub pin_dir: PathBuf,
    /// Directory for the agent's lock and its report
    ///
    /// The lock keeps a second agent from starting; `sidestep status` shows the problems that the report lists, even
    /// after the agent has ended.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/sidestep",
        env = "SIDESTEP_RUN_DIR"
    )]
    pub run_dir: PathBuf,
    /// Cgroup whose processes the socket programs serve [default: the root cgroup of the node]
    ///
    /// Every process below this cgroup gets its Services in `connect` and `sendmsg`. In a container the agent finds
    /// the root cgroup through the node's mounts and refuses the container's own cgroup, which would serve nobody but
    /// the agent.
    #[arg(long, global = true, value_name = "DIR", env = "SIDESTEP_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
}

impl Paths {
    /// The cgroup to attach to: the given one, or the node's root. A container's own is refused.
    fn cgroup_root(&self) -> Result<PathBuf, dataplane::Error> {
        self.cgroup_root.clone().map_or_else(dataplane::node_cgroup, Ok)
    }

    /// Refuses a BPF file system that ends with this container, unless a cgroup is named explicitly.
    fn check_bpffs(&self) -> Result<(), dataplane::Error> {
        if self.cgroup_root.is_some() { Ok(()) } else { dataplane::check_bpffs(&self.pin_dir) }
    }
}

/// The format of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    #[default]
    Table,
    /// JSON for programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: watch Services and EndpointSlices, and keep the BPF maps up to date
    ///
    /// Attaches the socket programs to the root cgroup and the packet programs to the node's uplinks, then follows the
    /// API server (or a directory of manifests). When it ends, programs and maps stay in place: Services keep
    /// working as they last were until an agent starts again or `sidestep cleanup` removes them.
    Run(Box<run::Arguments>),
    /// Show the installed Services, their endpoints and counters, and all problems
    ///
    /// Reads the pinned maps, so it also works while no agent runs. The problems come from the agent's last report:
    /// each names the object, the field, the cause and the remedy. CONNECTIONS is how often clients were given an endpoint,
    /// whether it answered or not, and REFUSED how often they were not, and why (`sidestep explain` says more).
    Status(status::Arguments),
    /// Explain which endpoint a client gets from a Service or an address, and why: where to begin when somebody cannot reach
    /// a Service
    ///
    /// Runs the same selection as the kernel programs on the same maps, prints every lookup and its result, and names
    /// the reason for a refusal. Tells what else is in the way: other service proxies and programs, and for clients outside
    /// of the cluster firewall rules and sysctls. Sends no packet and changes no map, unless `--probe` asks for connections.
    Explain(explain::Arguments),
    /// List the connection records of north-south traffic
    ///
    /// A line for each connection or UDP flow: the client, the frontend it connected to, the endpoint it got, the
    /// address and port it is masqueraded as, and its state. East-west connections have no records here: their sockets
    /// are connected to the endpoint itself.
    Flows(flows::Arguments),
    /// Watch the kernel programs decide: who gets which endpoint, who is refused and why, which connections begin and end
    ///
    /// The programs tell nothing while nobody listens, and forget a listener that ends within seconds, however it ends. Refusals
    /// are recorded all the time (`--since`). The agent is not needed.
    Monitor(monitor::Arguments),
    /// Check whether this machine can run Sidestep, and test translation on real sockets
    ///
    /// Checks kernel, mounts, privileges, other programs on the same hooks, forwarding, and firewall rules that drop
    /// forwarded packets. Then loads the programs in a cgroup, pin directory and network namespace of its own and
    /// connects through them; no packet leaves the machine. Exits with status 1 if a check fails.
    Doctor(doctor::Arguments),
    /// Mount cgroup2 and the BPF file system where the node lacks them
    ///
    /// Mounting takes more privileges than anything else the agent does: in a privileged init container it leaves the
    /// agent's own container without them.
    Mount(mount::Arguments),
    /// Remove Sidestep's programs, maps and reserved ports from this node
    ///
    /// Detaches and unpins what Sidestep made, and nothing else: programs and maps of others stay. Refuses while an
    /// agent runs. Established east-west TCP connections go on, since their sockets are connected to the endpoints;
    /// north-south connections break, unless `--drain` waits for them.
    Cleanup(cleanup::Arguments),
    /// Remove kube-proxy's rules, and break none of the connections that they translated
    ///
    /// For a node where the agent runs and kube-proxy is gone. Deletes the rules that decide in one step for all tables,
    /// keeps the kernel's NAT on and forwarded packets accepted while connections of kube-proxy's last, then removes
    /// the rest. Rules of kubelet, of CNI plugins and of people stay. Modes iptables and nftables.
    Takeover(takeover::Arguments),
    /// Print completions for a shell
    ///
    /// For bash: `sidestep completions bash > /etc/bash_completion.d/sidestep`.
    Completions(manual::Completions),
    /// Write man pages for sidestep and each of its commands
    ///
    /// Creates the directory if it does not exist. `man -l DIRECTORY/sidestep.1` shows a page without installing it.
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
            Command::Monitor(arguments) => monitor::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Mount(arguments) => mount::run(&arguments),
            Command::Cleanup(arguments) => cleanup::run(&arguments),
            Command::Takeover(arguments) => takeover::run(&arguments),
            Command::Completions(arguments) => Ok(manual::completions(&arguments)),
            Command::Man(arguments) => manual::man(&arguments),
        }
    }
}

/// Looks at the cgroup that is named, or that the agent had, or at the node's.
fn beside(paths: &Paths, agent: Option<&Report>) -> Option<Beside> {
    let told = || agent.map(|report| report.cgroup_root.clone());
    let cgroup = paths.cgroup_root.clone().or_else(told).or_else(|| paths.cgroup_root().ok())?;
    Beside::look(&cgroup, &paths.pin_dir).ok()
}

/// The nonzero counts of events; nothing if all are 0.
fn counts(counts: &BTreeMap<&'static str, u64>, separator: &str) -> Option<String> {
    let happened = counts.iter().filter(|(_, count)| **count > 0);
    let happened: Vec<String> = happened.map(|(what, count)| format!("{count} {what}")).collect();
    (!happened.is_empty()).then(|| happened.join(separator))
}
