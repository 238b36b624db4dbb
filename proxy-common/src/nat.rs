//! The life of a flow from outside: begun, confirmed, ended. The tables' types are in [`crate::flow`].
//!
//! What never happens: a packet of a confirmed flow goes to another endpoint than the ones before it; two live flows
//! have the same source towards one endpoint; a flow that its client never confirmed pushes out one that was.
//!
//! - A flow **begins** with both elements of its pair, in slots that others may take.
//! - It is **confirmed** when its client speaks again after an answer, which nobody can with a made-up address: from then
//!   on nothing takes its slots. (The first design confirmed it with the answer; but every SYN of a flood is answered.)
//! - It **ends** with a reset, or FIN from both sides. Its elements stay until somebody takes their slots: the last
//!   packets still find their way, and nobody has to come and clear away.

use crate::{
    address::{Address, Port, Protocol},
    endpoint::Endpoint,
    flow::{Flow, FlowEndpoint, FlowKey, Life, PacketHook},
    packet::Segment,
    reason::Reason,
    select::scale,
};

/// The table of flows.
pub trait Flows {
    /// Where an element is, to change its life.
    type Place: Copy;
    /// An element, whole: one that was reused while it was read is not there.
    fn find(&self, key: &FlowKey) -> Option<(Flow, Self::Place)>;
    /// The same, where it is not asked for every packet.
    fn find_rarely(&self, key: &FlowKey) -> Option<(Flow, Self::Place)> {
        self.find(key)
    }
    /// Whether there is an element.
    fn has(&self, key: &FlowKey) -> bool;
    /// Replaces the life of an element, unless it has gone. One that is confirmed stays so, whatever `life` says: another
    /// processor may have confirmed it meanwhile.
    fn set_life(&self, place: Self::Place, life: Life);
    /// Replaces the life of an element that is confirmed no longer.
    fn release(&self, place: Self::Place, life: Life);
    /// Removes an element, unless it has gone.
    fn remove(&self, place: Self::Place);
    /// Writes an element in place of one with the same key, or into a slot that may be taken, but none of `spared`.
    /// `None`: there is none.
    fn insert(&self, key: &FlowKey, flow: &Flow, spared: Option<[Self::Place; 2]>) -> Option<Self::Place>;
    /// The same, if there is no such element yet; no two callers write one at once. `None`: there is one, or no slot.
    fn claim(&self, key: &FlowKey, flow: &Flow, spared: Option<[Self::Place; 2]>) -> Option<Self::Place>;
    /// Whether an endpoint still serves; see [`crate::select::is_serving`].
    fn is_serving(&self, endpoint: u32, generation: u16) -> bool;
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

/// For how many seconds no other client gets the source of a datagram that was answered.
const ANSWERED_TIMEOUT: u32 = 5;

impl Clock {
    #[inline(always)]
    const fn is_past(self, since: u32, timeout: u32) -> bool {
        self.seconds.wrapping_sub(since) > timeout && self.seconds > since
    }
}

impl Life {
    /// Of an element that is made now.
    #[inline(always)]
    const fn new(bits: u32, clock: Clock) -> Self {
        Self { seconds: clock.seconds, bits }
    }

