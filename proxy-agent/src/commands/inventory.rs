//! The installed Services, read back from the pinned maps for `status` and `explain`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::MapError;
use proxy_common::{
    Address, AddressBits, EndpointState, FrontendKey, FrontendKind, Protocol, Reason, Service, ServiceName,
    SourceRange, Span,
    select::{Anybody, Resolution, resolve},
    service::EndpointSet,
};
use serde::Serialize;

use crate::{
    dataplane::Tables,
    model::ObjectName,
    plan::{Family, ServicePortId},
};

/// A Service port as the tables have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Installed {
    pub(super) service: String,
    pub(super) index: u32,
    pub(super) frontends: Vec<Frontend>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Why no program serves it, if none does (FE-8).
    pub(super) not_served: Option<&'static str>,
    /// The reason for refusing clients of the ClusterIP, if they are refused.
    pub(super) refuses: Option<&'static str>,
    pub(super) affinity_seconds: u32,
    /// The clients that may use the LoadBalancer IPs; `None` if all may.
    pub(super) source_ranges: Option<Vec<String>>,
    pub(super) connections: u64,
    /// Connections that got their client's previous endpoint.
    pub(super) affinity_hits: u64,
    /// Connections and datagrams that were refused, by reason.
    pub(super) refusals: BTreeMap<&'static str, u64>,
}

/// An address that leads to a Service port.
#[derive(Debug, Serialize)]
pub(super) struct Frontend {
    pub(super) address: String,
    pub(super) kind: &'static str,
}

/// An endpoint, and the clients that may get it.
#[derive(Debug, Serialize)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) id: u32,
    pub(super) serving: bool,
    /// `cluster`, `inside`, `outside`: the sets that it is in.
    pub(super) usable: Vec<&'static str>,
}

/// All installed Service ports, sorted by name.
pub(super) fn read(tables: &Tables) -> Result<Vec<Installed>, MapError> {
    let mut frontends: HashMap<u32, Vec<(FrontendKey, u8)>> = HashMap::new();
    for entry in &tables.frontends {
        let (key, value) = entry?;
        frontends.entry(value.service).or_default().push((key, value.kind));
    }
    let mut endpoints = endpoints(tables);
    let mut ranges: HashMap<(u32, u16), BTreeSet<SourceRange>> = HashMap::new();
    for key in tables.source_ranges.keys() {
        let (key, owner) = key.map(|key| (key, key.data()))?;
        let set = ranges.entry((owner.service, owner.set)).or_default();
        set.extend(SourceRange::from_key(key.prefix_len(), &owner));
    }
    let mut all = Vec::new();
    for entry in &tables.names {
        let (index, name) = entry?;
        let Some(record) = tables.services.load(index) else { continue };
        let mut keys = frontends.remove(&index).unwrap_or_default();
        keys.sort_unstable();
        let counted = tables.counted(index);
        all.push(Installed {
            service: display(&name),
            index,
            frontends: keys
                .into_iter()
                .map(|(key, kind)| Frontend {
                    address: key.to_string(),
                    kind: FrontendKind::from_number(kind).map_or("?", FrontendKind::name),
                })
                .collect(),
            endpoints: endpoints.remove(&index).unwrap_or_default(),
            not_served: (name.protocol == Protocol::Sctp as u8).then_some("SCTP is not served"),
            refuses: refusal(&record),
            affinity_seconds: record.affinity_seconds,
            source_ranges: (record.source_set != 0).then(|| {
                let set = ranges.remove(&(index, record.source_set)).unwrap_or_default();
                set.iter().map(ToString::to_string).collect()
            }),
            connections: counted.connections(),
            affinity_hits: counted.remembered,
            refusals: refused(tables, index),
        });
    }
    all.sort_by(|a, b| a.service.cmp(&b.service));
    Ok(all)
}

