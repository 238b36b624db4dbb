//! The life of a connection: how packets change its record.
//!
//! What never happens: a confirmed connection changes its endpoint; a connection that its client has not confirmed
//! evicts a confirmed one.
//!
//! - A connection **begins** in a slot that may be evicted.
//! - It is **confirmed** when its client sends again after an answer and, in TCP, acknowledges the endpoint's SYN,
//!   which a client with a forged address cannot do. From then on its slot is not evicted. (An answer alone proves
//!   nothing: every SYN of a flood is answered.) UDP offers no better proof.
//! - It **ends** with a reset, or with FIN from both sides. Its record stays until the slot is reused: the last
//!   packets are still translated, and nothing has to clean up. If the sender of a reset continues, the reset was
//!   forged or out of the window, and is revoked.
//! - It is **over** for good when the endpoint answers another connection between the same client and endpoint, or
//!   when a UDP flow with an evictable slot was idle for the timeout. Its packets are then no longer translated.

use super::{
    buckets::{self, Kept, RecordId},
    record::{Ends, Origin, Seen},
    table::Flows,
};
use crate::{
    address::Protocol,
    event::Happening,
    packet::{Numbers, Segment, Transport},
};

/// The current time, and the timeout of UDP flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Seconds since boot; never 0.
    pub seconds: u32,
    /// Seconds that an unconfirmed UDP flow lives without a packet.
    pub udp_timeout: u32,
}

/// Seconds that an unconfirmed TCP connection counts as live: SYNs are repeated for about two minutes.
const TCP_TIMEOUT: u32 = 120;

/// Seconds that an answered UDP flow keeps its source from other clients: a resolver sends thousands of queries a
/// second.
const ANSWERED_TIMEOUT: u32 = 5;

impl Clock {
    #[inline(always)]
    const fn is_past(self, since: u32, timeout: u32) -> bool {
        self.seconds.wrapping_sub(since) > timeout && self.seconds > since
    }

    /// The current second as in FLOW_USES, modulo 256.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "modulo 256")]
    pub const fn second(self) -> u8 {
        self.seconds as u8
    }
}

/// How a client's packet relates to the record found for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Noted {
    /// It belongs to the connection of the record.
    Follow,
    /// It is the first packet of another connection between the same client and frontend.
    Anew,
    /// The slot has been reused in the meantime.
    Gone,
}

#[inline(always)]
const fn fin(segment: Segment) -> u8 {
    if segment.is_fin() { Seen::FIN } else { 0 }
}

#[inline(always)]
fn is_noted_this_second(flows: &impl Flows, record_id: RecordId, clock: Clock) -> bool {
    let [seconds, _] = flows.uses(record_id.bucket());
    buckets::byte(seconds, record_id.slot()) == clock.second()
}

/// Updates the record, and its first half in `ends`, after a packet from the client to the frontend. `device` is
/// the ingress device.
#[inline(always)]
pub fn asked(
    flows: &impl Flows,
    record_id: RecordId,
    ends: &mut Ends,
    transport: &Transport,
    clock: Clock,
    device: u32,
) -> Noted {
    let Transport { segment, numbers, .. } = *transport;
    let is_news = (!segment.is_datagram() && segment.begins())
        || segment.is_rst()
        || fin(segment) & !ends.seen.client != 0
        || ends.seen.reset != 0
        || !ends.seen.confirmed();
    // Most packets change nothing.
    if !is_news && is_noted_this_second(flows, record_id, clock) {
        if !segment.is_datagram() {
            return Noted::Follow;
        }
        let (endpoint, generation) = flows.endpoint_of(record_id);
        if flows.is_serving(endpoint, generation) {
            return Noted::Follow;
        }
    }
    asked_closely(flows, record_id, ends, &Packet { segment, numbers, clock, device })
}

/// What a packet says about its connection.
struct Packet {
    segment: Segment,
    numbers: Numbers,
    clock: Clock,
    device: u32,
}

