//! Reads back the maps that a restarted agent finds.
//!
//! The maps are the only state that outlives an agent, so it reads everything from there: NAMES says which Service
//! port an index is, FRONTENDS which addresses lead to it, ENDPOINT_STATE and ENDPOINTS which slots and ids it holds,
//! its record and SOURCE_RANGES who may use it. An agent that was killed in the middle of an update left a Service
//! either before or after its one store; the slots and ids of the other side are free.
//!
//! What is only needed meanwhile is in few large allocations: small ones would leave holes between those that stay.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use proxy_common::{Address, AddressBits, EndpointState, Frontend, FrontendKey, FrontendKind, Service};

use super::{
    installed::{Installed, InstalledPorts},
    names,
    pinned::Tables,
    ranges::{self, Restriction},
    retired::FormerSet,
};
use crate::dataplane::Error;
use crate::plan::ServicePortId;

/// The state that the tables are in.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    pub(crate) installed: InstalledPorts,
    /// Entries of FRONTENDS that lead to no known Service.
    pub(crate) orphans: Vec<FrontendKey>,
    pub(crate) addresses: HashMap<Address, AddressBits>,
    pub(crate) indexes: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    /// The sets in SOURCE_RANGES that are in use, by service index.
    pub(crate) restrictions: HashMap<u32, Restriction>,
    /// The others.
    pub(crate) former_sets: Vec<FormerSet>,
    /// Slots beside a Service port's block that its record leads to until it is published anew.
    pub(crate) held: Vec<(ServicePortId, Range<u32>)>,
}

pub(crate) fn adopt(tables: &Tables) -> Result<Adopted, Error> {
    let mut adopted = Adopted::default();
    let mut frontends = Vec::new();
    let found: HashMap<FrontendKey, Frontend> =
        tables.frontends.iter().collect::<Result<_, _>>().map_err(Error::map("FRONTENDS"))?;
    tables.lines.adopt(&found, &tables.services);
    for (key, value) in found {
        match FrontendKind::from_number(value.kind) {
            Some(kind) => frontends.push((value.service, (key, kind))),
            None => adopted.orphans.push(key),
        }
    }
    frontends.sort_unstable();
    for entry in &tables.addresses {
        let (address, value) = entry.map_err(Error::map("ADDRESSES"))?;
        adopted.addresses.insert(address, value.kind);
    }
    let mut sets = ranges::sets(tables)?;
    let live = live_slots(tables);
    for entry in &tables.names {
        let (index, name) = entry.map_err(Error::map("NAMES"))?;
        let (Some(id), Some(record)) = (names::from_table(&name), tables.services.load(index)) else {
            continue;
        };
        let is_own = |slot| tables.endpoints.load(slot).is_some_and(|endpoint| endpoint.service == index);
        let (block, beside) = block(&record, of(&live, index).collect(), is_own);
        adopted.held.extend(beside.into_iter().map(|run| (id.clone(), run)));
        let frontends: Box<[(FrontendKey, FrontendKind)]> = of(&frontends, index).collect();
        if record.source_set != 0 {
            let mut ranges = sets.remove(&(index, record.source_set)).unwrap_or_default();
            ranges.sort_unstable();
            let vip = frontends.iter().find(|(_, kind)| *kind == FrontendKind::LoadBalancer);
            let vip = vip.map(|(key, _)| key.address);
            let found = Restriction { set: record.source_set, ranges: ranges.into(), vip };
            adopted.restrictions.insert(index, found);
        }
        adopted.indexes.push(index);
        adopted
            .ids
            .extend(block.clone().filter_map(|slot| tables.endpoints.load(slot)).map(|endpoint| endpoint.id));
        let found = Installed { index, block, frontends };
        let twin = adopted.installed.get(&id);
        adopted.installed.set(&id, &found);
        if let Some(twin) = twin {
            adopted.orphans.extend(twin.frontends.iter().map(|(key, _)| *key));
            if let Some(Restriction { set, ranges, .. }) = adopted.restrictions.remove(&twin.index) {
                sets.insert((twin.index, set), ranges.into());
            }
        }
    }
    let known: HashSet<u32> = adopted.indexes.iter().copied().collect();
    let unknown = frontends.iter().filter(|(index, _)| !known.contains(index));
    adopted.orphans.extend(unknown.map(|(_, (key, _))| *key));
    adopted.former_sets = ranges::former(sets);
    let kept: HashSet<u32> = adopted.ids.iter().copied().collect();
    for id in 1..tables.states.len() {
        if let Some(state) = tables.states.load(id)
            && state.bits != 0
            && !kept.contains(&id)
        {
            tables.states.store(id, &EndpointState { bits: 0, ..state });
        }
    }
    Ok(adopted)
}

