//! The comparison: rules in kube-proxy's shape, on a node of their own.
//!
//! Each flavour is a pure function from Services to the text that `nft -f` or `iptables-restore` reads. Clients are
//! pods or north-south, so the rules for the node's own processes exist but never match.

mod iptables;
mod nftables;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sidestep_tests::namespace::Namespace;

use crate::tracking;

/// Which kind of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// A verdict map from address, protocol and port.
    Nftables,
    /// One rule after the other.
    Iptables,
}

/// A port of a Service, as rules know it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Its ClusterIP.
    pub(crate) address: Ipv4Addr,
    /// Its port there.
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// Its port at the node's address, external traffic policy Cluster.
    pub(crate) node_port: Option<u16>,
    /// Its endpoints.
    pub(crate) endpoints: Vec<SocketAddrV4>,
}

/// What rules are made from.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    /// The node's address for NodePorts.
    pub(crate) node: Ipv4Addr,
    /// The Services.
    pub(crate) services: Vec<Service>,
}

impl Flavour {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// Loads rules into a node; returns the program that read them.
    pub(crate) fn install(self, ruled: &Ruled, node: &Namespace) -> Result<&'static str> {
        self.install_timed(ruled, node).map(|(program, _)| program)
    }

    /// The same, and how long that program ran.
    pub(crate) fn install_timed(self, ruled: &Ruled, node: &Namespace) -> Result<(&'static str, Duration)> {
        let rules = match self {
            Self::Nftables => nftables::rules(ruled),
            Self::Iptables => iptables::rules(ruled),
        };
        let mut failures = Vec::new();
        for program in self.programs() {
            let start = Instant::now();
            match node.run(|| load(program, &rules))? {
                Ok(()) => {
                    let time = start.elapsed();
                    tracking::forget_closed_connections(node)?;
                    return Ok((program[0], time));
                }
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("{} Services in {}: {}", ruled.services.len(), self.name(), failures.join("; "))
    }

    /// The programs that read rules; the first that works is used.
    const fn programs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Nftables => &[&["nft", "-f", "-"]],
            Self::Iptables => {
                &[&["iptables-legacy-restore"], &["iptables-nft-restore"], &["iptables-restore"]]
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Services with two endpoints each, without NodePorts.
    pub(super) fn clients_of_pods(services: u32) -> Ruled {
        let service = |number| Service {
            address: Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number),
            port: 80,
            protocol: "tcp",
            node_port: None,
            endpoints: [10, 11].map(|host| SocketAddrV4::new(Ipv4Addr::new(10, 244, 2, host), 8080)).to_vec(),
        };
        Ruled { node: Ipv4Addr::new(10, 244, 1, 1), services: (0..services).map(service).collect() }
    }

    /// A Service with one endpoint, and a NodePort.
    pub(super) fn node_ports() -> Ruled {
        let service = Service {
            address: Ipv4Addr::new(10, 96, 0, 1),
            port: 53,
            protocol: "udp",
            node_port: Some(30053),
            endpoints: vec![SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 10), 53)],
        };
        Ruled { node: Ipv4Addr::new(192, 0, 2, 1), services: vec![service] }
    }
}
