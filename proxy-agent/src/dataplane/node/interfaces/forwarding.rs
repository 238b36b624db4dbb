//! Whether the kernel forwards packets that arrive at the uplinks, which north-south traffic needs to reach pods.
//!
//! IPv4 checks the device that a packet arrives at (`ip_route_input_slow`; `net.ipv4.ip_forward` sets all of them),
//! IPv6 the whole namespace or, since 6.17, the device's `force_forwarding` (`ip6_forward`). Sidestep changes none of
//! these sysctls: the operator decides, and a problem names the one that is off.

use std::{fs, path::Path};

use crate::{
    dataplane::tables::exposed::Families,
    model::{Problem, Subject},
};

/// The sysctls that keep these devices from forwarding, for families with north-south frontends.
pub fn not_forwarded<'a>(devices: impl Iterator<Item = &'a str>, families: Families) -> Vec<Problem> {
    let read = |setting: &str| fs::read_to_string(Path::new("/proc/sys/net").join(setting)).ok();
    problems(&devices.collect::<Vec<_>>(), families, |setting| read(setting).map(|value| value.trim() != "0"))
}

/// `is_on` returns `None` for a sysctl that does not exist: no such family, or a device that has just gone.
fn problems(devices: &[&str], families: Families, is_on: impl Fn(&str) -> Option<bool>) -> Vec<Problem> {
    let is_off = |setting: &str| is_on(setting) == Some(false);
    let mut problems = Vec::new();
    if families.v4 && !devices.is_empty() {
        let closed: Vec<&str> = devices
            .iter()
            .filter(|device| is_off(&format!("ipv4/conf/{device}/forwarding")))
            .copied()
            .collect();
        if closed.len() == devices.len() && is_off("ipv4/ip_forward") {
            problems.push(off(Subject::ThisNode, "net.ipv4.ip_forward", "north-south packets"));
        } else {
            // A name may have dots, which `sysctl` takes for the end of it.
            let named = closed.iter().map(|device| {
                let setting = format!("net/ipv4/conf/{device}/forwarding");
                off(Subject::device(device), &setting, "IPv4 packets that arrive there")
            });
            problems.extend(named);
        }
    }
    if families.v6 && is_off("ipv6/conf/all/forwarding") {
        let forced = |device: &&str| is_on(&format!("ipv6/conf/{device}/force_forwarding")) == Some(true);
        if devices.iter().any(|device| !forced(device)) {
            problems.push(off(Subject::ThisNode, "net.ipv6.conf.all.forwarding", "north-south IPv6 packets"));
        }
    }
    problems
}

fn off(subject: Subject, setting: &str, packets: &str) -> Problem {
    Problem {
        subject,
        field: setting.to_owned(),
        message: format!(
            "is 0, so the kernel does not forward {packets} to pods; set it to 1 (`sysctl -w {setting}=1`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    /// What is named, with these settings off and those on; others are not there.
    fn named(devices: &[&str], families: Families, off: &[&str], on: &[&str]) -> Vec<String> {
        let is_on = |setting: &str| {
            on.contains(&setting).then_some(true).or_else(|| off.contains(&setting).then_some(false))
        };
        let found = problems(devices, families, is_on);
        found.into_iter().map(|problem| format!("{} {}", problem.subject, problem.field)).collect()
    }

    #[test]
    fn what_is_off_is_named_once() {
        const ALL_V4: &str = "ipv4/ip_forward";
        const ALL_V6: &str = "ipv6/conf/all/forwarding";
        const ETH0: &str = "ipv4/conf/eth0/forwarding";
        const ETH1: &str = "ipv4/conf/eth1.5/forwarding";
        let devices = ["eth0", "eth1.5"];
        assert_eq!(named(&devices, BOTH, &[], &[ALL_V4, ALL_V6, ETH0, ETH1]), [""; 0]);
        assert_eq!(
            named(&devices, BOTH, &[ALL_V4, ALL_V6, ETH0, ETH1], &[]),
            ["this node net.ipv4.ip_forward", "this node net.ipv6.conf.all.forwarding"]
        );
        assert_eq!(
            named(&devices, BOTH, &[ETH1], &[ALL_V4, ALL_V6, ETH0]),
            ["eth1.5 net/ipv4/conf/eth1.5/forwarding"]
        );
        // Calico's way: the devices, and not the node.
        assert_eq!(named(&devices, BOTH, &[ALL_V4], &[ALL_V6, ETH0, ETH1]), [""; 0]);
    }

    #[test]
    fn a_family_without_north_south_frontends_is_not_named() {
        let off = ["ipv4/ip_forward", "ipv4/conf/eth0/forwarding", "ipv6/conf/all/forwarding"];
        assert_eq!(named(&["eth0"], Families::default(), &off, &[]), [""; 0]);
        assert_eq!(
            named(&["eth0"], Families { v4: false, v6: true }, &off, &["ipv6/conf/eth0/force_forwarding"]),
            [""; 0]
        );
        assert_eq!(named(&[], Families { v4: true, v6: false }, &off, &[]), [""; 0], "nowhere to come in");
    }
}
