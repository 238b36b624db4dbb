//! FLOWS: what becomes of the packets of a flow that comes from outside of the node.
//!
//! An element says what one hook puts in place of one address of one packet: ingress replaces destinations, egress
//! replaces sources. Elements come in pairs: the peer of an element is found by what its packet has become, turned
//! round, at the other hook, and puts back what was replaced.
//!
//! | hook | packet | becomes | made |
//! |---|---|---|---|
//! | ingress, forward | client -> frontend | client -> endpoint | when the flow begins |
//! | egress, reply | endpoint -> client | frontend -> client | with it |
//! | egress, forward | client -> endpoint | source -> endpoint | when a masqueraded flow leaves the node |
//! | ingress, reply | endpoint -> source | endpoint -> client | with it |
//!
//! FLOWS is an array in memory that the agent maps, in **buckets** of four slots; an element stands in one of the eight
//! slots of its key's two buckets. Whoever comes takes the slot that was used least recently, but of those of
//! [confirmed](Life::CONFIRMED) flows. So a flow is confirmed and ended with one store, and new ones that nobody answers
//! push each other out. (With a hash for confirmed flows and an LRU hash for the others a connection paid three
//! microseconds for its elements; measured, see ARCHITECTURE.md.)
//!
//! FLOW_TAGS says in sixteen bits of each slot whose it is, most likely, whether it may be taken, and when it was used. It
//! is small enough to stay in a processor's cache where FLOWS is not: a packet that has no flow touches no element, and
//! one that begins a flow reads none.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    address::{Address, Port},
    peer::bpf_spin_lock,
    select::scale,
};

/// The hook that a packet passes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum PacketHook {
    /// TC ingress: destinations are rewritten.
    Ingress = 0,
    /// TC egress: sources are rewritten.
    Egress = 1,
}

/// The key of an element: a packet as it comes to a hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Where the packet comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Where it comes from.
    pub source_port: Port,
    /// Where it goes.
    pub destination_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`PacketHook`].
    pub hook: u8,
    /// Zero.
    pub padding: u16,
}

impl FlowKey {
    /// Put together in words, for the reason that [`Address::from_words`] gives.
    #[inline(always)]
    pub const fn new(
        hook: PacketHook,
        protocol: u8,
        source: (Address, Port),
        destination: (Address, Port),
    ) -> Self {
        let [a, b]: [u64; 2] = must_cast(source.0.bytes);
        let [c, d]: [u64; 2] = must_cast(destination.0.bytes);
        let ports = source.1.number as u64 | (destination.1.number as u64) << 16;
        must_cast([a, b, c, d, ports | (protocol as u64) << 32 | (hook as u64) << 40])
    }

    /// Thirty-two bits that depend on every bit of the key and of `rest`.
    #[inline(always)]
    const fn fingerprint_with(&self, rest: u64) -> u32 {
        let [_, _, _, _, ports]: [u64; 5] = must_cast(*self);
        let source = self.source.fingerprint_with(ports) as u64;
        self.destination.fingerprint_with(rest ^ source << 16)
    }

    /// Sixty-four bits for [`buckets`] and [`FlowTag::of_key`]. Both ends are multiplied by what the seed makes of the other half
    /// of theirs: who does not know the seed cannot choose addresses or ports that meet in one bucket. (With
    /// each word multiplied after the other a lookup took 4 ns more; measured.)
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        const A: u64 = 0x9e37_79b9_7f4a_7c15;
        const B: u64 = 0xc2b2_ae3d_27d4_eb4f;
        let [a, b, c, d, ports]: [u64; 5] = must_cast(*self);
        let source = (a ^ seed).wrapping_mul(b ^ seed.rotate_left(23) ^ A);
        let destination = (c ^ seed.rotate_left(41) ^ B).wrapping_mul(d ^ seed.rotate_left(11));
        let sum =
            source.wrapping_add(destination.rotate_left(32)).wrapping_add((ports ^ seed).wrapping_mul(A));
        let mixed = (sum ^ sum >> 32).wrapping_mul(B);
        mixed ^ mixed >> 29
    }

    /// Whether it is the other one. (Of the derived comparison the compiler makes branches.)
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b]: [[u64; 5]; 2] = [must_cast(*self), must_cast(*other)];
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
    }

    /// Whether the packet is at ingress.
    #[inline(always)]
    pub const fn is_ingress(&self) -> bool {
        self.hook == PacketHook::Ingress as u8
    }
}

/// When an element was last used, and what has been seen: one aligned word, which changes while programs read it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Life {
    /// When it was made, or its last packet came, in seconds since boot.
    pub seconds: u32,
    /// The bits below.
    pub bits: u32,
}

