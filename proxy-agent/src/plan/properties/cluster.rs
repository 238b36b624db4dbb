//! Random clusters, as a person would describe them.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use crate::model::{EndpointSlice, Event, Kind, Node, Object, ObjectKey, ObjectName, Service};

/// Everything that exists.
#[derive(Clone, Default, Debug)]
pub(crate) struct Cluster {
    pub(crate) services: BTreeMap<String, AService>,
    pub(crate) slices: BTreeMap<String, ASlice>,
    pub(crate) node: Option<ANode>,
    pub(crate) local: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct AService {
    pub(crate) created: u8,
    pub(crate) kind: &'static str,
    pub(crate) cluster_ips: Vec<&'static str>,
    pub(crate) external_ips: Vec<&'static str>,
    pub(crate) ingress: Vec<(&'static str, Option<&'static str>)>,
    pub(crate) ports: Vec<APort>,
    pub(crate) internal: &'static str,
    pub(crate) external: &'static str,
    pub(crate) affinity: AnAffinity,
    pub(crate) ranges: Vec<&'static str>,
}

/// ClientIP affinity, or none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum AnAffinity {
    None,
    Default,
    Seconds(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct APort {
    pub(crate) name: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    pub(crate) node_port: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct ASlice {
    pub(crate) service: &'static str,
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<(&'static str, &'static str, u16)>,
    pub(crate) endpoints: Vec<AnEndpoint>,
}

#[derive(Clone, Debug)]
pub(crate) struct AnEndpoint {
    pub(crate) host: u8,
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
    pub(crate) node: Option<&'static str>,
    pub(crate) zones: Vec<&'static str>,
    pub(crate) nodes: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct ANode {
    pub(crate) zone: Option<&'static str>,
    pub(crate) addresses: Vec<&'static str>,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Service(&'static str, Option<AService>),
    Slice(&'static str, Option<ASlice>),
    Node(Option<ANode>),
    LocalAddresses(Vec<&'static str>),
}

impl ASlice {
    pub(crate) fn address_of(&self, endpoint: &AnEndpoint) -> IpAddr {
        let text = match self.address_type {
            "IPv4" => format!("10.1.0.{}", endpoint.host),
            _ => format!("fd00:1::{}", endpoint.host),
        };
        text.parse().expect("an address")
    }
}

impl Cluster {
    pub(crate) fn local_addresses(&self) -> Vec<IpAddr> {
        self.local.iter().map(|text| text.parse().expect("an address")).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let services = self.services.iter().map(|(name, service)| service_event(name, service));
        let slices = self.slices.iter().map(|(name, slice)| slice_event(name, slice));
        services.chain(slices).chain(self.node.iter().map(node_event)).collect()
    }

    pub(crate) fn apply(&mut self, change: Change) -> Option<Event> {
        match change {
            Change::Service(name, Some(service)) => {
                let event = service_event(name, &service);
                self.services.insert(name.into(), service);
                Some(event)
            }
            Change::Service(name, None) => {
                self.services.remove(name)?;
                Some(delete(Kind::Service, name))
            }
            Change::Slice(name, Some(slice)) => {
                let event = slice_event(name, &slice);
                self.slices.insert(name.into(), slice);
                Some(event)
            }
            Change::Slice(name, None) => {
                self.slices.remove(name)?;
                Some(delete(Kind::EndpointSlice, name))
            }
            Change::Node(node) => {
                self.node = node;
                Some(self.node.as_ref().map_or_else(|| delete(Kind::Node, "n1"), node_event))
            }
            Change::LocalAddresses(local) => {
                self.local = local;
                None
            }
        }
    }
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, ObjectName::new(if kind == Kind::Node { "" } else { NAMESPACE }, name))
}

fn delete(kind: Kind, name: &str) -> Event {
    Event::Delete(key(kind, name))
}

fn service_event(name: &str, service: &AService) -> Event {
    let AService {
        created,
        kind,
        cluster_ips,
        external_ips,
        ingress,
        ports,
        internal,
        external,
        affinity,
        ranges,
    } = service;
    let ports: Vec<Value> = ports
        .iter()
        .map(|p| json!({"name": p.name, "protocol": p.protocol, "port": p.port, "nodePort": p.node_port}))
        .collect();
    let ingress: Vec<Value> = ingress.iter().map(|(ip, mode)| json!({"ip": ip, "ipMode": mode})).collect();
    let object = json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": format!("2024-01-0{created}T00:00:00Z")},
        "spec": {
            "type": kind, "clusterIP": cluster_ips.first(), "clusterIPs": cluster_ips,
            "externalIPs": external_ips, "ports": ports,
            "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
            "sessionAffinity": (*affinity != AnAffinity::None).then_some("ClientIP"),
            "sessionAffinityConfig": match affinity {
                AnAffinity::Seconds(seconds) => json!({"clientIP": {"timeoutSeconds": seconds}}),
                _ => Value::Null,
            },
            "loadBalancerSourceRanges": ranges,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    match Service::read(serde_json::from_value(object).expect("a Service")) {
        Some(service) => Event::Upsert(Object::Service(service)),
        None => delete(Kind::Service, name),
    }
}

fn slice_event(name: &str, slice: &ASlice) -> Event {
    let ports: Vec<Value> = slice
        .ports
        .iter()
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
        .collect();
    let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|e| {
            json!({
                "addresses": [slice.address_of(e)],
                "conditions": {"ready": e.ready, "serving": e.serving, "terminating": e.terminating},
                "nodeName": e.node,
                "hints": {"forZones": named(&e.zones), "forNodes": named(&e.nodes)},
            })
        })
        .collect();
    let object = json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": slice.service}},
        "addressType": slice.address_type, "ports": ports, "endpoints": endpoints,
    });
    match EndpointSlice::read(serde_json::from_value(object).expect("an EndpointSlice")) {
        Some(slice) => Event::Upsert(Object::EndpointSlice(slice)),
        None => delete(Kind::EndpointSlice, name),
    }
}

fn node_event(node: &ANode) -> Event {
    let addresses: Vec<Value> =
        node.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    let labels = node.zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
    let object = json!({"metadata": {"name": "n1", "labels": labels}, "status": {"addresses": addresses}});
    Event::Upsert(Object::Node(Node::read(serde_json::from_value(object).expect("a Node"))))
}

fn one<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(of)
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    subsequence(of, 0..=of.len())
}

/// With the cluster's DNS, which goes first.
const SERVICES: &[&str] = &["s1", "s2", "kube-dns"];
const NAMESPACE: &str = "kube-system";
const SLICES: &[&str] = &["e1", "e2", "e3", "e4"];
const PORTS: &[(&str, &str)] = &[("", "TCP"), ("x", "TCP"), ("x", "UDP"), ("y", "SCTP")];

const CLUSTER_IPS: &[&[&str]] = &[
    &["10.0.0.1"],
    &["10.0.0.1"],
    &["10.0.0.2", "fd00::1"],
    &["fd00::1", "10.0.0.3"],
    &["fd00::2"],
    &["192.168.0.1"],
    &["None"],
];
const RANGES: &[&[&str]] = &[
    &[],
    &[],
    &["10.0.0.0/8"],
    &["fd00::/8"],
    &["10.0.0.0/8", "0.0.0.0/0"],
    &["192.168.0.0/24", "2001:db8::/32"],
    &["nonsense"],
    &["nonsense", "192.168.0.1/32"],
];
/// Zones and nodes.
const HINTS: &[(&[&str], &[&str])] =
    &[(&["a"], &["n1"]), (&["b"], &["n2"]), (&["a", "b"], &["n2"]), (&["a"], &[]), (&["b"], &[]), (&[], &[])];

fn service() -> impl Strategy<Value = AService> {
    let ingress = some(&[
        ("192.0.2.1", None),
        ("192.0.2.2", Some("VIP")),
        ("192.0.2.3", Some("Proxy")),
        ("2001:db8::1", None),
    ]);
    let ports = subsequence(PORTS, 1..=PORTS.len()).prop_flat_map(|names| {
        names
            .into_iter()
            .map(|(name, protocol)| {
                (one(&[80, 81]), one(&[0, 0, 30_000, 30_001])).prop_map(move |(port, node_port)| APort {
                    name,
                    protocol,
                    port,
                    node_port,
                })
            })
            .collect::<Vec<_>>()
    });
    let policy = || one(&["Cluster", "Cluster", "Local"]);
    (
        (1_u8..4, one(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
        one(CLUSTER_IPS),
        some(&["192.0.2.1", "10.0.0.1", "192.168.0.1", "2001:db8::1"]),
        ingress,
        ports,
        (policy(), policy()),
        one(&[AnAffinity::None, AnAffinity::None, AnAffinity::Default, AnAffinity::Seconds(7)]),
        one(RANGES),
    )
        .prop_map(
            |((created, kind), ips, external_ips, ingress, ports, (internal, external), affinity, ranges)| {
                AService {
                    created,
                    kind,
                    cluster_ips: ips.to_vec(),
                    external_ips,
                    ingress,
                    ports,
                    internal,
                    external,
                    affinity,
                    ranges: ranges.to_vec(),
                }
            },
        )
}

fn endpoint() -> impl Strategy<Value = AnEndpoint> {
    let condition = || one(&[None, Some(true), Some(false)]);
    let hints = one(HINTS);
    (1_u8..5, condition(), condition(), condition(), one(&[None, Some("n1"), Some("n2")]), hints).prop_map(
        |(host, ready, serving, terminating, node, (zones, nodes))| AnEndpoint {
            host,
            ready,
            serving,
            terminating,
            node,
            zones: zones.to_vec(),
            nodes: nodes.to_vec(),
        },
    )
}

fn slice() -> impl Strategy<Value = ASlice> {
    let ports = subsequence(PORTS, 0..=PORTS.len()).prop_flat_map(|names| {
        let number = |(name, protocol)| one(&[8080, 8081]).prop_map(move |port| (name, protocol, port));
        names.into_iter().map(number).collect::<Vec<_>>()
    });
    (one(SERVICES), one(&["IPv4", "IPv4", "IPv6", "FQDN"]), ports, prop::collection::vec(endpoint(), 0..5))
        .prop_map(|(service, address_type, ports, endpoints)| ASlice {
            service,
            address_type,
            ports,
            endpoints,
        })
}

fn node() -> impl Strategy<Value = ANode> {
    (one(&[None, Some("a"), Some("b")]), some(&["192.168.0.1", "10.0.0.3", "fd00::2"]))
        .prop_map(|(zone, addresses)| ANode { zone, addresses })
}

fn local_addresses() -> impl Strategy<Value = Vec<&'static str>> {
    some(&["127.0.0.1", "192.168.0.1", "10.0.0.2", "fe80::1"])
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (one(SERVICES), prop::option::weighted(0.8, service())).prop_map(|(n, s)| Change::Service(n, s)),
        4 => (one(SLICES), prop::option::weighted(0.8, slice())).prop_map(|(n, s)| Change::Slice(n, s)),
        1 => prop::option::weighted(0.8, node()).prop_map(Change::Node),
        1 => local_addresses().prop_map(Change::LocalAddresses),
    ]
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    prop::collection::vec(change(), 0..12).prop_map(|changes| {
        let mut cluster = Cluster::default();
        for change in changes {
            cluster.apply(change);
        }
        cluster
    })
}
