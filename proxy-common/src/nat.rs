//! The life of a flow from outside: begun, confirmed, ended. The tables' types are in [`crate::flow`].
//!
//! What never happens: a packet of a confirmed flow goes to another endpoint than the ones before it; two live flows
//! have the same source towards one endpoint; a flow that its client never confirmed keeps another one out.
//!
//! - A flow **begins** in FLOWS_NEW, with both elements of its pair. There the kernel makes room by itself.
//! - It is **confirmed** when its client speaks again after an answer, which nobody can with a made-up address: then
//!   both elements are put into FLOWS too. (The first design confirmed it with the answer; but every SYN of a flood is
//!   answered.) The copies in FLOWS_NEW are not looked at while those in FLOWS exist.
//! - It **ends** with a reset, or FIN from both sides, and moves back: the last packets still find their way, and
//!   nobody has to come and clear away.

use crate::{
    address::{Address, Port},
    counters::Total,
    endpoint::Endpoint,
    flow::{Flow, FlowEndpoint, FlowKey, Life, PacketHook},
    packet::Segment,
    reason::Reason,
    select::scale,
};

/// Which table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Table {
    /// FLOWS.
    Confirmed,
    /// FLOWS_NEW.
    New,
}

/// The tables of flows.
pub trait Flows {
    /// Where an element is, to change its life.
    type Place: Copy;
    /// An element, whole: one that was reused while it was read is not there.
    fn find(&self, table: Table, key: &FlowKey) -> Option<(Flow, Self::Place)>;
    /// Whether there is an element.
    fn has(&self, table: Table, key: &FlowKey) -> bool;
    /// Replaces the life of an element, unless it has gone.
    fn set_life(&self, place: Self::Place, life: Life);
    /// Writes an element; with `only_new`, only if there is none. Whether it was written.
    fn insert(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> bool;
    /// Removes an element, if there is one.
    fn remove(&self, table: Table, key: &FlowKey);
    /// Whether an endpoint still serves; see [`crate::select::is_serving`].
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool;
    /// Counts what operators should know.
    fn count(&self, what: Total);
}

/// The time, and what counts as long ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Seconds since boot; never 0.
    pub seconds: u32,
    /// For how many seconds a UDP flow that is not confirmed is the same flow.
    pub udp_timeout: u32,
}

/// For how many seconds a TCP connection that is not confirmed is taken for one: SYNs are repeated for about two
/// minutes.
const TCP_TIMEOUT: u32 = 120;

impl Clock {
    #[inline(always)]
    const fn is_past(self, since: u32, timeout: u32) -> bool {
        self.seconds.wrapping_sub(since) > timeout && self.seconds > since
    }
}

impl Life {
    /// After a packet.
    #[inline(always)]
    const fn after(self, segment: Segment, clock: Clock) -> Self {
        let fin = if segment.is_fin() { Self::FIN } else { 0 };
        let rst = if segment.is_rst() { Self::RST } else { 0 };
        Self { seconds: clock.seconds, bits: self.bits | fin | rst }
    }
}

/// Finds the flow that a packet belongs to, if it has one: what to put in place of its destination (ingress) or source
/// (egress). It is left in `found`, which is worth nothing otherwise. A [pending](Flow::is_pending) one has yet to get a
/// source, from [`masquerade`].
#[inline(always)]
pub fn follow(flows: &impl Flows, key: &FlowKey, segment: Segment, clock: Clock, found: &mut Flow) -> bool {
    follow_confirmed(flows, key, segment, clock, found) || follow_new(flows, key, segment, clock, found)
}

