//! Measures the cost of a connection through a Service, compared with a direct one and with one that kube-proxy's
//! rules translate.
//!
//! Why the figures are reliable:
//! - All compared cells run in the same minutes on the same processors: a *round* runs a few milliseconds of each, in
//!   a changing order; ratios are computed within a round, and the report shows their median over all rounds.
//! - "Direct" runs twice in each round, in two processes. Their ratio to each other is the noise floor.
//! - A worker is a process of its own in its cgroup and network namespace, pinned to a processor, that waits on a
//!   pipe between its turns.
//!
//! | file | concept |
//! |---|---|
//! | `connect`, `udp` | the benchmarks of east-west traffic, and what they compare |
//! | `nodeport` | the benchmarks of north-south traffic, and of pods' packets |
//! | `sync` | the benchmarks of the agent: how fast it follows an API server, starts, and moves stale sockets |
//! | `topology` | client pod, node, server pod, and their addresses |
//! | `wire`, `switch` | the parts of topologies |
//! | `datapath` | Sidestep's own programs and tables for one number of Services; `comparisons`: other programs |
//! | `netfilter` | rules in kube-proxy's shape; `tracking`: the kernel's connection tracking |
//! | `worker`, `server`, `sink` | the processes that generate the traffic, and their sockets; `protocol`: what they agree on |
//! | `options`, `part` | what to measure, and how to report it |
//! | `place` | namespace, cgroup and processor of a process |
//! | `rounds` | interleaving; `statistics`: medians and confidence; `programs`: the kernel's own statistics |
//! | `memory` | bytes of maps and sockets |
//! | `report`, `goals`, `machine`, `progress` | the output |
#![expect(clippy::cast_precision_loss, reason = "figures of a benchmark are far below 2^52")]

mod comparisons;
mod connect;
mod datapath;
mod goals;
mod interrupt;
mod machine;
mod memory;
mod netfilter;
mod nodeport;
mod options;
mod part;
mod place;
mod programs;
mod progress;
mod protocol;
mod report;
mod rounds;
mod server;
mod sink;
mod statistics;
mod switch;
mod sync;
mod topology;
mod tracking;
mod udp;
mod wire;
mod worker;

use std::{os::fd::RawFd, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use options::{Options, Output};
use report::Report;

/// Measure the cost of translation, compared with direct connections and with kube-proxy's rules
///
/// Each benchmark makes its own network namespaces, needs root, and removes everything that it made. Everything that it
/// compares runs in turns of milliseconds on the same processors; the report shows medians with confidence intervals.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// East-west TCP: connections, requests, time in the programs, memory
    ///
    /// Compares connections through a Service with direct ones and with iptables and nftables rules in kube-proxy's
    /// shape, by the number of Services.
    Connect(Options),
    /// East-west UDP: datagrams of unconnected sockets
    ///
    /// Request and answer through a Service, compared with direct ones, with one and with four threads on a socket.
    Udp(Options),
    /// North-south: TCP connections, requests, and datagrams until loss, through a NodePort
    ///
    /// A host outside, two nodes and their pods, once for each system: direct routing, Sidestep, iptables and nftables
    /// rules in kube-proxy's shape.
    Nodeport(Options),
    /// Pods without socket programs: TCP connections and requests, through a ClusterIP
    ///
    /// As `nodeport`, with the clients in a pod: what a pod forwards and what a virtual machine sends is served so.
    Pods(Options),
    /// The agent following an API server: first sync, time from change to connection, memory, CPU time
    ///
    /// With Services from an API server of the benchmark's own, by their number.
    Sync(Options),
    /// The agent's start: time until the first connection
    ///
    /// With Services from an API server of the benchmark's own, by their number.
    Start(Options),
    /// The agent's search for stale sockets: time from an endpoint's replacement until all are moved
    ///
    /// Connected UDP sockets in hundreds of network namespaces.
    Stale(Options),
    /// A client process of the benchmark
    #[command(hide = true)]
    Worker {
        /// Processor to pin to
        processor: usize,
        /// Inherited file descriptors of sinks
        sinks: Vec<RawFd>,
    },
    /// A server process of the benchmark
    #[command(hide = true)]
    Server {
        /// Processor to pin to
        processor: usize,
        /// Inherited file descriptors of sinks
        sinks: Vec<RawFd>,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Connect(options) => measure(&options, connect::run),
        Command::Udp(options) => measure(&options, udp::run),
        Command::Nodeport(options) => measure(&options, nodeport::run),
        Command::Pods(options) => measure(&options, nodeport::run_in_pod),
        Command::Sync(options) => measure(&options, sync::run),
        Command::Start(options) => measure(&options, sync::start::run),
        Command::Stale(options) => measure(&options, sync::stale::run),
        Command::Worker { processor, sinks } => worker::main(processor, &sinks).map(|()| ExitCode::SUCCESS),
        Command::Server { processor, sinks } => server::main(processor, &sinks).map(|()| ExitCode::SUCCESS),
    }
}

fn measure(options: &Options, benchmark: fn(&Options) -> Result<Report>) -> Result<ExitCode> {
    if let Some(reason) = sidestep_tests::skip::missing() {
        bail!("the benchmark cannot run: {reason}");
    }
    interrupt::catch()?;
    sidestep_tests::sweep::leftovers();
    let report = benchmark(options)?;
    match options.output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let missed = report.goals.iter().filter(|goal| !goal.met).count();
    match (options.check, options.output) {
        (false, _) => {}
        (true, Output::Table) => println!("{}", report.last_line()),
        // Standard output is one document.
        (true, Output::Json) => eprintln!("{}", report.last_line()),
    }
    Ok(if options.check && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