impl Life {
    /// The element is of packets from the client. Never changes.
    pub const FORWARD: u32 = 1;
    /// A TCP segment with FIN has come by in this direction.
    pub const FIN: u32 = 2;
    /// A TCP segment with RST has come by in this direction.
    pub const RST: u32 = 4;
    /// A packet has come by in this direction.
    pub const SEEN: u32 = 8;
    /// The flow is confirmed: nothing takes its slot. In FLOWS it stands in the slot's [tag](FlowTag::KEPT).
    pub const CONFIRMED: u32 = 16;
    /// The endpoint is to see the flow come from the node, which it therefore leaves. Never changes; in the element that
    /// leads to the endpoint.
    pub const LEAVES: u32 = 32;
    /// A packet of this element has come through the stack, and left as it is expected to leave: what follows may be
    /// [sent on past the stack](crate::nat::pass_stack). Of elements at egress.
    pub const LEFT: u32 = 64;

    /// Whether all of `bits` are set.
    #[inline(always)]
    pub const fn has(self, bits: u32) -> bool {
        self.bits & bits == bits
    }

    /// Whether a flow with these two halves has ended: a reset, or FIN from both sides.
    #[inline(always)]
    pub const fn ended(self, peer: Self) -> bool {
        (self.bits | peer.bits) & Self::RST != 0 || self.bits & peer.bits & Self::FIN != 0
    }
}

/// What an element says. All but `life` never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Flow {
    /// What is put in place of the packet's destination (ingress) or source (egress).
    pub address: Address,
    /// The port with it; 0 in the element of a flow that is to be masqueraded and has not left the node yet.
    pub port: Port,
    /// The generation of the endpoint's id.
    pub generation: u16,
    /// The endpoint's id.
    pub endpoint: u32,
    /// Index into SERVICES of the Service that the flow began with. It may have another owner by now.
    pub service: u32,
    /// [`Flow::is_of`]: a mismatch means that the element was reused while it was read.
    pub check: u32,
    /// What changes. In FLOWS it is without [`Life::CONFIRMED`].
    pub life: Life,
}

/// A slot of FLOWS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowSlot {
    /// The element's key; all zero in a slot that was never used.
    pub key: FlowKey,
    /// The element.
    pub flow: Flow,
}

/// A value of FLOWS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowBucket {
    /// The slots.
    pub slots: [FlowSlot; FlowBucket::LEN],
}

impl FlowBucket {
    /// How many slots there are.
    pub const LEN: usize = 4;
}

/// What FLOW_TAGS has for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct FlowTag {
    /// From the lowest bit: nine bits of the key's hash, 0 in a slot without an element; the second of the last use,
    /// modulo 64; [`FlowTag::KEPT`].
    pub bits: u16,
}

impl FlowTag {
    /// The slot is a [confirmed](Life::CONFIRMED) flow's.
    pub const KEPT: u16 = 1 << 15;
    /// The bits that are the key's.
    pub const KEY: u16 = 0x1ff;
    /// At which bit the second begins.
    pub const SECOND: u32 = 9;
    /// The bits of the second.
    pub const SECONDS: u64 = 0x3f;

    /// Of an element whose key has this hash.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 512")]
    pub const fn of_key(hash: u64) -> u16 {
        (1 + ((((hash ^ hash >> 32) & 0x1ff) * 0x1ff) >> 9)) as u16
    }

    /// With the [key's bits](FlowTag::of_key), at this point of its life.
    #[inline(always)]
    pub const fn new(key: u16, life: Life) -> Self {
        let second = (life.seconds as u64 & Self::SECONDS) as u16;
        let kept = ((life.bits & Life::CONFIRMED) / Life::CONFIRMED) as u16;
        Self { bits: key | second << Self::SECOND | kept << 15 }
    }

    /// Whether the slot is a confirmed flow's.
    #[inline(always)]
    pub const fn is_kept(self) -> bool {
        self.bits & Self::KEPT != 0
    }
}

/// A value of FLOW_TAGS: of the slots of the bucket with the same index in FLOWS. One aligned word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowTags {
    /// Slot by slot.
    pub slots: [FlowTag; FlowBucket::LEN],
}

/// The two buckets of the key with this hash, in a table of `count`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of the hash")]
pub const fn buckets(hash: u64, count: u32) -> [u32; 2] {
    [scale(hash as u32, count), scale((hash >> 32) as u32, count)]
}

/// An element of FLOW_LOCKS: held while a source is taken, so that no two flows take the same one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FlowLock {
    /// The lock.
    pub lock: bpf_spin_lock,
    /// Zero.
    pub padding: u32,
}

/// How many locks there are; a power of two.
pub const FLOW_LOCKS: u32 = 256;

/// The endpoint of a flow, as its elements remember it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEndpoint {
    /// The endpoint's id.
    pub id: u32,
    /// The id's generation.
    pub generation: u16,
    /// Index into SERVICES.
    pub service: u32,
}

impl Flow {
    /// The value for `key` that puts `address` and `port` in place.
    #[inline(always)]
    pub const fn new(
        key: &FlowKey,
        address: Address,
        port: Port,
        endpoint: FlowEndpoint,
        life: Life,
    ) -> Self {
        let FlowEndpoint { id, generation, service } = endpoint;
        let flow = Self { address, port, generation, endpoint: id, service, check: 0, life };
        Self { check: flow.checksum(key), ..flow }
    }

    /// Whether this is whole, and the value for `key`.
    #[inline(always)]
    pub const fn is_of(&self, key: &FlowKey) -> bool {
        self.check == self.checksum(key)
    }