/// [`follow`] in FLOWS.
#[inline(always)]
fn follow_confirmed(
    flows: &impl Flows,
    key: &FlowKey,
    segment: Segment,
    clock: Clock,
    found: &mut Flow,
) -> bool {
    let Some((flow, place)) = flows.find(Table::Confirmed, key) else { return false };
    if segment.begins()
        && flow.is_forward()
        && key.is_ingress()
        && !flows.is_serving(flow.endpoint, flow.generation)
    {
        forget(flows, key, &flow);
        return false;
    }
    let life = flow.life.after(segment, clock);
    *found = Flow { life, ..flow };
    if life != flow.life {
        flows.set_life(place, life);
        if life.bits != flow.life.bits {
            end(flows, key, found);
        }
    }
    true
}

/// A confirmed flow whose client begins anew, and whose endpoint is gone.
#[inline(never)]
fn forget(flows: &impl Flows, key: &FlowKey, flow: &Flow) {
    flows.remove(Table::Confirmed, key);
    flows.remove(Table::Confirmed, &flow.peer_key(key));
}

/// Moves a flow out of FLOWS if it has ended.
#[inline(never)]
fn end(flows: &impl Flows, key: &FlowKey, flow: &Flow) {
    let peer_key = flow.peer_key(key);
    let Some((peer, _)) = flows.find(Table::Confirmed, &peer_key) else { return };
    if !flow.life.ended(peer.life) {
        return;
    }
    flows.insert(Table::New, key, flow, false);
    flows.insert(Table::New, &peer_key, &peer, false);
    flows.remove(Table::Confirmed, key);
    flows.remove(Table::Confirmed, &peer_key);
}

/// [`follow`] in FLOWS_NEW.
#[inline(never)]
fn follow_new(flows: &impl Flows, key: &FlowKey, segment: Segment, clock: Clock, found: &mut Flow) -> bool {
    let place = match flows.find(Table::New, key) {
        Some((flow, place)) => {
            *found = flow;
            place
        }
        None => return false,
    };
    let flow = found;
    let life = flow.life.after(segment, clock);
    if !flow.is_forward() {
        flows.set_life(place, life);
        return true;
    }
    let serves = !key.is_ingress() || flows.is_serving(flow.endpoint, flow.generation);
    // A stream of datagrams is looked at closely once a second.
    if flow.is_pending() || segment.is_datagram() && flow.life.seconds == clock.seconds && serves {
        return true;
    }
    let peer_key = flow.peer_key(key);
    let mut peer = flow.peer(key, &peer_key, Life::default());
    match flows.find(Table::New, &peer_key) {
        Some((other, _)) if flow.is_peer(key, &other) => peer.life = other.life,
        Some(_) => return lost(key, flow),
        // The other element was pushed out. Its place may be another flow's by now.
        None => {
            if !flows.insert(Table::New, &peer_key, &peer, true) {
                return lost(key, flow);
            }
        }
    }
    let ended = flow.life.ended(peer.life);
    if segment.begins() {
        if key.is_ingress() {
            let latest =
                if peer.life.seconds > flow.life.seconds { peer.life.seconds } else { flow.life.seconds };
            let is_stale = segment.is_datagram() && clock.is_past(latest, clock.udp_timeout);
            if ended || is_stale || !serves {
                return false;
            }
        } else if ended {
            // The same client comes back, to the same endpoint: with the same source, in a new connection.
            peer.life = Life::default();
            flows.insert(Table::New, &peer_key, &peer, false);
            flows.set_life(place, Life { seconds: clock.seconds, bits: Life::FORWARD });
            return true;
        }
    }
    flow.life = life;
    flows.set_life(place, life);
    if segment.confirms() && peer.life.seconds != 0 && !ended {
        confirm(flows, key, flow, &peer_key, &peer);
    }
    true
}

/// A flow whose other element is another flow's: at ingress it begins anew, at egress it needs another source.
#[inline(always)]
fn lost(key: &FlowKey, found: &mut Flow) -> bool {
    found.port = Port::NONE;
    !key.is_ingress()
}

