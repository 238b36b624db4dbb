//! What the rows say, written a second time: naively, from the description of the cluster, one address at a
//! time, with sets and nothing else. It shares no code with the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::{Address, AddressBits, FrontendKey, Port, Reason};

use super::cluster::{APort, AService, ASlice, AnAffinity, AnEndpoint, Cluster};

type Endpoints = BTreeSet<(IpAddr, u16)>;

/// What a client gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Endpoints(Endpoints),
    Refuse(Reason),
}

/// What is behind an address and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frontend {
    pub(super) service: String,
    pub(super) port: String,
    pub(super) cluster: Answer,
    pub(super) inside: Answer,
    pub(super) outside: Answer,
    pub(super) serving: Endpoints,
    pub(super) affinity_seconds: u32,
    /// Nothing where everyone may use the LoadBalancer IPs.
    pub(super) sources: Option<Vec<String>>,
}

/// One way to reach a Service port: its key, and the bit that its address gets.
type Way = (FrontendKey, Option<AddressBits>);

/// Everything that is installed, by address.
pub(super) fn frontends(cluster: &Cluster) -> BTreeMap<FrontendKey, Frontend> {
    let ways = won(cluster);
    let mut all = BTreeMap::new();
    for (key, (name, index, _)) in &ways {
        let service = &cluster.services[name];
        let port = &service.ports[*index];
        let v4 = key.address.is_v4();
        // FE-9: has this port an external frontend in this family that is its own?
        let external = ways.iter().any(|(other, (n, i, bit))| {
            n == name && i == index && other.address.is_v4() == v4 && *bit != Some(AddressBits::CLUSTER_IP)
        });
        let answer = |policy: &str| answer(cluster, name, port, v4, policy);
        let at_cluster_ip = answer(service.internal);
        all.insert(
            *key,
            Frontend {
                service: name.clone(),
                port: port.name.into(),
                // PO-3
                inside: if external { answer("Cluster") } else { at_cluster_ip.clone() },
                outside: if external { answer(service.external) } else { at_cluster_ip.clone() },
                cluster: at_cluster_ip,
                serving: endpoints(cluster, name, port, v4)
                    .into_iter()
                    .filter(|(_, (_, e))| e.serving != Some(false))
                    .map(|(at, _)| at)
                    .collect(),
                affinity_seconds: match service.affinity {
                    AnAffinity::None => 0,
                    AnAffinity::Default => 10_800, // ST-2
                    AnAffinity::Seconds(seconds) => seconds,
                },
                sources: sources(cluster, service, v4),
            },
        );
    }
    all
}

/// What every address is.
pub(super) fn addresses(cluster: &Cluster) -> BTreeMap<Address, AddressBits> {
    let mut bits: BTreeMap<Address, AddressBits> = BTreeMap::new();
    let mut add = |address: Address, bit| {
        let entry = bits.entry(address).or_default();
        *entry = entry.with(bit);
    };
    for (key, (_, _, bit)) in won(cluster) {
        if let Some(bit) = bit {
            add(key.address, bit);
        }
    }
    let node = cluster.node.as_ref().map(|node| node.addresses.clone()).unwrap_or_default();
    let own = if node.is_empty() { &cluster.local } else { &node };
    for text in own.iter().filter(|text| !text.starts_with("127.") && !text.starts_with("fe80")) {
        add(ip(text).into(), AddressBits::NODE);
    }
    bits
}

/// FE-6: every way to every Service port, given to the first who asks for it.
fn won(cluster: &Cluster) -> BTreeMap<FrontendKey, (String, usize, Option<AddressBits>)> {
    let mut by_age: Vec<(&String, &AService)> = cluster.services.iter().collect();
    by_age.sort_by_key(|(name, service)| (service.created, *name));
    let mut won = BTreeMap::new();
    for (name, service) in by_age {
        for (index, port) in service.ports.iter().enumerate() {
            for (key, bit) in ways(cluster, service, port) {
                won.entry(key).or_insert((name.clone(), index, bit));
            }
        }
    }
    won
}

fn ways(cluster: &Cluster, service: &AService, port: &APort) -> Vec<Way> {
    // IN-2
    if service.kind == "ExternalName" || service.cluster_ips == ["None"] {
        return Vec::new();
    }
    let protocol = match port.protocol {
        "TCP" => 6,
        "UDP" => 17,
        _ => 132,
    };
    let number = Port::new(port.port);
    let own = |text: &str| {
        let of_node = cluster.node.as_ref().is_some_and(|node| node.addresses.contains(&text));
        of_node || cluster.local.contains(&text)
    };
    let mut ways = Vec::new();
    for family in [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6] {
        // FE-2
        if !service.cluster_ips.iter().any(|text| family(&ip(text))) {
            continue;
        }
        let mut way = |text: &str, bit| {
            if family(&ip(text)) {
                ways.push((FrontendKey::new(ip(text).into(), number, protocol), Some(bit)));
            }
        };
        // PO-18
        service.cluster_ips.iter().filter(|text| !own(text)).for_each(|t| way(t, AddressBits::CLUSTER_IP));
        service.external_ips.iter().for_each(|text| way(text, AddressBits::VIP)); // FE-3
        // FE-5
        let vips = service.ingress.iter().filter(|(_, mode)| *mode != Some("Proxy"));
        vips.for_each(|(text, _)| way(text, AddressBits::VIP));
        // FE-4
        if port.node_port != 0 {
            let any = if family(&ip("0.0.0.0")) { Address::ANY_V4 } else { Address::ANY_V6 };
            ways.push((FrontendKey::node_port(&any, Port::new(port.node_port), protocol), None));
        }
    }
    ways
}

