//! One look at all confirmed flows, which takes away those that are idle.
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
use crate::dataplane::Error;

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
pub(super) fn sweep(table: &mut FlowTable, timeouts: &Timeouts, now: u32) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    let (mut destinations, mut sources) = (Vec::new(), Vec::new());
    table.visit(|key, flow| {
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
    })?;
    for key in destinations.iter().chain(&sources) {
        swept.removed += remove(table, timeouts, now, key);
    }
    Ok(swept)
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
    let peer = table.get(&peer_key)?;
    let is_peer = flow.is_peer(key, &peer) && flow.is_forward() != peer.is_forward();
    is_peer.then_some((peer_key, peer.life))
}

/// Removes the pair of an element, if it is still idle. Says how many elements that were.
pub(super) fn remove(table: &mut FlowTable, timeouts: &Timeouts, now: u32, key: &FlowKey) -> usize {
    let Some(flow) = table.get(key) else { return 0 };
    let peer = peer(table, key, &flow);
    let life = peer.map(|(_, life)| life);
    if verdict(timeouts, now, key, flow.life, life) != Verdict::Remove {
        return 0;
    }
    let peer_key = peer.map(|(key, _)| key);
    let removed = [Some(*key), peer_key].into_iter().flatten().filter(|key| table.remove(key)).count();
    if peer_key.is_some() && table.get(key).is_some() {
        // A packet has confirmed the flow anew, from what FLOWS_NEW had of it, between the two. Programs rely on the other
        // half being there; the next packet confirms it whole.
        table.remove(key);
    }
    removed
}