    /// After a packet.
    #[inline(always)]
    const fn after(self, segment: Segment, clock: Clock) -> Self {
        let fin = if segment.is_fin() { Self::FIN } else { 0 };
        let rst = if segment.is_rst() { Self::RST } else { 0 };
        let left = if segment.is_leaving() { Self::LEFT } else { 0 };
        Self { seconds: clock.seconds, bits: self.bits | Self::SEEN | fin | rst | left }
    }
}

/// Finds the flow that a packet belongs to, if it has one: what to put in place of its destination (ingress) or source
/// (egress). It is left in `found`, which is worth nothing otherwise. A [pending](Flow::is_pending) one has yet to get a
/// source, from [`masquerade`].
#[inline(always)]
pub fn follow(flows: &impl Flows, key: &FlowKey, segment: Segment, clock: Clock, found: &mut Flow) -> bool {
    let Some((flow, place)) = flows.find(key) else { return false };
    *found = flow;
    let life = flow.life.after(segment, clock);
    // Most packets have nothing new to tell.
    if life.bits == flow.life.bits {
        if segment.is_datagram() {
            // A stream of datagrams is looked at closely once a second.
            if life.seconds == flow.life.seconds && serves(flows, key, &flow) {
                return true;
            }
        } else if life.has(Life::CONFIRMED) && !segment.begins() {
            if life.seconds != flow.life.seconds {
                flows.set_life(place, life);
            }
            return true;
        }
    }
    follow_closely(flows, key, segment, &clock, found, place)
}

/// Whether a packet whose `flow` ingress has found may be sent on past the stack. What egress would put in place of its
/// source is left in `beyond` then; `next` is where the key for that is put together.
///
/// Not to an endpoint on this node, and not before a packet of this direction has come out of the stack as it was
/// expected to: what the stack drops, encrypts, or masquerades in a way of its own is the stack's, and so is a new connection.
#[inline(always)]
pub fn pass_stack(
    flows: &impl Flows,
    key: &FlowKey,
    flow: &Flow,
    segment: Segment,
    clock: Clock,
    next: &mut FlowKey,
    beyond: &mut Flow,
) -> bool {
    if !segment.is_datagram() && segment.begins() || flow.is_forward() && !flow.life.has(Life::LEAVES) {
        return false;
    }
    *next = flow.next_key(key);
    follow(flows, next, segment, clock, beyond) && !beyond.is_pending() && beyond.life.has(Life::LEFT)
}

/// Whether the endpoint of a flow would get one that begins now. That is asked where the endpoint is put in place.
#[inline(always)]
fn serves(flows: &impl Flows, key: &FlowKey, flow: &Flow) -> bool {
    !key.is_ingress() || !flow.is_forward() || flows.is_serving(flow.endpoint, flow.generation)
}

/// [`follow`] for a packet that may change what its flow is.
#[inline(never)]
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "by value a clock would be a sixth argument, and there are five"
)]
fn follow_closely<F: Flows>(
    flows: &F,
    key: &FlowKey,
    segment: Segment,
    clock: &Clock,
    flow: &mut Flow,
    place: F::Place,
) -> bool {
    let clock = *clock;
    let life = flow.life.after(segment, clock);
    if flow.is_pending() {
        return true;
    }
    let peer_key = flow.peer_key(key);
    let (mut peer_life, mut peer_place) = (Life::default(), None);
    match flows.find_rarely(&peer_key) {
        Some((other, place)) if flow.is_peer(key, &other) => {
            (peer_life, peer_place) = (other.life, Some(place));
        }
        // The other element was pushed out, and its place may be another flow's by now. At ingress the flow begins
        // anew, at egress it needs another source. A late reply still comes from where it was asked for.
        other => {
            if flow.is_forward() {
                let peer = flow.peer(key, &peer_key, Life::new(0, clock));
                if other.is_some() || flows.claim(&peer_key, &peer, Some([place; 2])).is_none() {
                    flow.port = Port::NONE;
                    return !key.is_ingress();
                }
            }
        }
    }
    let ended = flow.life.ended(peer_life);
    if flow.is_forward() && segment.begins() {
        if key.is_ingress() {
            let latest =
                if peer_life.seconds > flow.life.seconds { peer_life.seconds } else { flow.life.seconds };
            let is_stale = segment.is_datagram()
                && !flow.life.has(Life::CONFIRMED)
                && clock.is_past(latest, clock.udp_timeout);
            if ended || is_stale || !serves(flows, key, flow) {
                flows.release(place, flow.life);
                if let Some(place) = peer_place {
                    flows.release(place, peer_life);
                }
                return false;
            }
        } else if ended {
            // The same client comes back, to the same endpoint: with the same source, in a new connection.
            flows.set_life(place, Life::new(Life::FORWARD | Life::SEEN, clock));
            if let Some(place) = peer_place {
                flows.set_life(place, Life::new(0, clock));
            }
            return true;
        }
    }
    if ended && segment.is_answer() {
        // Of another connection between the same two, which knows nothing of us.
        flows.remove(place);
        return false;
    }
    flow.life = life;
    if flow.life.ended(peer_life) {
        flows.release(place, life);
        if let Some(place) = peer_place {
            flows.release(place, peer_life);
        }
        return true;
    }
    if flow.is_forward()
        && segment.confirms()
        && peer_life.has(Life::SEEN)
        && let Some(peer_place) = peer_place
    {
        // The reply first: whoever finds the other one relies on it.
        flows.set_life(peer_place, Life { bits: peer_life.bits | Life::CONFIRMED, ..peer_life });
        flow.life.bits |= Life::CONFIRMED;
    }
    if !flow.is_forward() {
        // Another processor may have noted a reply while this was confirmed.
        flow.life.bits |= peer_life.bits & Life::CONFIRMED;
    }
    flows.set_life(place, flow.life);
    true
}

/// Begins a flow from a client to `endpoint`, and leaves it in `begun`. It does not begin if the client has a live
/// flow, through another frontend, whose packets would be the same ones at the endpoint, or if there is no room.
///
/// A flow whose endpoint is not on this node is marked to be masqueraded when it leaves; so is that of a client to
/// itself, which would take its own packets for forged ones (PO-22).
#[inline(always)]
pub fn begin(
    flows: &impl Flows,
    key: &FlowKey,
    endpoint: &Endpoint,
    clock: Clock,
    begun: &mut Flow,
) -> Begun {
    // Each step is a function that is called from here, and not from the one before it: the stack is short.
    let Endpoint { address, port, id, service, generation, flags: _ } = *endpoint;
    let leaves = !endpoint.is_local() || address.words() == key.source.words();
    let bits = Life::FORWARD | Life::SEEN | if leaves { Life::LEAVES } else { 0 };
    let life = Life::new(bits, clock);
    *begun = Flow::new(key, address, port, FlowEndpoint { id, generation, service }, life);
    if is_held(flows, key, begun, clock) {
        return Begun::Colliding;
    }
    let Some(replies) = enter_replies(flows, key, begun, clock) else { return Begun::NoRoom };
    let Some(place) = flows.insert(key, begun, Some([replies; 2])) else { return Begun::NoRoom };
    if leaves && !mark(flows, key, begun, [place, replies]) {
        // Nobody must find the half of it.
        flows.remove(place);
        flows.remove(replies);
        return Begun::NoRoom;
    }
    Begun::Flow
}