/// Slots that a live id leads to and that agree with it, with the index of their service, sorted.
fn live_slots(tables: &Tables) -> Vec<(u32, u32)> {
    let mut slots = Vec::new();
    for id in 1..tables.states.len() {
        if let Some(state) = tables.states.load(id)
            && state.bits != 0
            && let Some(endpoint) = tables.endpoints.load(state.slot)
            && endpoint.id == id
        {
            slots.push((endpoint.service, state.slot));
        }
    }
    slots.sort_unstable();
    slots
}

/// What of a sorted list is a service's.
fn of<T: Copy>(sorted: &[(u32, T)], index: u32) -> impl Iterator<Item = T> {
    let rest = sorted.get(sorted.partition_point(|(of, _)| *of < index)..).unwrap_or_default();
    rest.iter().take_while(move |(of, _)| *of == index).map(|(_, found)| *found)
}

/// The slots that a Service holds: those of its live ids where they are one run around its spans, else (an
/// update was cut off) the spans alone. Cut off between the stores of its spans, it has a second run, which is told apart
/// from the first by slots in between that are not its own.
fn block(
    record: &Service,
    mut live: Vec<u32>,
    is_own: impl Fn(u32) -> bool,
) -> (Range<u32>, Vec<Range<u32>>) {
    let mut runs = runs(record, is_own);
    live.sort_unstable();
    // The run that ids lead to was written last.
    let newest = runs.iter().position(|run| live.iter().any(|slot| run.contains(slot)));
    let run = if runs.is_empty() { 0..0 } else { runs.swap_remove(newest.unwrap_or_default()) };
    let (Some(&first), Some(&last)) = (live.first(), live.last()) else {
        return (run, runs);
    };
    let whole = usize::try_from(last - first).is_ok_and(|steps| steps + 1 == live.len());
    let around = run.is_empty() || (first <= run.start && run.end <= last + 1);
    if whole && around && runs.is_empty() { (first..last + 1, runs) } else { (run, runs) }
}

/// The spans, together where nothing of another Service lies in between.
fn runs(record: &Service, is_own: impl Fn(u32) -> bool) -> Vec<Range<u32>> {
    let spans = [record.cluster, record.inside, record.outside];
    let used = spans.iter().filter(|span| span.count > 0);
    let mut spans: Vec<_> = used.map(|span| span.base..span.base.saturating_add(span.count)).collect();
    spans.sort_unstable_by_key(|span| span.start);
    let mut runs: Vec<Range<u32>> = Vec::new();
    for span in spans {
        match runs.last_mut() {
            Some(run) if (run.end..span.start).all(&is_own) => run.end = run.end.max(span.end),
            _ => runs.push(span),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proxy_common::{Reason, Span};

    use super::*;

    fn record(cluster: Span, inside: Span) -> Service {
        Service {
            cluster,
            inside,
            outside: Span::refuse(Reason::NoEndpoints),
            affinity_seconds: 0,
            generation: 1,
            source_set: 0,
        }
    }

    #[test]
    fn live_ids_around_the_spans_are_the_block() {
        let spans = record(Span { base: 10, count: 2 }, Span { base: 11, count: 2 });
        assert_eq!(
            block(&spans, vec![13, 10, 12, 11], |_| true),
            (10..14, vec![]),
            "13 is serving, but in no set"
        );
    }

    #[test]
    fn an_update_that_was_cut_off_leaves_the_spans() {
        let spans = record(Span { base: 10, count: 2 }, Span { base: 10, count: 2 });
        assert_eq!(
            block(&spans, vec![20, 21, 22], |_| true),
            (10..12, vec![]),
            "the new slots were never published"
        );
        assert_eq!(block(&spans, vec![10, 21], |_| true), (10..12, vec![]));
    }

    #[test]
    fn a_service_without_endpoints_holds_nothing() {
        let refusing = Span::refuse(Reason::NoEndpoints);
        assert_eq!(block(&record(refusing, refusing), Vec::new(), |_| true), (0..0, vec![]));
    }

    /// The first span is the new one, the second still the old one, and between them are slots of somebody else.
    #[test]
    fn an_update_that_was_cut_off_between_its_stores_takes_nothing_of_others() {
        let own = |slot| (10..12).contains(&slot) || (30..33).contains(&slot);
        let spans = record(Span { base: 30, count: 3 }, Span { base: 10, count: 2 });
        let (newest, beside) = block(&spans, vec![30, 31, 32], own);
        assert_eq!((newest, beside.first()), (30..33, Some(&(10..12))));
        assert_eq!(block(&spans, vec![10, 30, 31, 32], own).1.len(), 1);
        // Slots of its own in between: all one.
        assert_eq!(block(&spans, vec![30, 31, 32], |_| true), (10..33, vec![]));
    }
}
