//! The life of a connection: what a packet changes in its record.
//!
//! What never happens: a packet of a confirmed connection goes to another endpoint than the ones before it; a connection
//! that its client never confirmed pushes out one that was.
//!
//! - A connection **begins** in a slot that others may take.
//! - It is **confirmed** when its client speaks again after an answer, and, in TCP, acknowledges the endpoint's SYN, which nobody can
//!   with a made-up address: from then on nothing takes its slot. (After the answer alone would not do: every SYN of a flood is
//!   answered.) Of datagrams nothing better is to be had.
//! - It **ends** with a reset, or FIN from both sides. Its record stays until somebody takes its slot: the last packets
//!   still find their way, and nobody has to come and clear away. Whoever goes on after a reset of its own has sent none: it
//!   was somebody else's, or out of the window.
//! - It is **over** for good when the endpoint answers another connection between the same two, or, in UDP, when nobody has spoken for
//!   the timeout: then the packets are not ours to translate.

use super::{
    buckets::{self, Kept, Place},
    record::{Ends, Origin, Seen},
    table::Flows,
};
use crate::{
    address::Protocol,
    packet::{Numbers, Segment, Transport},
};

/// The time, and what counts as long ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Seconds since boot; never 0.
    pub seconds: u32,
    /// How many seconds an unconfirmed UDP flow lives without a packet.
    pub udp_timeout: u32,
}

/// For how many seconds a TCP connection that is not confirmed is taken for one: SYNs are repeated for about two minutes.
const TCP_TIMEOUT: u32 = 120;

/// For how many seconds no other client gets the source of a datagram that was answered: a resolver asks thousands a second.
const ANSWERED_TIMEOUT: u32 = 5;

impl Clock {
    #[inline(always)]
    const fn is_past(self, since: u32, timeout: u32) -> bool {
        self.seconds.wrapping_sub(since) > timeout && self.seconds > since
    }

    /// The second as FLOW_USES has it.
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
    /// One of its connection.
    Follow,
    /// The first of another connection between the same two.
    Anew,
    /// Unrelated: the slot has been reused in the meantime.
    Gone,
}

#[inline(always)]
const fn fin(segment: Segment) -> u8 {
    if segment.is_fin() { Seen::FIN } else { 0 }
}

#[inline(always)]
fn is_noted_this_second(flows: &impl Flows, place: Place, clock: Clock) -> bool {
    let [seconds, _] = flows.uses(place.bucket());
    buckets::byte(seconds, place.slot()) == clock.second()
}

/// Notes a packet from the client to the frontend, of the record at `place`, whose first half is `ends`; there it is noted
/// too. `device` is what it came in by.
#[inline(always)]
pub fn asked(
    flows: &impl Flows,
    place: Place,
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
    // Most packets have nothing new to tell.
    if !is_news && is_noted_this_second(flows, place, clock) {
        if !segment.is_datagram() {
            return Noted::Follow;
        }
        let (endpoint, generation) = flows.endpoint_of(place);
        if flows.is_serving(endpoint, generation) {
            return Noted::Follow;
        }
    }
    asked_closely(flows, place, ends, &Packet { segment, numbers, clock, device })
}

/// The result of noting a packet.
struct Packet {
    segment: Segment,
    numbers: Numbers,
    clock: Clock,
    device: u32,
}

#[inline(never)]
fn asked_closely(flows: &impl Flows, place: Place, ends: &mut Ends, packet: &Packet) -> Noted {
    let Packet { segment, numbers, clock, device } = *packet;
    let check = ends.check;
    let Some(known) = flows.known(place, check) else { return Noted::Gone };
    goes_on(flows, place, ends, segment, Seen::BY_CLIENT);
    let ended = ends.seen.ended();
    if segment.begins() {
        let is_stale = segment.is_datagram()
            && !ends.seen.confirmed()
            && clock.is_past(known.seconds, clock.udp_timeout);
        if ended || is_stale || !flows.is_serving(known.endpoint, known.generation) {
            flows.keep(place, check, false);
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
        flows.see_reset(place, Seen::BY_CLIENT);
    }
    let confirms = segment.confirms()
        && ends.seen.answered()
        && (segment.is_datagram() || acknowledges(numbers.acknowledgement, known.answer));
    if ends.seen.ended() {
        flows.keep(place, check, false);
    } else if confirms || ends.seen.confirmed() {
        // One that was kept no longer, since nobody used it, is kept again.
        if !flows.keep(place, check, true) {
            return Noted::Gone;
        }
        ends.seen.client |= Seen::CONFIRMED;
    }
    if ends.seen.client != before.client {
        flows.see_client(place, ends.seen.client);
    }
    if known.device != device {
        flows.set_device(place, device);
    }
    flows.touch(place, clock.seconds);
    Noted::Follow
}

/// Whether a client's first acknowledgement is one of the endpoint's SYN. Who does not see the answer has to guess.
#[inline(always)]
const fn acknowledges(acknowledgement: u32, answer: u32) -> bool {
    /// Bytes that an endpoint may have sent by then: an initial window is less.
    const WINDOW: u32 = 1 << 16;
    acknowledgement.wrapping_sub(answer).wrapping_sub(1) < WINDOW
}

/// A side that continues after a reset did not send it: the connection lives.
#[inline(always)]
fn goes_on(flows: &impl Flows, place: Place, ends: &mut Ends, segment: Segment, by: u8) {
    let says_nothing = segment.is_rst() || segment.begins() || segment.is_answer();
    if ends.seen.reset == by && ends.seen.confirmed() && !says_nothing {
        ends.seen.reset = 0;
        flows.see_reset(place, 0);
    }
}

/// What the second half of a record says of its endpoint and its use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The endpoint's id.
    pub endpoint: u32,
    /// The id's generation.
    pub generation: u16,
    /// When the last packet came by, in seconds since boot.
    pub seconds: u32,
    /// What the client's packets come in by.
    pub device: u32,
    /// The sequence number of the endpoint's SYN.
    pub answer: u32,
}