#[inline(never)]
fn asked_closely(flows: &impl Flows, record_id: RecordId, ends: &mut Ends, packet: &Packet) -> Noted {
    let Packet { segment, numbers, clock, device } = *packet;
    let check = ends.check;
    let Some(known) = flows.known(record_id, check) else { return Noted::Gone };
    goes_on(flows, record_id, ends, segment, Seen::BY_CLIENT);
    let ended = ends.seen.ended();
    if segment.begins() {
        let is_stale = segment.is_datagram()
            && !ends.seen.confirmed()
            && clock.is_past(known.seconds, clock.udp_timeout);
        if ended || is_stale || !flows.is_serving(known.endpoint, known.generation) {
            flows.keep(record_id, check, false);
            return Noted::Anew;
        }
    }
    if ended {
        return Noted::Follow;
    }
    let before = ends.seen;
    ends.seen.client |= Seen::PACKET | fin(segment);
    if segment.is_rst() {
        ends.seen.reset = Seen::BY_CLIENT;
        flows.see_reset(record_id, Seen::BY_CLIENT);
    }
    let confirms = segment.confirms()
        && ends.seen.answered()
        && (segment.is_datagram() || acknowledges(numbers.acknowledgement, known.answer));
    if ends.seen.ended() {
        flows.keep(record_id, check, false);
    } else if confirms || ends.seen.confirmed() {
        // This also protects a confirmed connection again that was released as idle.
        if !flows.keep(record_id, check, true) {
            return Noted::Gone;
        }
        ends.seen.client |= Seen::CONFIRMED;
    }
    if ends.seen.client != before.client {
        flows.see_client(record_id, ends.seen.client);
    }
    tell(flows, record_id, ends, before);
    if known.device != device {
        flows.set_device(record_id, device);
    }
    flows.touch(record_id, clock.seconds);
    Noted::Follow
}

/// Whether a client's first acknowledgement covers the endpoint's SYN. A client that did not see the answer has to
/// guess.
#[inline(always)]
const fn acknowledges(acknowledgement: u32, answer: u32) -> bool {
    /// Bytes that an endpoint may have sent by then: more than an initial window.
    const WINDOW: u32 = 1 << 16;
    acknowledgement.wrapping_sub(answer).wrapping_sub(1) < WINDOW
}

/// Revokes a reset whose supposed sender continues: the connection lives.
#[inline(always)]
fn goes_on(flows: &impl Flows, record_id: RecordId, ends: &mut Ends, segment: Segment, by: u8) {
    let says_nothing = segment.is_rst() || segment.begins() || segment.is_answer();
    if ends.seen.reset == by && ends.seen.confirmed() && !says_nothing {
        ends.seen.reset = 0;
        flows.see_reset(record_id, 0);
    }
}

/// The part of a record's second half that packets need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The endpoint's id.
    pub endpoint: u32,
    /// The id's generation.
    pub generation: u16,
    /// Time of the last packet, in seconds since boot.
    pub seconds: u32,
    /// Ingress device of the client's packets.
    pub device: u32,
    /// The sequence number of the endpoint's SYN.
    pub answer: u32,
}

/// Updates the record after a packet from the endpoint. `leaves` is true at egress. Returns `false` if the packet
/// belongs to another connection between the same client and endpoint, which has no record.
#[inline(always)]
pub fn answered(
    flows: &impl Flows,
    record_id: RecordId,
    ends: &mut Ends,
    transport: &Transport,
    leaves: bool,
    clock: Clock,
) -> bool {
    let Transport { segment, numbers, .. } = *transport;
    let left = if leaves { Seen::LEFT } else { 0 };
    let bits = Seen::PACKET | fin(segment) | left;
    let is_news =
        segment.is_rst() || segment.is_answer() || ends.seen.ended() || bits & !ends.seen.endpoint != 0;
    if !is_news && is_noted_this_second(flows, record_id, clock) {
        return true;
    }
    answered_closely(flows, record_id, ends, bits, &Packet { segment, numbers, clock, device: 0 })
}

