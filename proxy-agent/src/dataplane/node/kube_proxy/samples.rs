//! Rules of both modes in kube-proxy's shape, as the kernel listed them (`NFT_MSG_NEWRULE` and the like, one after the
//! other), and what they say.
//!
//! Made on Linux 6.18 by nft 1.0.6 and iptables 1.8.9 from the same Services: `default/web:http` with ClientIP affinity,
//! policy Local and source ranges, `default/plain:http`, `kube-system/dns:dns`, `default/empty` without endpoints, and
//! `default/web6` of IPv6.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proxy_common::{FrontendKey, Port};

use super::{
    super::netlink::Ruleset,
    installed::{of_iptables, of_nftables},
    ranges::Ranges,
    served::{Choice, Served, Serves},
    statement::Statement,
};

const NFTABLES: &[u8] = include_bytes!("samples/nftables.bin");
const IPTABLES: &[u8] = include_bytes!("samples/iptables.bin");
const FAMILIES: [(u8, bool); 2] = [(2, true), (10, false)];

/// The messages in a sample: kind and body.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let Some(header) = bytes.first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = bytes.get(16..length) else { break };
        all.push((u16::from_ne_bytes([header[4], header[5]]), body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn ruleset(bytes: &[u8], family: u8, table: &str, v4: bool) -> Ruleset<Statement> {
    Ruleset::of(messages(bytes), family, table, |rule| Statement::read(rule, v4))
}

fn nftables(bytes: &[u8]) -> Serves {
    FAMILIES.into_iter().fold(Serves::default(), |all, (family, v4)| {
        let ruleset = ruleset(bytes, family, "kube-proxy", v4);
        all.and(of_nftables(&ruleset, if v4 { "ip kube-proxy" } else { "ip6 kube-proxy" }, v4))
    })
}

fn iptables(bytes: &[u8]) -> Serves {
    FAMILIES.into_iter().fold(Serves::default(), |all, (family, v4)| {
        let [nat, filter] = ["nat", "filter"].map(|table| ruleset(bytes, family, table, v4));
        all.and(of_iptables(&nat, &filter, v4))
    })
}

fn key(at: &str, protocol: u8) -> FrontendKey {
    let at: SocketAddr = at.parse().expect("an address");
    FrontendKey::new(at.ip().into(), Port::new(at.port()), protocol)
}

fn node_port(port: u16) -> FrontendKey {
    FrontendKey::node_port(&IpAddr::from([0, 0, 0, 0]).into(), Port::new(port), 6)
}

fn choice(endpoints: &[&str], seconds: u64) -> Choice {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().expect("an address"));
    Choice { endpoints: endpoints.collect(), seconds }
}

/// What both samples serve.
fn expected() -> Serves {
    let both = choice(&["10.244.1.5:8080", "10.244.2.5:8080"], 10_800);
    let local = choice(&["10.244.1.5:8080"], 10_800);
    let served = |service: &str, inside: &Choice, outside: &Choice| Served {
        service: Some(service.to_owned()),
        inside: inside.clone(),
        outside: outside.clone(),
        clients: None,
    };
    let one = |text: &str| text.parse::<IpAddr>().expect("an address").into();
    let clients = Ranges::new([Ranges::prefix(one("198.51.100.0"), 96 + 25)]);
    let restricted = Served {
        clients: Some(clients.with(one("192.0.2.100")).with(one("203.0.113.80"))),
        ..served("default/web:http", &both, &local)
    };
    let plain = choice(&["10.244.2.6:8080"], 0);
    let plain = served("default/plain:http", &plain, &plain);
    let dns = choice(&["10.244.1.7:5353", "10.244.2.7:5353"], 0);
    let empty = served("default/empty", &Choice::default(), &Choice::default());
    let web6 = choice(&["[fd00:10:244:2::5]:8080"], 0);
    Serves {
        frontends: [
            (key("10.96.0.80:80", 6), served("default/web:http", &both, &both)),
            (key("203.0.113.80:80", 6), restricted),
            (node_port(30_080), served("default/web:http", &both, &local)),
            (key("10.96.0.10:53", 17), served("kube-system/dns:dns", &dns, &dns)),
            (key("10.96.0.81:80", 6), plain.clone()),
            (key("198.51.100.81:80", 6), plain.clone()),
            (node_port(30_081), plain),
            (key("10.96.0.99:80", 6), empty.clone()),
            (node_port(30_099), empty),
            (key("[fd00:10:96::80]:80", 6), served("default/web6", &web6, &web6)),
        ]
        .into(),
        ..Serves::default()
    }
}

#[test]
fn rules_of_mode_nftables_say_what_they_serve() {
    let node: IpAddr = "192.0.2.10".parse().expect("an address");
    let expected = Serves { node_addresses: [node.into()].into(), ..expected() };
    pretty_assert(&nftables(NFTABLES), &expected);
}

#[test]
fn rules_of_mode_iptables_say_what_they_serve() {
    pretty_assert(&iptables(IPTABLES), &expected());
}

fn pretty_assert(found: &Serves, expected: &Serves) {
    for (key, served) in &expected.frontends {
        assert_eq!(found.frontends.get(key), Some(served), "{key}");
    }
    assert_eq!(found, expected);
}

/// Rules that were cut off are other rules, and never a panic.
#[test]
fn messages_that_were_cut_off_are_survived() {
    for length in (0..NFTABLES.len()).step_by(41) {
        nftables(&NFTABLES[..length]);
    }
    for length in (0..IPTABLES.len()).step_by(41) {
        iptables(&IPTABLES[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// So are rules with other bytes.
    #[test]
    fn messages_with_other_bytes_are_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        for (sample, read) in [(NFTABLES, nftables as fn(&[u8]) -> Serves), (IPTABLES, iptables)] {
            let mut bytes = sample.to_vec();
            for (index, byte) in &changes {
                bytes[index.index(sample.len())] = *byte;
            }
            read(&bytes);
        }
    }
}

/// A match that kube-proxy does not make: its rule is named, and all others are read.
#[test]
fn rules_that_are_not_understood_are_named() {
    let mut bytes = NFTABLES.to_vec();
    let name = b"numgen\0";
    let at = bytes.windows(name.len()).position(|window| window == name).expect("a choice at random");
    bytes[at..at + 6].copy_from_slice(b"magics");
    let found = nftables(&bytes);
    let named: Vec<&String> = found.not_understood.iter().collect();
    let [named] = named[..] else { panic!("{named:?}") };
    assert!(
        named.starts_with("table ip kube-proxy, chain service-OJ4SV5HA-default/web/tcp/http, rule ")
            && named.ends_with(": magics"),
        "{named}"
    );
    assert_eq!(found.frontends, nftables(NFTABLES).frontends);
}
