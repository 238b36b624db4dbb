//! Netfilter rules that drop north-south packets on their way to pods. Reads the output of the tools that are
//! installed; the check names a missing tool, but never fails for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::{Command, Stdio},
};

use super::{
    Known, iptables, nftables,
    rules::{self, Finding, Packet, Ruleset},
};
use crate::{
    commands::doctor::{Check, Outcome},
    dataplane::leaves_by,
};

const NAME: &str = "firewall rules for forwarding";
/// How many endpoints a finding names.
const NAMED: usize = 8;

pub(super) fn check(known: &Known) -> Check {
    let (rulesets, missing) = gather();
    let missing =
        if missing.is_empty() { String::new() } else { format!("; not checked: {}", missing.join(", ")) };
    let found = findings(&rulesets, &packets(known));
    if found.is_empty() {
        let detail =
            if rulesets.is_empty() { "no rules found" } else { "no rule drops north-south packets to pods" };
        return Check::new(NAME, Outcome::Ok, format!("{detail}{missing}"));
    }
    let described: Vec<String> = found.iter().map(|(finding, packets)| describe(finding, packets)).collect();
    Check::new(NAME, Outcome::Warning, format!("{}{missing}", described.join("; ")))
}

/// One packet for each path: from each device, to one endpoint of each neighbourhood.
fn packets(known: &Known) -> Vec<Packet> {
    let leaves_by = leaves_by(&known.endpoints).unwrap_or_default();
    let mut ways: BTreeMap<(String, Vec<u8>), (IpAddr, String)> = BTreeMap::new();
    for (address, device) in leaves_by {
        // A node's pods have a range like this, if not a wider one.
        let neighbourhood = match address {
            IpAddr::V4(v4) => v4.octets()[..3].to_vec(),
            IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
        };
        ways.entry((device.clone(), neighbourhood)).or_insert((address, device));
    }
    let mut ends: Vec<(bool, Option<IpAddr>, Option<String>)> =
        ways.into_values().map(|(to, device)| (to.is_ipv6(), Some(to), Some(device))).collect();
    if known.endpoints.is_empty() {
        ends.extend(known.families.v4.then_some((false, None, None)));
        ends.extend(known.families.v6.then_some((true, None, None)));
    }
    let by_device = known.devices.iter().flat_map(|device| {
        ends.iter().map(|(v6, to, leaves_by)| Packet {
            v6: *v6,
            device: device.clone(),
            leaves_by: leaves_by.clone(),
            to: *to,
        })
    });
    by_device.collect()
}

/// What drops some of these packets, and which.
fn findings(rulesets: &[Ruleset], packets: &[Packet]) -> BTreeMap<Finding, Vec<Packet>> {
    let mut found: BTreeMap<Finding, Vec<Packet>> = BTreeMap::new();
    for packet in packets {
        for finding in rules::findings(rulesets, packet) {
            found.entry(finding).or_default().push(packet.clone());
        }
    }
    found
}

/// Describes what drops which packets, and the remedy.
pub(super) fn describe(finding: &Finding, packets: &[Packet]) -> String {
    let Finding { table, chain, rule } = finding;
    let to: BTreeSet<String> =
        packets.iter().filter_map(|packet| packet.to).map(|address| address.to_string()).collect();
    let pods = match to.len() {
        0 => "pods".to_owned(),
        count if count > NAMED => {
            let named: Vec<String> = to.into_iter().take(NAMED).collect();
            format!("pods such as {}", named.join(", "))
        }
        _ => to.into_iter().collect::<Vec<_>>().join(", "),
    };
    let devices: BTreeSet<&str> = packets.iter().map(|packet| packet.device.as_str()).collect();
    let devices = devices.into_iter().collect::<Vec<_>>().join(", ");
    let tool = table.split(',').next().unwrap_or_default();
    let remedy = if tool == "nftables" && table.contains("firewalld") {
        "put the pods' ranges into firewalld's trusted zone, and add a policy that accepts traffic from any \
         zone to it"
            .to_owned()
    } else if tool == "nftables" {
        let table = table.rsplit("table ").next().unwrap_or_default();
        let family = if packets.iter().any(|packet| packet.v6) { "ip6" } else { "ip" };
        format!(
            "accept the pods' ranges, such as with `nft insert rule {table} {chain} {family} daddr PODRANGE \
             accept`"
        )
    } else {
        format!("accept the pods' ranges, such as with `{tool} -I FORWARD -d PODRANGE -j ACCEPT`")
    };
    format!("{table}, chain {chain}: `{rule}` drops north-south packets (from {devices}) to {pods}: {remedy}")
}

/// The rules of this network namespace, and the missing tools.
fn gather() -> (Vec<Ruleset>, Vec<String>) {
    let (mut rulesets, mut missing) = (Vec::new(), Vec::new());
    let mut has_nft_variant = [false; 2];
    for (v6, name) in [(false, "iptables"), (true, "ip6tables")] {
        let mut seen = false;
        for variant in ["nft", "legacy"] {
            if let Some(text) = output(&format!("{name}-{variant}-save"), &[]) {
                rulesets.extend(iptables::read(&text, &format!("{name}-{variant}"), v6));
                seen = true;
                has_nft_variant[usize::from(v6)] |= variant == "nft";
            }
        }
        if !seen && let Some(text) = output(&format!("{name}-save"), &[]) {
            has_nft_variant[usize::from(v6)] = text.contains("(nf_tables)");
            rulesets.extend(iptables::read(&text, name, v6));
            seen = true;
        }
        if !seen {
            missing.push(format!("no {name}-save"));
        }
    }
    match output("nft", &["-j", "list", "ruleset"]) {
        Some(text) => match nftables::read(&text, has_nft_variant == [true; 2]) {
            Ok(found) => rulesets.extend(found),
            Err(error) => missing.push(format!("nft's rules ({error})")),
        },
        None => missing.push("no nft".to_owned()),
    }
    (rulesets, missing)
}

/// A tool's output, if it exists and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