#[inline(never)]
fn answered_closely(
    flows: &impl Flows,
    record_id: RecordId,
    ends: &mut Ends,
    bits: u8,
    packet: &Packet,
) -> bool {
    let Packet { segment, numbers, clock, device: _ } = *packet;
    let Some(known) = flows.known(record_id, ends.check) else { return false };
    goes_on(flows, record_id, ends, segment, Seen::BY_ENDPOINT);
    let [_, kept] = flows.uses(record_id.bucket());
    let is_kept = buckets::byte(kept, record_id.slot()) & Kept::CONFIRMED != 0;
    let is_stale = segment.is_datagram() && !is_kept && clock.is_past(known.seconds, clock.udp_timeout);
    if (ends.seen.ended() && segment.is_answer()) || is_stale {
        flows.free(record_id, ends.check);
        return false;
    }
    if ends.seen.ended() {
        // SOURCE_PORTS also refers to freed records, whose tag is 0.
        return buckets::byte(flows.tags(record_id.bucket()), record_id.slot()) != 0;
    }
    let before = ends.seen;
    ends.seen.endpoint |= bits;
    if segment.is_answer() {
        flows.see_answer(record_id, numbers.sequence);
    }
    if ends.seen.endpoint != before.endpoint {
        flows.see_endpoint(record_id, ends.seen.endpoint);
    }
    if segment.is_rst() {
        ends.seen.reset = Seen::BY_ENDPOINT;
        flows.see_reset(record_id, Seen::BY_ENDPOINT);
    }
    if ends.seen.ended() {
        flows.keep(record_id, ends.check, false);
    } else if ends.seen.confirmed() {
        flows.keep(record_id, ends.check, true);
    }
    tell(flows, record_id, ends, before);
    flows.touch(record_id, clock.seconds);
    true
}

/// Tells what a packet changed in the life of a connection.
#[inline(always)]
fn tell(flows: &impl Flows, record_id: RecordId, ends: &Ends, before: Seen) {
    let seen = ends.seen;
    if seen.reset != 0 && before.reset == 0 {
        flows.happened(record_id, ends, Happening::Reset);
    } else if seen.ended() && !before.ended() {
        flows.happened(record_id, ends, Happening::Ended);
    } else if seen.confirmed() && !before.confirmed() {
        flows.happened(record_id, ends, Happening::Confirmed);
    }
}

/// Notes that a packet from the client came through the stack and leaves for the endpoint.
#[inline(always)]
pub fn left(flows: &impl Flows, record_id: RecordId, ends: &mut Ends) {
    if ends.seen.client & Seen::LEFT == 0 {
        ends.seen.client |= Seen::LEFT;
        flows.see_client(record_id, ends.seen.client);
    }
}

/// Who claims the source port of a record, or its tuple at the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Rival {
    /// The same client through another frontend, whose packets can have another port.
    SameClient = 0,
    /// Another client, which has other ports to try.
    Patient = 1,
    /// Another client, which found no other port. It takes the port of an unconfirmed TCP connection, as those of
    /// a flood are. (Not of a UDP flow: an answer still on its way would reach the wrong client.)
    Impatient = 2,
}

/// Whether a live connection still needs what the rival claims.
#[inline(always)]
pub(super) fn is_live(
    flows: &impl Flows,
    record_id: RecordId,
    ends: &Ends,
    origin: &Origin,
    clock: Clock,
    rival: Rival,
) -> bool {
    if ends.seen.ended() {
        return false;
    }
    let [_, kept] = flows.uses(record_id.bucket());
    if buckets::byte(kept, record_id.slot()) & Kept::CONFIRMED != 0 || matches!(rival, Rival::Patient) {
        return true;
    }
    let is_tcp = ends.protocol == Protocol::Tcp as u8;
    if is_tcp && matches!(rival, Rival::Impatient) {
        return false;
    }
    let is_answered = ends.seen.answered() && matches!(rival, Rival::Impatient);
    let timeout = if is_tcp {
        TCP_TIMEOUT
    } else if is_answered && clock.udp_timeout > ANSWERED_TIMEOUT {
        ANSWERED_TIMEOUT
    } else {
        clock.udp_timeout
    };
    !clock.is_past(origin.seconds, timeout)
}
