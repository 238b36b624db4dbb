//! What Sidestep is compared with: rules in the shape that kube-proxy gives them, in a node of their own.
//!
//! Each flavour is a pure function from a number of Services to the text that `nft -f` or `iptables-restore` reads.
//! Clients are pods, so the rules for processes of the node itself are there but not taken.

mod iptables;
mod nftables;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use sidestep_tests::cgroup::Cgroup;

use crate::{place::Processors, topology::Topology, worker::Worker};

/// Which kind of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// A verdict map from address, protocol and port.
    Nftables,
    /// One rule after the other.
    Iptables,
}

impl Flavour {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    fn rules(self, services: u32) -> String {
        match self {
            Self::Nftables => nftables::rules(services),
            Self::Iptables => iptables::rules(services),
        }
    }

    /// What reads the rules; the first that works is taken.
    const fn programs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Nftables => &[&["nft", "-f", "-"]],
            Self::Iptables => {
                &[&["iptables-legacy-restore"], &["iptables-nft-restore"], &["iptables-restore"]]
            }
        }
    }
}

/// A node that translates with rules, with a client in its pod.
pub(crate) struct RuledNode {
    /// Which kind.
    pub(crate) flavour: Flavour,
    /// How many Services the rules have.
    pub(crate) services: u32,
    /// What read the rules.
    pub(crate) program: &'static str,
    topology: Topology,
}

impl RuledNode {
    /// Makes the node and loads the rules.
    pub(crate) fn new(
        flavour: Flavour,
        services: u32,
        outside: &Cgroup,
        processors: Processors,
    ) -> Result<Self> {
        let topology = Topology::new(outside, processors)?;
        let rules = flavour.rules(services);
        let mut failures = Vec::new();
        for program in flavour.programs() {
            match topology.node.run(|| load(program, &rules))? {
                Ok(()) => {
                    topology.forget_closed_connections()?;
                    return Ok(Self { flavour, services, program: program[0], topology });
                }
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("{} Services in {}: {}", services, flavour.name(), failures.join("; "))
    }

    /// Starts a client in the pod.
    pub(crate) fn worker(&self, outside: &Cgroup, processors: Processors) -> Result<Worker> {
        self.topology.worker(outside, processors)
    }

    /// An error unless the node tracks connections: then the rules have not been used.
    pub(crate) fn ensure_used(&self) -> Result<()> {
        let tracked = self.topology.tracked_connections()?;
        ensure!(tracked > 0, "{} with {} Services tracks no connection", self.flavour.name(), self.services);
        Ok(())
    }
}

fn load(program: &[&str], rules: &str) -> Result<()> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program[0].to_owned())?;
    let written = child.stdin.take().context("its input")?.write_all(rules.as_bytes());
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().take(3).collect::<Vec<_>>().join(" ");
    ensure!(output.status.success(), "{}: {}", program.join(" "), first);
    written.with_context(|| program[0].to_owned())
}
