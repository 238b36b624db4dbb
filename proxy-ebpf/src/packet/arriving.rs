//! A packet as both hooks see it: its headers, and the key of its flow. Fragments of a datagram but the first have no
//! ports; they get those that the first one left in FRAGMENTS.

use aya_ebpf::{bindings::bpf_fib_lookup, btf_maps::PerCpuArray, macros::btf_map, programs::TcContext};
use bytemuck::must_cast;
use proxy_common::{
    Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Frontend, Network, PacketHook, Protocol,
    packet::{
        self, Fragment, Segment, Transport,
        answer::UnreachableV6,
        error::{ICMP, ICMPV6},
        network::{self, V4, V6},
        transport::{self, Tcp, Udp},
    },
};

use super::{
    DROP, PASS,
    flows::Seconds,
    skb::{Skb, Version},
};
use crate::tables::FRAGMENTS;

/// What is known of the packet at hand. It stands in a map, one for each processor, and not on the stack, which has 512
/// bytes for a program with everything that it calls. Programs at TC do not interrupt each other.
pub(super) struct State {
    /// Its network header.
    pub(super) network: Network,
    /// Its transport header.
    pub(super) transport: Transport,
    /// When it is.
    pub(super) seconds: Seconds,
    /// The key of its flow.
    pub(super) key: FlowKey,
    /// Its flow.
    pub(super) flow: Flow,
    /// The key that it will have at egress.
    pub(super) next: FlowKey,
    /// The flow of that.
    pub(super) beyond: Flow,
    /// What the routes are asked.
    pub(super) lookup: bpf_fib_lookup,
    /// The frontend that a flow begins with.
    pub(super) frontend: Frontend,
    /// The endpoint for a flow that begins.
    pub(super) endpoint: Endpoint,
    /// The longest of the answers to a packet that is refused.
    pub(super) answer: UnreachableV6,
}

const WORDS: usize = size_of::<State>().div_ceil(8);

/// Of each processor.
#[btf_map]
static STATE: PerCpuArray<[u64; WORDS], 1> = PerCpuArray::new();

/// The processor's.
#[inline(always)]
pub(super) fn state<'a>() -> Option<&'a mut State> {
    let words = STATE.get_ptr_mut(0)?;
    // SAFETY: as long and as aligned as a state, and nobody else's while the program runs; any bytes are
    // a state but for an enumeration's, which is written before it is read.
    Some(unsafe { &mut *words.cast::<State>() })
}

/// What a packet is.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Arriving {
    /// Nothing that could be of a flow.
    Other,
    /// Maybe an error that quotes a packet.
    Control,
    /// A later fragment of a datagram of which nothing is known.
    Late,
    /// A packet with ports.
    Packet,
}

/// Reads the headers. What they say is left in `state`, with the key of a packet's flow.
#[inline(always)]
pub(super) fn read<const LINK: u32>(skb: &Skb<'_>, hook: PacketHook, state: &mut State) -> Arriving {
    let Some(version) = skb.version() else { return Arriving::Other };
    if read_plain::<LINK>(skb, version, hook, state).is_some() {
        return Arriving::Packet;
    }
    read_any::<LINK>(skb, hook, state)
}

/// Reads the headers of a packet as nearly all are: whole, no options, TCP or UDP, the headers in one piece. Without a
/// call of a helper, each of which costs as much as a fifth of a table lookup.
#[inline(always)]
fn read_plain<const LINK: u32>(
    skb: &Skb<'_>,
    version: Version,
    hook: PacketHook,
    state: &mut State,
) -> Option<()> {
    let (network, length) = match version {
        Version::V4 => (skb.head::<V4>(LINK)?.plain(LINK)?, size_of::<V4>()),
        Version::V6 => (skb.head::<V6>(LINK)?.plain(LINK)?, size_of::<V6>()),
    };
    let offset = LINK + length as u32;
    let transport = if network.protocol == Protocol::Tcp as u8 {
        skb.head::<Tcp>(offset)?.transport()
    } else if network.protocol == Protocol::Udp as u8 {
        skb.head::<Udp>(offset)?.transport()
    } else {
        return None;
    };
    state.key = flow_key(hook, &network, &transport);
    state.network = network;
    state.transport = transport;
    Some(())
}

/// Reads the headers of any packet.
#[inline(never)]
fn read_any<const LINK: u32>(skb: &Skb<'_>, hook: PacketHook, state: &mut State) -> Arriving {
    let State { network, transport, key, .. } = state;
    let parsed = match skb.version() {
        Some(Version::V4) => network::parse_v4(skb, LINK),
        Some(Version::V6) => network::parse_v6(skb, LINK),
        None => return Arriving::Other,
    };
    let Some(parsed) = parsed else { return Arriving::Other };
    *network = parsed;
    if matches!(network.protocol, ICMP | ICMPV6) {
        return Arriving::Control;
    }
    if matches!(network.fragment, Fragment::Later) {
        let Some(ports) = recall(network, hook) else { return Arriving::Late };
        *transport =
            Transport { source: ports.source, destination: ports.destination, segment: Segment::LATER };
        *key = flow_key(hook, network, transport);
        return Arriving::Packet;
    }
    match transport::parse(skb, network.transport, network.protocol) {
        Some(parsed) => {
            *transport = parsed;
            *key = flow_key(hook, network, transport);
            Arriving::Packet
        }
        None => Arriving::Other,
    }
}

#[inline(always)]
fn flow_key(hook: PacketHook, network: &Network, transport: &Transport) -> FlowKey {
    let (source, destination) =
        ((network.source, transport.source), (network.destination, transport.destination));
    FlowKey::new(hook, network.protocol, source, destination)
}

#[inline(always)]
fn fragment_key(network: &Network, hook: PacketHook) -> FragmentKey {
    FragmentKey {
        source: network.source,
        destination: network.destination,
        identification: network.identification,
        protocol: network.protocol,
        hook: hook as u8,
        padding: 0,
    }
}

/// Keeps the ports of a first fragment that is translated, for the later ones.
#[inline(never)]
fn remember(network: &Network, transport: Transport, hook: PacketHook) {
    let key = fragment_key(network, hook);
    let ports = FragmentPorts {
        source: transport.source,
        destination: transport.destination,
        fingerprint: key.fingerprint(),
    };
    // A full LRU makes room; without the entry the later fragments are lost, and the datagram with them.
    let _ = FRAGMENTS.insert(&key, &ports, 0);
}

#[inline(never)]
fn recall(network: &Network, hook: PacketHook) -> Option<FragmentPorts> {
    let key = fragment_key(network, hook);
    // SAFETY: the value of FRAGMENTS is one aligned word.
    let word = unsafe { FRAGMENTS.get_ptr(&key)?.cast::<u64>().read_volatile() };
    let ports: FragmentPorts = must_cast(word);
    if ports.fingerprint == key.fingerprint() { Some(ports) } else { None }
}

/// Puts in place what the flow says: a destination at ingress, a source at egress.
#[inline(always)]
pub(super) fn rewrite(ctx: &TcContext, state: &State, hook: PacketHook) -> i32 {
    let State { network, transport, flow, .. } = state;
    if matches!(network.fragment, Fragment::First) {
        remember(network, *transport, hook);
    }
    match packet::rewrite(&mut Skb(ctx), network, transport, hook.side(), (flow.address, flow.port)) {
        Some(()) => PASS,
        None => DROP,
    }
}
