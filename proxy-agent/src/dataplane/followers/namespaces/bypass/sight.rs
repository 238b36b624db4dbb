//! What there is to see in a network namespace, by the thread that has entered it.

use std::{collections::BTreeSet, fs, fs::File, net::IpAddr};

use nix::sched::{CloneFlags, setns};
use proxy_common::Address;

use super::Rules;
use crate::dataplane::{
    Error,
    node::{
        iptables::{NatTable, nat_tables},
        netlink::{Nftables, REDIRECTING, Routes, Wire, Wires},
    },
};

/// Addresses outside of every cluster, whose route is the default one (RFC 5737, RFC 3849).
const ELSEWHERE: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

/// What was seen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Sight {
    /// Whether a wire leads to the node.
    pub(super) of_node: bool,
    /// The other namespaces that its wires lead into, by their numbers in it.
    pub(super) elsewhere: Vec<i32>,
    /// Whether its rules redirect what its own processes send.
    pub(super) redirects: bool,
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
        let is_redirecting = |table: &NatTable| {
            let rules = table.content.as_ref();
            rules.is_ok_and(|rules| rules.has_output && REDIRECTING.iter().any(|target| rules.names(target)))
        };
        if nat_tables().iter().any(is_redirecting) {
            return Ok(true);
        }
        Ok(self.has_nftables() && Nftables::new()?.redirects_output()?)
    }
}

/// The node.
pub(super) struct Node<'a> {
    pub(super) namespace: &'a File,
    /// The numbers of its uplinks.
    pub(super) uplinks: BTreeSet<u32>,
}

impl Sight {
    /// Looks at the namespace of the calling thread.
    pub(super) fn here(rulers: &Rulers, node: &Node<'_>, rules: &Rules) -> Result<Self, Error> {
        let wires = Wires::new()?;
        // The kernel may number a namespace only when it lists a device that leads there.
        let all = wires.list()?;
        let number = wires.number_of(node.namespace)?;
        let (to_node, others): (Vec<Wire>, Vec<Wire>) =
            all.into_iter().partition(|wire| Some(wire.leads_to) == number);
        // Behind an uplink are other machines.
        let to_node: Vec<Wire> =
            to_node.into_iter().filter(|wire| !node.uplinks.contains(&wire.other_end)).collect();
        let of_node = !to_node.is_empty();
        if !rules.detects {
            return Ok(Self { of_node, ..Self::default() });
        }
        let elsewhere: Vec<i32> = others.iter().map(|wire| wire.leads_to).collect();
        if !of_node {
            return Ok(Self { elsewhere, ..Self::default() });
        }
        let routes = Routes::new()?;
        let is_own_route = |service: Option<Address>, elsewhere: &str| {
            let elsewhere = elsewhere.parse::<IpAddr>().ok().map(Address::from);
            let way = |to: Option<Address>| routes.way_towards(to?);
            way(service).is_some_and(|found| {
                to_node.iter().any(|wire| wire.device == found.device)
                    && way(elsewhere).is_some_and(|default| default != found)
            })
        };
        Ok(Self {
            of_node,
            elsewhere,
            redirects: rulers.redirect_output()?,
            routes: rules
                .services
                .into_iter()
                .zip(ELSEWHERE)
                .any(|(service, other)| is_own_route(service, other)),
        })
    }
}

/// Which of the others the wires of this namespace lead into. The calling thread is in it afterwards.
pub(super) fn which<'a>(
    namespace: &File,
    elsewhere: &[i32],
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
