//! What else north-south traffic meets at this node: programs of others at the uplinks, sysctls that keep the kernel
//! from forwarding, and netfilter rules that drop packets on their way to pods.
//!
//! | file | concept |
//! |---|---|
//! | `filters` | the check of rules: packets, tools, remedies |
//! | `rules` | the fate of a packet in forward chains (pure) |
//! | `iptables`, `nftables` | reading what the tools print |

mod filters;
pub(super) mod fuzzing;
mod iptables;
mod nftables;
mod rules;
#[cfg(test)]
mod samples;

use std::{collections::BTreeSet, net::IpAddr};

use super::{Check, Outcome};
use crate::{
    commands::Paths,
    dataplane::{
        Exposed, Families, Tables, exposed_endpoints, hooked, meaning_of_order, not_forwarded, would_choose,
    },
};

pub(super) fn check(paths: &Paths) -> Vec<Check> {
    let known = Known::read(paths);
    vec![order(paths), forwarding(&known), filters::check(&known)]
}

/// What the node has to forward, and where it comes in.
struct Known {
    /// The names of the uplinks: where the programs are attached, or would be.
    devices: Vec<String>,
    /// The families with north-south frontends; IPv4 if no agent has ever run.
    families: Families,
    /// The endpoints behind those frontends.
    endpoints: BTreeSet<IpAddr>,
}

/// What keeps north-south traffic from these endpoints: a sentence for each thing that was found.
pub(in crate::commands) fn north_south(paths: &Paths, endpoints: BTreeSet<IpAddr>) -> Vec<String> {
    let known = Known { endpoints, ..Known::read(paths) };
    let checks = [order(paths), forwarding(&known), filters::check(&known)];
    checks.into_iter().filter(|check| check.outcome != Outcome::Ok).map(|check| check.detail).collect()
}

impl Known {
    fn read(paths: &Paths) -> Self {
        let hooked = hooked(&paths.pin_dir).unwrap_or_default();
        let names = hooked.iter().filter_map(|device| nix::net::if_::if_indextoname(device.index).ok());
        let mut devices: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        if devices.is_empty() {
            devices = would_choose().unwrap_or_default();
        }
        let Ok(tables) = Tables::open(&paths.pin_dir) else {
            return Self { devices, families: Families { v4: true, v6: false }, endpoints: BTreeSet::new() };
        };
        let (families, endpoints) = (Exposed::installed(&tables).families(), exposed_endpoints(&tables));
        Self { devices, families, endpoints }
    }
}

/// Whether programs of others can keep packets from ours.
fn order(paths: &Paths) -> Check {
    const NAME: &str = "order of programs at devices";
    let devices = match hooked(&paths.pin_dir) {
        Ok(devices) => devices,
        Err(error) => return Check::new(NAME, Outcome::Failed, error.to_string()),
    };
    let described = devices.iter().flat_map(|device| {
        let name = nix::net::if_::if_indextoname(device.index).unwrap_or_default();
        let told = meaning_of_order(&device.ahead).into_iter();
        told.map(move |sentence| format!("{}: {sentence}", name.to_string_lossy()))
    });
    let described: Vec<String> = described.collect();
    if described.is_empty() {
        let detail = if devices.is_empty() { "no packet programs are attached" } else { "ours run first" };
        return Check::new(NAME, Outcome::Ok, detail);
    }
    Check::new(NAME, Outcome::Warning, described.join("; "))
}

fn forwarding(known: &Known) -> Check {
    const NAME: &str = "forwarding";
    let found = not_forwarded(known.devices.iter().map(String::as_str), known.families);
    if found.is_empty() {
        return Check::new(NAME, Outcome::Ok, "the kernel forwards north-south packets to pods");
    }
    let described: Vec<String> = found.iter().map(ToString::to_string).collect();
    Check::new(NAME, Outcome::Warning, described.join("; "))
}