/// Puts a flow into FLOWS. Without room it stays where it is, which is counted.
#[inline(never)]
fn confirm(flows: &impl Flows, key: &FlowKey, flow: &Flow, peer_key: &FlowKey, peer: &Flow) {
    // The reply first: whoever finds the other one relies on it.
    if !flows.insert(Table::Confirmed, peer_key, peer, false) {
        flows.count(Total::UnprotectedFlow);
    } else if !flows.insert(Table::Confirmed, key, flow, false) {
        flows.remove(Table::Confirmed, peer_key);
        flows.count(Total::UnprotectedFlow);
    }
}

/// Begins a flow from a client to `endpoint`, and leaves it in `begun`. `false` if the client has a live flow, through another frontend, whose
/// packets would be the same ones at the endpoint.
///
/// A flow whose endpoint is not on this node is marked to be masqueraded when it leaves; so is that of a client to
/// itself, which would take its own packets for forged ones (PO-22).
#[inline(never)]
pub fn begin(flows: &impl Flows, key: &FlowKey, endpoint: &Endpoint, clock: Clock, begun: &mut Flow) -> bool {
    let Endpoint { address, port, id, service, generation, flags: _ } = *endpoint;
    let life = Life { seconds: clock.seconds, bits: Life::FORWARD };
    *begun = Flow::new(key, address, port, FlowEndpoint { id, generation, service }, life);
    if !take_replies(flows, key, begun, clock) {
        return false;
    }
    flows.insert(Table::New, key, begun, false);
    if !endpoint.is_local() || address.words() == key.source.words() {
        mark(flows, key, begun);
    }
    true
}

/// Enters the other element of a flow that begins; `false` if it is another live flow's.
#[inline(never)]
fn take_replies(flows: &impl Flows, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
    let peer_key = flow.peer_key(key);
    if let Some((other, _)) = flows.find(Table::Confirmed, &peer_key)
        && !flow.is_peer(key, &other)
    {
        return false;
    }
    let peer = flow.peer(key, &peer_key, Life::default());
    if flows.insert(Table::New, &peer_key, &peer, true) {
        return true;
    }
    if let Some((other, _)) = flows.find(Table::New, &peer_key)
        && !flow.is_peer(key, &other)
        && !is_abandoned(flows, &peer_key, &other, clock)
    {
        return false;
    }
    flows.insert(Table::New, &peer_key, &peer, false)
}

/// Marks a flow that begins to be masqueraded.
#[inline(never)]
fn mark(flows: &impl Flows, key: &FlowKey, flow: &Flow) {
    let source = (key.source, key.source_port);
    let marker_key = FlowKey::new(PacketHook::Egress, key.protocol, source, (flow.address, flow.port));
    let marker = Flow::new(&marker_key, Address::ANY_V6, Port::NONE, flow.endpoint(), flow.life);
    // One that is there is of an earlier flow of the same client, and has a source.
    flows.insert(Table::New, &marker_key, &marker, true);
}

/// Whether nobody needs an element of FLOWS_NEW for replies any more.
#[inline(never)]
fn is_abandoned(flows: &impl Flows, key: &FlowKey, reply: &Flow, clock: Clock) -> bool {
    let forward_key = reply.peer_key(key);
    match flows.find(Table::New, &forward_key) {
        Some((forward, _)) if reply.is_peer(key, &forward) => {
            let timeout = if key.protocol == 6 { TCP_TIMEOUT } else { clock.udp_timeout };
            let unused =
                clock.is_past(forward.life.seconds, timeout) && clock.is_past(reply.life.seconds, timeout);
            forward.life.ended(reply.life) || unused
        }
        _ => true,
    }
}

/// How many ports are looked at for one that is free, half of them in strides, and then one after the other.
const ATTEMPTS: u32 = 16;
/// How often that is done: a free port may be a socket's, or somebody else's in the next moment. At three quarters of the
/// ports taken, about one flow in ten thousand finds none.
const ROUNDS: u32 = 2;
/// How many ports are looked at after that whose flow may have been abandoned.
const ABANDONED: u32 = 2;