/// Notes a packet from the endpoint. `false`: it is of another connection between the same two, of which nothing is known here.
#[inline(always)]
pub fn answered(
    flows: &impl Flows,
    place: Place,
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
    if !is_news && is_noted_this_second(flows, place, clock) {
        return true;
    }
    answered_closely(flows, place, ends, bits, &Packet { segment, numbers, clock, device: 0 })
}

#[inline(never)]
fn answered_closely(flows: &impl Flows, place: Place, ends: &mut Ends, bits: u8, packet: &Packet) -> bool {
    let Packet { segment, numbers, clock, device: _ } = *packet;
    let Some(known) = flows.known(place, ends.check) else { return false };
    goes_on(flows, place, ends, segment, Seen::BY_ENDPOINT);
    let [_, kept] = flows.uses(place.bucket());
    let is_kept = buckets::byte(kept, place.slot()) & Kept::CONFIRMED != 0;
    let is_stale = segment.is_datagram() && !is_kept && clock.is_past(known.seconds, clock.udp_timeout);
    if (ends.seen.ended() && segment.is_answer()) || is_stale {
        flows.free(place, ends.check);
        return false;
    }
    if ends.seen.ended() {
        // SOURCE_PORTS leads to one that was freed, too.
        return buckets::byte(flows.tags(place.bucket()), place.slot()) != 0;
    }
    let before = ends.seen;
    ends.seen.endpoint |= bits;
    if segment.is_answer() {
        flows.see_answer(place, numbers.sequence);
    }
    if ends.seen.endpoint != before.endpoint {
        flows.see_endpoint(place, ends.seen.endpoint);
    }
    if segment.is_rst() {
        ends.seen.reset = Seen::BY_ENDPOINT;
        flows.see_reset(place, Seen::BY_ENDPOINT);
    }
    if ends.seen.ended() {
        flows.keep(place, ends.check, false);
    } else if ends.seen.confirmed() {
        flows.keep(place, ends.check, true);
    }
    flows.touch(place, clock.seconds);
    true
}

/// Notes that a packet from the client has come through the stack, and leaves for the endpoint.
#[inline(always)]
pub fn left(flows: &impl Flows, place: Place, ends: &mut Ends) {
    if ends.seen.client & Seen::LEFT == 0 {
        ends.seen.client |= Seen::LEFT;
        flows.see_client(place, ends.seen.client);
    }
}

/// Who else wants what a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Rival {
    /// The same client: what it asked elsewhere and was answered is over, should it ask there again it begins again.
    SameClient = 0,
    /// Another one, that would rather have something else.
    Patient = 1,
    /// Another one, to whom nothing else is left: of TCP it takes what is not confirmed, as a flood's is not. (Of UDP it
    /// does not: an answer that is still on its way would be told to the wrong client.)
    Impatient = 2,
}

/// Whether a live connection still needs the record.
#[inline(always)]
pub(super) fn is_live(
    flows: &impl Flows,
    place: Place,
    ends: &Ends,
    origin: &Origin,
    clock: Clock,
    rival: Rival,
) -> bool {
    if ends.seen.ended() {
        return false;
    }
    let [_, kept] = flows.uses(place.bucket());
    if buckets::byte(kept, place.slot()) & Kept::CONFIRMED != 0 || matches!(rival, Rival::Patient) {
        return true;
    }
    let is_tcp = ends.protocol == Protocol::Tcp as u8;
    if is_tcp && matches!(rival, Rival::Impatient) {
        return false;
    }
    let is_answered = !is_tcp && ends.seen.answered();
    if is_answered && matches!(rival, Rival::SameClient) {
        return false;
    }
    let timeout = if is_tcp {
        TCP_TIMEOUT
    } else if is_answered && clock.udp_timeout > ANSWERED_TIMEOUT {
        ANSWERED_TIMEOUT
    } else {
        clock.udp_timeout
    };
    !clock.is_past(origin.seconds, timeout)
}