/// Whether another live flow gets the replies that a flow would get.
#[inline(never)]
fn is_held(flows: &impl Flows, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
    let peer_key = flow.peer_key(key);
    let Some((reply, _)) = flows.find_rarely(&peer_key) else { return false };
    if flow.is_peer(key, &reply) {
        return false;
    }
    let Some((forward, place)) = flows.find_rarely(&reply.peer_key(&peer_key)) else { return false };
    if !reply.is_peer(&peer_key, &forward) || forward.life.ended(reply.life) {
        // Nobody needs it any more.
        return false;
    }
    if forward.life.has(Life::CONFIRMED) {
        return true;
    }
    let is_tcp = key.protocol == Protocol::Tcp as u8;
    let answered = !is_tcp && reply.life.has(Life::SEEN);
    if answered && key.is_ingress() {
        // The same client's question, which has its answer. Should it ask there again, it begins again.
        flows.remove(place);
        return false;
    }
    let timeout = match (is_tcp, answered) {
        (true, _) => TCP_TIMEOUT,
        // A resolver asks thousands a second.
        (false, true) if clock.udp_timeout > ANSWERED_TIMEOUT => ANSWERED_TIMEOUT,
        (false, _) => clock.udp_timeout,
    };
    !(clock.is_past(forward.life.seconds, timeout) && clock.is_past(reply.life.seconds, timeout))
}

/// Enters the other element of a flow that begins.
#[inline(never)]
fn enter_replies<F: Flows>(flows: &F, key: &FlowKey, flow: &Flow, clock: Clock) -> Option<F::Place> {
    let peer_key = flow.peer_key(key);
    flows.insert(&peer_key, &flow.peer(key, &peer_key, Life::new(0, clock)), None)
}

/// What becomes of a flow that is to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Begun {
    /// It has begun.
    Flow,
    /// Its packets would be those of another flow.
    Colliding,
    /// There is no room for it.
    NoRoom,
}

/// Marks a flow that begins, with elements at `pair`, to be masqueraded; `false` if there is no room.
#[inline(never)]
fn mark<F: Flows>(flows: &F, key: &FlowKey, flow: &Flow, pair: [F::Place; 2]) -> bool {
    let marker_key = flow.next_key(key);
    // One that is there is of an earlier flow of the same client, and has a source.
    if flows.has(&marker_key) {
        return true;
    }
    let marker = Flow::new(&marker_key, Address::ANY_V6, Port::NONE, flow.endpoint(), flow.life);
    flows.insert(&marker_key, &marker, Some(pair)).is_some()
}

/// How many ports are looked at for one that is free, half of them in strides, and then one after the other.
const ATTEMPTS: u32 = 8;
/// How often that is done: a free port may be a socket's, or somebody else's in the next moment. At three quarters of the
/// ports taken, about one flow in a hundred finds none, and is tried again with its client's next packet.
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
    let life = Life::new(Life::FORWARD | Life::LEFT, clock);
    let mut round = 0;
    while round < ROUNDS + ABANDONED {
        let draw = random.rotate_left(round * 5);
        let port = if round < ROUNDS {
            free_port(flows, key, address, ports, draw)
        } else {
            Port::new(ports.first.wrapping_add(scale(draw, u32::from(ports.count)) as u16))
        };
        *flow = Flow::new(key, *address, port, flow.endpoint(), life);
        // Two that take one over at once would be the owners of the same one; the first of them is told apart by its own
        // element, which no longer has a peer.
        let replies = if round < ROUNDS {
            claim(flows, key, flow, clock)
        } else if is_held(flows, key, flow, clock) {
            None
        } else {
            enter_replies(flows, key, flow, clock)
        };
        if let Some(replies) = replies
            && !is_taken(flow)
        {
            let is_there = flows.insert(key, flow, Some([replies; 2])).is_some();
            return if is_there { Ok(()) } else { Err(Reason::FlowTableFull) };
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
        if attempt == ATTEMPTS || !flows.has(&reply) {
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
fn claim<F: Flows>(flows: &F, key: &FlowKey, flow: &Flow, clock: Clock) -> Option<F::Place> {
    let peer_key = flow.peer_key(key);
    flows.claim(&peer_key, &flow.peer(key, &peer_key, Life::new(0, clock)), None)
}