/// The source ports that flows are masqueraded with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePorts {
    /// The first one.
    pub first: u16,
    /// How many there are.
    pub count: u16,
}

/// Gives the flow of `key`, which leaves the node for its endpoint, a source: `address`, and a port that no live flow
/// to that endpoint has, and of which `is_taken` says that no socket of the node has it either.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined: a structure would only be taken apart again")]
#[expect(clippy::cast_possible_truncation, reason = "below the count of ports")]
pub fn masquerade(
    flows: &impl Flows,
    key: &FlowKey,
    flow: &mut Flow,
    address: &Address,
    ports: SourcePorts,
    random: u32,
    clock: Clock,
    is_taken: impl Fn(&Flow) -> bool,
) -> Result<(), Reason> {
    let life = Life { seconds: clock.seconds, bits: Life::FORWARD };
    let mut round = 0;
    while round < ROUNDS + ABANDONED {
        let draw = random.rotate_left(round * 5);
        let port = if round < ROUNDS {
            free_port(flows, key, address, ports, draw)
        } else {
            Port::new(ports.first.wrapping_add(scale(draw, u32::from(ports.count)) as u16))
        };
        *flow = Flow::new(key, *address, port, flow.endpoint(), life);
        let got = if round < ROUNDS { claim(flows, key, flow) } else { take_over(flows, key, flow, clock) };
        if got && !is_taken(flow) {
            flows.insert(Table::New, key, flow, false);
            return Ok(());
        }
        round += 1;
    }
    Err(Reason::SourcePortsExhausted)
}

/// A port that no flow has; where all that were looked at are taken, the last of them.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "below the count of ports")]
fn free_port(flows: &impl Flows, key: &FlowKey, address: &Address, ports: SourcePorts, random: u32) -> Port {
    let count = u32::from(ports.count);
    let mut offset = scale(random, count);
    let stride = 1 + scale(random.rotate_left(16), count.wrapping_sub(1));
    let destination = (*address, Port::NONE);
    let source = (key.destination, key.destination_port);
    let mut reply = FlowKey::new(PacketHook::Ingress, key.protocol, source, destination);
    let mut attempt = 0;
    loop {
        reply.destination_port = Port::new(ports.first.wrapping_add(offset as u16));
        attempt += 1;
        if attempt == ATTEMPTS || !flows.has(Table::New, &reply) && !flows.has(Table::Confirmed, &reply) {
            return reply.destination_port;
        }
        offset += if attempt < ATTEMPTS / 2 { stride } else { 1 };
        if offset >= count {
            offset -= count;
        }
    }
}

/// Takes a source that no flow has, live or not.
#[inline(never)]
fn claim(flows: &impl Flows, key: &FlowKey, flow: &Flow) -> bool {
    let peer_key = flow.peer_key(key);
    let peer = flow.peer(key, &peer_key, Life::default());
    flows.insert(Table::New, &peer_key, &peer, true) && stays(flows, &peer_key)
}

/// Takes a source whose flow nobody needs any more.
#[inline(never)]
fn take_over(flows: &impl Flows, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
    let peer_key = flow.peer_key(key);
    if let Some((other, _)) = flows.find(Table::New, &peer_key)
        && !is_abandoned(flows, &peer_key, &other, clock)
    {
        return false;
    }
    if flows.find(Table::Confirmed, &peer_key).is_some() {
        return false;
    }
    flows.insert(Table::New, &peer_key, &flow.peer(key, &peer_key, Life::default()), false);
    stays(flows, &peer_key)
}

/// Whether a source that was just written to FLOWS_NEW is nobody else's. Asked only now: a flow is put into FLOWS before
/// it goes from FLOWS_NEW, so whoever had this source is seen here.
#[inline(always)]
fn stays(flows: &impl Flows, peer_key: &FlowKey) -> bool {
    if flows.find(Table::Confirmed, peer_key).is_none() {
        return true;
    }
    flows.remove(Table::New, peer_key);
    false
}