/// ST-1: who may use the LoadBalancer IPs of a family, range by range.
fn sources(cluster: &Cluster, service: &AService, v4: bool) -> Option<Vec<String>> {
    let mut all: BTreeSet<(IpAddr, u32)> = BTreeSet::new();
    let mut typo = false;
    for range in &service.ranges {
        match range.split_once('/') {
            Some((address, length)) if ip(address).is_ipv4() == v4 => {
                all.insert((ip(address), length.parse().expect("a length")));
            }
            Some(_) => {}
            None => typo = true,
        }
    }
    if all.iter().any(|(_, length)| *length == 0) || (all.is_empty() && !typo) {
        return None;
    }
    // Where the node is allowed, so is a LoadBalancer IP that is bound on it.
    let of_node = cluster.node.as_ref().map(|node| node.addresses.clone()).unwrap_or_default();
    let mut own: Vec<IpAddr> = of_node.iter().map(|text| ip(text)).collect();
    if own.is_empty() {
        own = cluster.local_addresses();
        own.sort_by_key(|address| Address::from(*address));
    }
    let node = own.into_iter().find(|address| address.is_ipv4() == v4);
    let holds = |(network, length): &(IpAddr, u32), address: IpAddr| match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= *length,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= *length,
        _ => false,
    };
    if node.is_some_and(|node| all.iter().any(|range| holds(range, node))) {
        let vips =
            service.ingress.iter().filter(|(text, mode)| *mode != Some("Proxy") && ip(text).is_ipv4() == v4);
        all.extend(vips.map(|(text, _)| (ip(text), if v4 { 32 } else { 128 })));
    }
    let mut all: Vec<(Address, u32)> = all.into_iter().map(|(ip, length)| (ip.into(), length)).collect();
    all.sort_unstable();
    Some(all.into_iter().map(|(address, length)| format!("{address}/{length}")).collect())
}

fn answer(cluster: &Cluster, service: &str, port: &APort, v4: bool, policy: &str) -> Answer {
    let all = endpoints(cluster, service, port, v4);
    let pick = |wanted: &dyn Fn(&AnEndpoint) -> bool| -> Vec<((IpAddr, u16), &AnEndpoint)> {
        all.iter().filter(|(_, (_, e))| wanted(e)).map(|(at, (_, e))| (*at, *e)).collect()
    };
    // EP-4
    let ready = |e: &AnEndpoint| e.ready != Some(false);
    let last_resort = |e: &AnEndpoint| e.serving != Some(false) && e.terminating == Some(true);
    let local = |e: &AnEndpoint| e.node == Some("n1"); // EP-5
    let mut set = if policy == "Local" {
        pick(&|e| local(e) && ready(e)) // EP-9
    } else {
        let ready = pick(&ready);
        // EP-11
        let zone = cluster.node.as_ref().and_then(|node| node.zone);
        let for_node = |e: &AnEndpoint| e.nodes.contains(&"n1");
        let for_zone = |e: &AnEndpoint| zone.is_some_and(|zone| e.zones.contains(&zone));
        let every_node = ready.iter().all(|(_, e)| !e.nodes.is_empty());
        let every_zone = ready.iter().all(|(_, e)| !e.zones.is_empty());
        if every_node && ready.iter().any(|(_, e)| for_node(e)) {
            ready.into_iter().filter(|(_, e)| for_node(e)).collect()
        } else if every_zone && ready.iter().any(|(_, e)| for_zone(e)) {
            ready.into_iter().filter(|(_, e)| for_zone(e)).collect()
        } else {
            ready
        }
    };
    // EP-8, EP-9
    if set.is_empty() {
        set = pick(&|e| last_resort(e) && (policy != "Local" || local(e)));
    }
    if !set.is_empty() {
        return Answer::Endpoints(set.into_iter().map(|(at, _)| at).collect());
    }
    // EP-10, PO-1, PO-2, PO-19
    let any = !pick(&|e| ready(e) || last_resort(e)).is_empty();
    Answer::Refuse(if any { Reason::NoLocalEndpoints } else { Reason::NoEndpoints })
}

/// EP-1, EP-3, EP-6, FE-1: the endpoints of a Service port, one for each address and port.
fn endpoints<'a>(
    cluster: &'a Cluster,
    service: &str,
    port: &APort,
    v4: bool,
) -> BTreeMap<(IpAddr, u16), (&'a ASlice, &'a AnEndpoint)> {
    let mut found = BTreeMap::new();
    for slice in cluster.slices.values() {
        if slice.service != service || slice.address_type != if v4 { "IPv4" } else { "IPv6" } {
            continue;
        }
        for (name, protocol, number) in &slice.ports {
            if (*name, *protocol) != (port.name, port.protocol) {
                continue;
            }
            for endpoint in &slice.endpoints {
                let at = (slice.address_of(endpoint), *number);
                if !found.contains_key(&at) || endpoint.terminating != Some(true) {
                    found.insert(at, (slice, endpoint));
                }
            }
        }
    }
    found
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