    /// What `check` is of an element for `key`.
    #[inline(always)]
    pub const fn checksum(&self, key: &FlowKey) -> u32 {
        let ports = self.port.number as u64 | (self.generation as u64) << 16 | (self.endpoint as u64) << 32;
        let value = self.address.fingerprint_with(ports) as u64;
        key.fingerprint_with(value << 32 | self.service as u64)
    }

    /// The endpoint.
    #[inline(always)]
    pub const fn endpoint(&self) -> FlowEndpoint {
        FlowEndpoint { id: self.endpoint, generation: self.generation, service: self.service }
    }

    /// Whether it is of packets from the client.
    #[inline(always)]
    pub const fn is_forward(&self) -> bool {
        self.life.has(Life::FORWARD)
    }

    /// Whether the flow is to be masqueraded once it leaves the node, and has no source yet. Without a peer.
    #[inline(always)]
    pub const fn is_pending(&self) -> bool {
        self.port.number == 0
    }

    /// The key of the other element of the pair.
    #[inline(always)]
    pub const fn peer_key(&self, key: &FlowKey) -> FlowKey {
        let new = (self.address, self.port);
        if key.is_ingress() {
            FlowKey::new(PacketHook::Egress, key.protocol, new, (key.source, key.source_port))
        } else {
            let destination = (key.destination, key.destination_port);
            FlowKey::new(PacketHook::Ingress, key.protocol, destination, new)
        }
    }

    /// The key of the element that the packet is for at egress, when ingress has put this one's destination in place.
    #[inline(always)]
    pub const fn next_key(&self, key: &FlowKey) -> FlowKey {
        let (source, destination) = ((key.source, key.source_port), (self.address, self.port));
        FlowKey::new(PacketHook::Egress, key.protocol, source, destination)
    }

    /// The other element of the pair, which puts back what this one replaces.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self, key: &FlowKey, peer_key: &FlowKey, life: Life) -> Self {
        let (address, port) = if key.is_ingress() {
            (key.destination, key.destination_port)
        } else {
            (key.source, key.source_port)
        };
        Self::new(peer_key, address, port, self.endpoint(), life)
    }

    /// Whether `peer` is the other element of this one's pair: puts back what this one replaces.
    #[inline(always)]
    pub fn is_peer(&self, key: &FlowKey, peer: &Self) -> bool {
        let (address, port) = if key.is_ingress() {
            (&key.destination, key.destination_port)
        } else {
            (&key.source, key.source_port)
        };
        peer.port == port && peer.address.words() == address.words()
    }
}

/// A key of FRAGMENTS: what the fragments of one datagram have in common, at one hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Where the datagram comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Its identification, as in the packet.
    pub identification: u32,
    /// IANA protocol number of the datagram.
    pub protocol: u8,
    /// A [`PacketHook`].
    pub hook: u8,
    /// Zero.
    pub padding: u16,
}

/// A value of FRAGMENTS, read as one 64-bit word: the ports, which only the first fragment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentPorts {
    /// The datagram's source port.
    pub source: Port,
    /// The datagram's destination port.
    pub destination: Port,
    /// [`FragmentKey::fingerprint`] of the key: a mismatch means that the element was reused while it was read.
    pub fingerprint: u32,
}

impl FragmentKey {
    /// Thirty-two bits that depend on every bit of the key.
    #[inline(always)]
    pub const fn fingerprint(&self) -> u32 {
        let [_, _, _, _, rest]: [u64; 5] = must_cast(*self);
        let source = self.source.fingerprint_with(rest) as u64;
        self.destination.fingerprint_with(source << 16)
    }
}

/// A value of INTERFACES: what the kernel does not tell a program of a device that has our programs. The key is the
/// device's index.
///
/// The addresses are those that the node takes for its own there when it masquerades (asked for before 6.7 only, which
/// has `BPF_FIB_LOOKUP_SRC`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Interface {
    /// In IPv4, as `::ffff:a.b.c.d`; `::ffff:0.0.0.0` for none.
    pub v4: Address,
    /// In IPv6; `::` for none.
    pub v6: Address,
    /// Bytes of the longest packet that may be sent there past the stack: the least MTU of the device and of the routes through it.
    /// (`bpf_fib_lookup` does not know that of routes, and before 5.12 none of segmented packets.) 0 for a device without an
    /// Ethernet header.
    pub longest: u32,
    /// Zero.
    pub padding: u32,
}

/// The one element of REFUSED_RATE: how many refusals were answered in the second that passes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct RefusedRate {
    /// The second, since boot.
    pub second: u64,
    /// How many answers in it.
    pub answers: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<Flow>() == 40);
const _: () = assert!(size_of::<FlowBucket>() == 320);
const _: () = assert!(size_of::<FlowTags>() == 8);
const _: () = assert!(FLOW_LOCKS.is_power_of_two());
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentPorts>() == 8);
const _: () = assert!(size_of::<Interface>() == 40);
const _: () = assert!(size_of::<RefusedRate>() == 16);
