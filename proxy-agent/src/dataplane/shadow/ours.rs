//! What Sidestep serves, read back from its tables.

use std::collections::{BTreeSet, HashMap};

use proxy_common::{
    Address, AddressBits, FrontendKey, FrontendKind, Service, SourceRange, Span, Tables as _,
    service::EndpointSet, source_ranges::SourceRangeKey,
};

use crate::dataplane::{
    Error,
    node::kube_proxy::{Choice, Ranges, Served, Serves},
    tables::{names, pinned::Tables},
};

/// All that the tables serve. Read while the agent may change them: what is half of one change and half of another is
/// a difference that the next look does not have.
pub(in crate::dataplane) fn serves(tables: &Tables) -> Result<Serves, Error> {
    let ranges = ranges(tables)?;
    let mut known: HashMap<u32, Option<String>> = HashMap::new();
    let mut serves = Serves::default();
    for entry in &tables.frontends {
        let (key, frontend) = entry.map_err(Error::map("FRONTENDS"))?;
        let Some(record) = tables.services.load(frontend.service) else { continue };
        let service = known.entry(frontend.service).or_insert_with(|| {
            let id = names::from_table(&tables.names.get(&frontend.service, 0).ok()?)?;
            Some(format!("{}{}{}", id.service, if id.port.is_empty() { "" } else { ":" }, id.port))
        });
        serves.frontends.insert(
            key,
            Served {
                service: service.clone(),
                inside: choice(tables, &record, span(&record, frontend.kind, EndpointSet::Inside)),
                outside: choice(tables, &record, span(&record, frontend.kind, EndpointSet::Outside)),
                clients: clients(&key, frontend.kind, (frontend.service, record.source_set), &ranges),
            },
        );
    }
    for entry in &tables.addresses {
        let (address, entry) = entry.map_err(Error::map("ADDRESSES"))?;
        if entry.kind.has(AddressBits::NODE) {
            serves.node_addresses.insert(address);
        }
    }
    Ok(serves)
}

/// The endpoints for clients of a frontend of this kind, of which those of a ClusterIP are all alike.
const fn span(record: &Service, kind: u8, set: EndpointSet) -> Span {
    match set {
        _ if kind == FrontendKind::ClusterIp as u8 => record.cluster,
        EndpointSet::Cluster => record.cluster,
        EndpointSet::Inside => record.inside,
        EndpointSet::Outside => record.outside,
    }
}

fn choice(tables: &Tables, record: &Service, Span { base, count }: Span) -> Choice {
    // No more than there are, whatever is read.
    let slots = base..base.saturating_add(count).min(tables.endpoints.len());
    let endpoints: BTreeSet<_> = if count == 0 {
        BTreeSet::new()
    } else {
        slots
            .filter_map(|slot| tables.endpoint(slot))
            .map(|endpoint| std::net::SocketAddr::new(endpoint.address.into(), endpoint.port.get()))
            .collect()
    };
    Choice { endpoints, seconds: record.affinity_seconds.into() }
}

/// The ranges of each Service and set.
type Sets = HashMap<(u32, u16), Vec<(Address, Address)>>;

fn ranges(tables: &Tables) -> Result<Sets, Error> {
    let mut sets = Sets::new();
    for key in tables.source_ranges.keys() {
        let key = key.map_err(Error::map("SOURCE_RANGES"))?;
        let (length, owner) = (key.prefix_len(), key.data());
        if SourceRange::from_key(length, &owner).is_some() {
            let range = Ranges::prefix(owner.address, length - SourceRangeKey::OWNER_BITS);
            sets.entry((owner.service, owner.set)).or_default().push(range);
        }
    }
    Ok(sets)
}

/// Who may use the frontend: everyone, but for a LoadBalancer IP with source ranges.
fn clients(key: &FrontendKey, kind: u8, set: (u32, u16), ranges: &Sets) -> Option<Ranges> {
    if kind != FrontendKind::LoadBalancer as u8 || set.1 == 0 {
        return None;
    }
    let ranges = Ranges::new(ranges.get(&set).into_iter().flatten().copied());
    (!ranges.has_all(key.address.is_v4())).then_some(ranges)
}
