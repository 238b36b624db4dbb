//! What there is to see in a network namespace, by the thread that has entered it.

use std::{collections::BTreeSet, fs, fs::File, net::IpAddr};

use nix::sched::{CloneFlags, setns};

use super::Rules;
use crate::dataplane::{
    Error,
    node::{
        iptables::{NatTable, nat_tables},
        netlink::{Nftables, REDIRECTING, Routes, WayOut, Wire, Wires},
    },
};

/// Addresses outside of every cluster, whose route is the default one (RFC 5737, RFC 3849).
const ELSEWHERE: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

/// Bytes of a pod's rules that are read: those of a mesh take a hundredth.
const MOST_RULES: usize = 1 << 20;

/// What was seen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Sight {
    /// Whether what it sends to Services comes out at a device of the node's that serves pods.
    pub(super) of_node: bool,
    /// The other namespaces that its wires lead into, by their numbers in it.
    pub(super) elsewhere: BTreeSet<i32>,
    /// Whether its rules redirect what its own processes send; nothing if they cannot be read.
    pub(super) redirects: Option<bool>,
    /// Whether its route to Services leads to the node, and is not its default route.
    pub(super) routes: bool,
}

/// Who answers about rules.
#[derive(Debug)]
pub(super) struct Rulers {
    /// Whether the kernel answered here.
    has_nftables: bool,
}

impl Rulers {
    /// Asks once, in the node's own namespace.
    pub(super) fn new() -> Self {
        Self { has_nftables: Nftables::new().is_ok_and(|nftables| nftables.is_there()) }
    }

    /// Whether a question finds the module: to ask for one that is missing makes the kernel start a program each time.
    fn has_nftables(&self) -> bool {
        self.has_nftables
            || fs::read_to_string("/proc/modules")
                .is_ok_and(|modules| modules.lines().any(|line| line.starts_with("nf_tables ")))
    }

    /// Whether rules here redirect what processes of this namespace send.
    fn redirect_output(&self) -> Result<bool, Error> {
        for NatTable { family, content } in nat_tables(MOST_RULES) {
            let rules = content.map_err(Error::system("IPT_SO_GET_ENTRIES", family))?;
            if rules.has_output && REDIRECTING.iter().any(|target| rules.names(target)) {
                return Ok(true);
            }
        }
        Ok(self.has_nftables() && Nftables::new()?.redirects_output()?)
    }
}

/// The node.
pub(super) struct Node<'a> {
    pub(super) namespace: &'a File,
    /// Its devices that serve what comes out of pods.
    pub(super) devices: &'a BTreeSet<u32>,
}

impl Sight {
    /// Looks at the namespace of the calling thread.
    pub(super) fn here(
        rulers: &Rulers,
        node: &Node<'_>,
        routes: &Routes,
        rules: &Rules,
    ) -> Result<Self, Error> {
        let wires = Wires::new()?;
        // The kernel may number a namespace only when it lists a device that leads there.
        let all = wires.list()?;
        let number = wires.number_of(node.namespace)?;
        let (to_node, others): (Vec<Wire>, Vec<Wire>) =
            all.into_iter().partition(|wire| Some(wire.leads_to) == number);
        // What comes out elsewhere nobody would translate: at an uplink, or at a switch's port.
        let is_served = |found: &WayOut| {
            let mut wires = to_node.iter().filter(|wire| node.devices.contains(&wire.other_end));
            wires.any(|wire| wire.device == found.device)
        };
        let to_services: Vec<(WayOut, &str)> = rules
            .services
            .into_iter()
            .zip(ELSEWHERE)
            .filter_map(|(service, elsewhere)| Some((routes.way_towards(service?)?, elsewhere)))
            .filter(|(way, _)| is_served(way))
            .collect();
        let of_node = !to_services.is_empty();
        if !rules.detects {
            return Ok(Self { of_node, ..Self::default() });
        }
        let elsewhere = others.iter().map(|wire| wire.leads_to).collect();
        if !of_node {
            return Ok(Self { elsewhere, ..Self::default() });
        }
        let is_default = |(way, elsewhere): &(WayOut, &str)| {
            let elsewhere: Option<IpAddr> = elsewhere.parse().ok();
            elsewhere
                .and_then(|address| routes.way_towards(address.into()))
                .is_none_or(|default| default == *way)
        };
        let redirects = rulers.redirect_output();
        if let Err(error) = &redirects {
            tracing::debug!(%error, "cannot read a namespace's rules");
        }
        Ok(Self {
            of_node,
            elsewhere,
            redirects: redirects.ok(),
            routes: !to_services.iter().all(is_default),
        })
    }
}

/// Which of the others the wires of this namespace lead into. The calling thread is in it afterwards.
pub(super) fn which<'a>(
    namespace: &File,
    elsewhere: &BTreeSet<i32>,
    others: impl Iterator<Item = (u64, &'a File)>,
) -> Result<Vec<u64>, Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::system("setns", "(a network namespace)")(errno.into()))?;
    let wires = Wires::new()?;
    let mut found = Vec::new();
    for (cookie, other) in others {
        if wires.number_of(other)?.is_some_and(|number| elsewhere.contains(&number)) {
            found.push(cookie);
        }
    }
    Ok(found)
}
