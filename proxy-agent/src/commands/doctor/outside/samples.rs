//! Rules as firewalls and CNIs leave them, and their effect on north-south packets. The files below `samples` are
//! what `nft -j list ruleset` printed.

use super::{
    filters::describe,
    iptables, nftables,
    rules::{Packet, Ruleset, findings},
};

const FIREWALLD: &str = include_str!("samples/firewalld.json");
const FIREWALLD_ZONES: &str = include_str!("samples/firewalld_zones.json");
const FLANNEL: &str = include_str!("samples/flannel.json");
const KUBE_PROXY: &str = include_str!("samples/kube-proxy.json");
const STRICT: &str = include_str!("samples/strict.json");

fn nft(text: &str) -> Vec<Ruleset> {
    nftables::read(text, false).expect("JSON")
}

/// The filter table with these chains and rules, as `iptables-save` prints it.
fn save(lines: &str) -> Vec<Ruleset> {
    let text = format!("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n{}\nCOMMIT\n", lines.trim());
    iptables::read(&text, "iptables", false).into_iter().collect()
}

/// From eth0 to this endpoint, by this device; to `?` when nothing is known of endpoints.
fn packet(to: &str, leaves_by: &str) -> Packet {
    let to = to.parse().ok();
    Packet {
        v6: to.is_some_and(|to: std::net::IpAddr| to.is_ipv6()),
        device: "eth0".to_owned(),
        leaves_by: to.map(|_| leaves_by.to_owned()),
        to,
    }
}

fn here() -> Packet {
    packet("10.244.1.11", "cni0")
}

fn there() -> Packet {
    packet("10.244.2.21", "eth0")
}

fn unknown() -> Packet {
    packet("?", "")
}

/// Where the packet is dropped.
fn dropped(rules: &[Ruleset], packet: &Packet) -> Vec<String> {
    findings(rules, packet)
        .into_iter()
        .map(|finding| format!("{}: {}", finding.chain, finding.rule))
        .collect()
}