/// The clients that may use the LoadBalancer IPs of the Service port at `index`.
pub(super) fn source_ranges_of(tables: &Tables, index: u32) -> Vec<String> {
    let Some(set) = tables.services.load(index).map(|record| record.source_set) else { return Vec::new() };
    let keys = tables.source_ranges.keys().filter_map(Result::ok);
    let own = keys
        .map(|key| (key.prefix_len(), key.data()))
        .filter(|(_, owner)| owner.service == index && owner.set == set);
    let ranges: BTreeSet<SourceRange> =
        own.filter_map(|(length, owner)| SourceRange::from_key(length, &owner)).collect();
    ranges.iter().map(ToString::to_string).collect()
}

/// The name of the Service port at `index`.
pub(super) fn name_of(tables: &Tables, index: u32) -> String {
    tables
        .names
        .get(&index, 0)
        .map_or_else(|_| format!("service index {index}, without a name"), |name| display(&name))
}

/// The Service that leads from an address to endpoints now, whoever asks.
pub(super) fn service_at(tables: &Tables, frontend: &FrontendKey) -> Option<u32> {
    match resolve(tables, frontend, &Anybody) {
        Resolution::Service(found) => Some(found.service),
        Resolution::UnknownPort | Resolution::NotService => None,
    }
}

/// The Service ports at an address, such as `10.96.0.10:80/TCP (shop/web:http/TCP)`.
pub(super) fn ports_at(tables: &Tables, address: &Address) -> BTreeSet<String> {
    let all = tables.frontends.iter().filter_map(Result::ok);
    let there = all.filter(|(key, _)| key.any_address == 0 && key.address.is(address));
    there.map(|(key, frontend)| format!("{key} ({})", name_of(tables, frontend.service))).collect()
}

/// Whether an address is one of this node's.
pub(super) fn is_nodes(tables: &Tables, address: &Address) -> bool {
    proxy_common::Tables::address(tables, address).has(AddressBits::NODE)
}

fn display(name: &ServiceName) -> String {
    fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
    }
    let Some(protocol) = Protocol::from_number(name.protocol) else {
        return "?".to_owned();
    };
    ServicePortId {
        service: ObjectName::new(&text(&name.namespace), &text(&name.name)),
        port: text(&name.port).into(),
        protocol,
        family: if name.family == 6 { Family::V6 } else { Family::V4 },
    }
    .to_string()
}

/// How often the Service port at `index` has refused clients, by reason.
pub(super) fn refused(tables: &Tables, index: u32) -> BTreeMap<&'static str, u64> {
    let counted = tables.refused(index);
    let counts = Reason::ALL.iter().map(|reason| (reason.name(), counted.of(*reason)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn refusal(record: &Service) -> Option<&'static str> {
    let Span { base, count } = record.cluster;
    (count == 0).then(|| Reason::from_number(base).name())
}

/// The endpoints of every Service port, by its index; some may be in no set.
pub(super) fn endpoints(tables: &Tables) -> HashMap<u32, Vec<Endpoint>> {
    let sets = [
        (EndpointSet::Cluster, "cluster"),
        (EndpointSet::Inside, "inside"),
        (EndpointSet::Outside, "outside"),
    ];
    let mut by_service: HashMap<u32, Vec<(u32, Endpoint)>> = HashMap::new();
    for id in 1..tables.states.len() {
        let Some(EndpointState { slot, bits, .. }) = tables.states.load(id).filter(|state| state.bits != 0)
        else {
            continue;
        };
        let Some(endpoint) = tables.endpoints.load(slot).filter(|endpoint| endpoint.id == id) else {
            continue;
        };
        let ip = std::net::IpAddr::from(endpoint.address);
        let found = Endpoint {
            address: std::net::SocketAddr::new(ip, endpoint.port.get()).to_string(),
            id,
            serving: bits & EndpointState::SERVING != 0,
            usable: sets
                .iter()
                .filter(|(set, _)| bits & EndpointState::usable(*set) != 0)
                .map(|(_, name)| *name)
                .collect(),
        };
        by_service.entry(endpoint.service).or_default().push((slot, found));
    }
    by_service
        .into_iter()
        .map(|(service, mut found)| {
            found.sort_by_key(|(slot, _)| *slot);
            (service, found.into_iter().map(|(_, endpoint)| endpoint).collect())
        })
        .collect()
}
