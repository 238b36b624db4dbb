//! One look at all confirmed flows, which makes ordinary ones of those that are idle: others may take their slots.
//!
//! - Pairs that lead to endpoints go before pairs that masquerade: see `verdict`.
//! - Of a pair the element of the client's packets goes first: no packet gets to an endpoint whose answer would leave the
//!   node with the endpoint's address.
//! - Each pair is judged again right before it goes, by what it says then.
//! - A flow of a Service or endpoint that is gone is a flow like others (ST-4).

use proxy_common::{Flow, FlowKey, Life};

use super::{
    FlowTable, Timeouts,
    verdict::{Pair, Verdict, at_least, verdict},
};

/// What a sweep found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Swept {
    /// How many elements there were.
    pub(super) elements: usize,
    /// How many of them went.
    pub(super) removed: usize,
    /// In how many seconds the first of the others can go.
    pub(super) earliest: Option<u64>,
}

/// Takes away what is idle at `now`, in seconds since boot.
pub(super) fn sweep(table: &FlowTable, timeouts: &Timeouts, now: u32) -> Swept {
    let mut swept = Swept::default();
    let (mut destinations, mut sources) = (Vec::new(), Vec::new());
    table.visit(|key, flow| {
        if !flow.life.has(Life::CONFIRMED) {
            return;
        }
        swept.elements += 1;
        // Most elements are in use, and nothing more is asked about them.
        let found = match at_least(timeouts, now, key, flow.life) {
            Verdict::Remove => look(table, timeouts, now, key, flow),
            kept @ Verdict::Keep(_) => Some(kept),
        };
        match found {
            Some(Verdict::Keep(seconds)) => {
                swept.earliest = Some(swept.earliest.map_or(seconds, |first| first.min(seconds)));
            }
            Some(Verdict::Remove) => match Pair::of(key, flow.life) {
                Pair::Destination => destinations.push(*key),
                Pair::Source => sources.push(*key),
            },
            None => {}
        }
    });
    for key in destinations.iter().chain(&sources) {
        swept.removed += remove(table, timeouts, now, key);
    }
    swept
}

/// The verdict on an element's pair; nothing if the pair's other element stands for both.
fn look(table: &FlowTable, timeouts: &Timeouts, now: u32, key: &FlowKey, flow: &Flow) -> Option<Verdict> {
    let peer = peer(table, key, flow);
    if !flow.is_forward() && peer.is_some() {
        return None;
    }
    Some(verdict(timeouts, now, key, flow.life, peer.map(|(_, life)| life)))
}

/// The other element of the pair.
fn peer(table: &FlowTable, key: &FlowKey, flow: &Flow) -> Option<(FlowKey, Life)> {
    if flow.is_forward() && flow.is_pending() {
        return None;
    }
    let peer_key = flow.peer_key(key);
    let peer = table.get(&peer_key).filter(|peer| peer.life.has(Life::CONFIRMED))?;
    let is_peer = flow.is_peer(key, &peer) && flow.is_forward() != peer.is_forward();
    is_peer.then_some((peer_key, peer.life))
}

/// Lets others take the slots of a pair, if it is still idle. Says how many elements that were.
pub(super) fn remove(table: &FlowTable, timeouts: &Timeouts, now: u32, key: &FlowKey) -> usize {
    let Some((flow, place)) = table.find(key) else { return 0 };
    let peer = peer(table, key, &flow);
    let life = peer.map(|(_, life)| life);
    if verdict(timeouts, now, key, flow.life, life) != Verdict::Remove {
        return 0;
    }
    // A packet that comes between the two confirms the flow anew: its other half has been seen.
    let peer = peer.and_then(|(key, life)| Some((table.find(&key)?.1, life)));
    [Some((place, flow.life)), peer]
        .into_iter()
        .flatten()
        .filter(|(place, life)| table.release(*place, *life))
        .count()
}