#[test]
fn firewalld_rejects_what_conntrack_does_not_know_as_translated() {
    for packet in [here(), there(), unknown(), packet("fd00:10:244:1::11", "cni0")] {
        let found = dropped(&nft(FIREWALLD), &packet);
        assert_eq!(found.len(), 1, "{packet:?}");
        assert!(
            found[0].starts_with("filter_FORWARD: reject with icmpx admin-prohibited (handle "),
            "{found:?}"
        );
    }
    let found = findings(&nft(FIREWALLD), &here());
    let told = describe(&found[0], &[here(), there()]);
    for part in [
        "nftables, table inet firewalld, chain filter_FORWARD: `reject with icmpx admin-prohibited",
        "(from eth0) to 10.244.1.11, 10.244.2.21",
        "firewalld's trusted zone",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_a_policy_of_firewalld_accepts_is_not_reported() {
    let rules = nft(FIREWALLD_ZONES);
    assert_eq!(dropped(&rules, &here()), [""; 0]);
    assert_eq!(dropped(&rules, &there()).len(), 1, "other pods than those of the policy");
}

#[test]
fn flannel_accepts_the_pods_of_its_network() {
    for packet in [here(), there(), unknown(), packet("fd00:10:244:1::11", "cni0")] {
        assert_eq!(dropped(&nft(FLANNEL), &packet), [""; 0], "{packet:?}");
    }
}

#[test]
fn a_drop_that_is_uncertain_is_not_reported() {
    for packet in [here(), there(), unknown(), packet("fd00:10:244:1::11", "cni0")] {
        assert_eq!(dropped(&nft(KUBE_PROXY), &packet), [""; 0], "{packet:?}");
    }
}

#[test]
fn a_policy_that_drops_is_found_behind_accepts_for_others() {
    for packet in [here(), there(), packet("fd00:10:244:1::11", "cni0")] {
        assert_eq!(dropped(&nft(STRICT), &packet), ["fw: policy drop"], "{packet:?}");
    }
    let found = findings(&nft(STRICT), &here());
    let told = describe(&found[0], &[here()]);
    assert!(told.contains("`nft insert rule inet strict fw ip daddr PODRANGE accept`"), "{told}");
}

const DOCKER: &str = r"
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN";

#[test]
fn dockers_policy_drops_packets_that_no_rule_accepts() {
    let rules = save(DOCKER);
    for packet in [here(), there()] {
        assert_eq!(dropped(&rules, &packet), ["FORWARD: policy drop"], "{packet:?}");
    }
    let told = describe(&findings(&rules, &here())[0], &[here()]);
    assert!(told.contains("`iptables -I FORWARD -d PODRANGE -j ACCEPT`"), "{told}");
    assert!(told.starts_with("iptables, table filter, chain FORWARD: `policy drop`"), "{told}");
    // What kube-proxy accepts bears its mark, which our packets do not.
    let kube_proxy = r#"
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes \"forwarding\" rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#;
    assert_eq!(dropped(&save(&format!("{DOCKER}{kube_proxy}")), &here()), ["FORWARD: policy drop"]);
    // Flannel beside it.
    let flannel = r#"
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT"#;
    for packet in [here(), there(), unknown()] {
        assert_eq!(dropped(&save(&format!("{DOCKER}{flannel}")), &packet), [""; 0], "{packet:?}");
    }
    // Only the pods of this node.
    let here_only = "\n-A FORWARD -d 10.244.1.0/24 -j ACCEPT";
    let rules = save(&format!("{DOCKER}{here_only}"));
    assert_eq!((dropped(&rules, &here()).len(), dropped(&rules, &there()).len()), (0, 1));
    // By the device of the pods.
    let by_device = "\n-A FORWARD -o cni+ -j ACCEPT";
    let rules = save(&format!("{DOCKER}{by_device}"));
    assert_eq!((dropped(&rules, &here()).len(), dropped(&rules, &there()).len()), (0, 1));
}

#[test]
fn ufw_rejects_packets_without_a_route_rule() {
    let ufw = r#"
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-after-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-reject-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable"#;
    let reject = "ufw-reject-forward: -A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable";
    for packet in [here(), there(), unknown()] {
        assert_eq!(dropped(&save(ufw), &packet), [reject], "{packet:?}");
    }
    // `ufw route allow from any to 10.244.0.0/16`
    let routed = format!("{ufw}\n-A ufw-user-forward -d 10.244.0.0/16 -j ACCEPT");
    for packet in [here(), there(), unknown()] {
        assert_eq!(dropped(&save(&routed), &packet), [""; 0], "{packet:?}");
    }
}

#[test]
fn calico_decides_by_marks_that_its_own_chains_set() {
    let calico = r#"
:FORWARD DROP [0:0]
:cali-FORWARD - [0:0]
:cali-cidr-block - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-tw-cali12d4a061371 - [0:0]
:cali-pri-kns.default - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-cidr-block
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
-A cali-FORWARD -m comment --comment "cali:MH9kMp5aNICL-Olv" -j MARK --set-xmark 0x10000/0x10000
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-to-wl-dispatch -o cali12d4a061371 -g cali-tw-cali12d4a061371
-A cali-to-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-tw-cali12d4a061371 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-cali12d4a061371 -m conntrack --ctstate INVALID -j DROP
-A cali-tw-cali12d4a061371 -j MARK --set-xmark 0x0/0x10000
-A cali-tw-cali12d4a061371 -j cali-pri-kns.default
-A cali-tw-cali12d4a061371 -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-cali12d4a061371 -m comment --comment "Drop if no profiles matched" -j DROP
-A cali-pri-kns.default -j MARK --set-xmark 0x10000/0x10000
-A cali-pri-kns.default -m mark --mark 0x10000/0x10000 -j RETURN"#;
    let pod = packet("10.244.1.11", "cali12d4a061371");
    for packet in [pod, there(), unknown()] {
        assert_eq!(dropped(&save(calico), &packet), [""; 0], "{packet:?}");
    }
}

/// Case: nothing but what answers is accepted.
#[test]
fn a_policy_with_an_accept_for_answers_is_found() {
    let rules = save(":FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    for packet in [here(), there(), unknown()] {
        assert_eq!(dropped(&rules, &packet), ["FORWARD: policy drop"], "{packet:?}");
    }
    let six = packet("fd00:10:244:1::11", "cni0");
    assert_eq!(dropped(&rules, &six), [""; 0], "IPv6 has a table of its own");
    // A rule that accepts by source may match the client, unless it is the pods' range.
    let with = |rule: &str| save(&format!(":FORWARD DROP [0:0]\n-A FORWARD {rule} -j ACCEPT"));
    assert_eq!(dropped(&with("-s 192.168.0.0/16"), &here()), [""; 0]);
    assert_eq!(dropped(&with("-s 10.244.0.0/16"), &here()), ["FORWARD: policy drop"]);
    assert_eq!(dropped(&with("-s 10.0.0.0/8"), &here()), [""; 0]);
}

#[test]
fn without_a_filter_table_there_is_nothing_to_find() {
    assert!(iptables::read("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "iptables", false).is_none());
    assert!(nft(r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}]}"#).is_empty());
    assert!(nftables::read("Error: no such command", false).is_err());
}

/// Four jumps to the next chain in each of fifteen: a thousand million ways to the last rule.
#[test]
fn chains_that_multiply_are_not_followed_for_ever() {
    let chain = |number: u32| {
        let jump = format!("-A C{number} -j C{}\n", number + 1);
        format!(":C{number} - [0:0]\n{}", jump.repeat(4))
    };
    let chains: Vec<String> = (0..15).map(chain).collect();
    let lines = format!(":FORWARD ACCEPT [0:0]\n-A FORWARD -j C0\n{}:C15 - [0:0]\n", chains.concat());
    assert_eq!(dropped(&save(&lines), &here()), [""; 0]);
}
