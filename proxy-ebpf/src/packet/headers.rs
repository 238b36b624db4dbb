//! The headers of a packet, as ingress and egress parse them. Only the first fragment of a datagram has ports;
//! later ones get theirs from FRAGMENTS, where the first one left them.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup},
    btf_maps::PerCpuArray,
    macros::btf_map,
    programs::TcContext,
};
use bytemuck::must_cast;
use proxy_common::{
    Address, Endpoint, Found, FragmentKey, FragmentPorts, Network, PacketHook, Port, Protocol, Tuple,
    connection::{Draft, Ends, Origin, PortOwners},
    packet::{
        self, Fragment, Numbers, Segment, Transport,
        answer::UnreachableV6,
        error::{ICMP, ICMPV6, Quoted},
        network::{self, V4, V6},
        transport::{self, Tcp, Udp},
    },
};

use super::{
    DROP, ETHERNET, NONE, PASS,
    clock::Seconds,
    skb::{Skb, Version},
};
use crate::tables::FRAGMENTS;

/// Working data for the current packet. It is in a per-processor map, since the stack has 512 bytes for a program
/// and everything that it calls. Programs at TC do not interrupt each other.
pub(super) struct State {
    pub(super) network: Network,
    pub(super) transport: Transport,
    pub(super) seconds: Seconds,
    /// Its 5-tuple.
    pub(super) tuple: Tuple,
    /// First half of its record.
    pub(super) ends: Ends,
    /// Second half of its record.
    pub(super) origin: Origin,
    /// The owners of a source port.
    pub(super) owners: PortOwners,
    /// Its tuple between ingress and egress, for the route lookup.
    pub(super) routed: Tuple,
    /// Arguments and result of the route lookup.
    pub(super) lookup: bpf_fib_lookup,
    /// The connection that begins with it, or the error that it is.
    pub(super) begin: Beginning,
}

/// Working data for a connection that begins, and for ICMP errors.
pub(super) struct Beginning {
    pub(super) draft: Draft,
    pub(super) frontend: Found,
    pub(super) endpoint: Endpoint,
    /// 1 if affinity chose the endpoint.
    pub(super) remembered: u32,
    /// Flags of the device at which it begins ([`proxy_common::Interface`]).
    pub(super) device: u32,
    /// Space for the longest answer to a refused packet.
    pub(super) answer: UnreachableV6,
    /// The packet that an error quotes.
    pub(super) quoted: Quoted,
}

const WORDS: usize = size_of::<State>().div_ceil(8);

#[btf_map]
static STATE: PerCpuArray<[u64; WORDS], 1> = PerCpuArray::new();

/// The state of this processor.
#[inline(always)]
pub(super) fn state<'a>() -> Option<&'a mut State> {
    let words = STATE.get_ptr_mut(0)?;
    // SAFETY: the element has the size and alignment of a state, and nothing else uses it while the program runs;
    // any bytes are a valid state, except for enumerations, which are written before they are read.
    Some(unsafe { &mut *words.cast::<State>() })
}

/// The kind of a packet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Kind {
    /// It cannot belong to a connection.
    Other,
    /// ICMP: it may be an error that quotes a packet.
    Control,
    /// A later fragment of a datagram whose ports are unknown.
    Late,
    /// A packet with known ports.
    Packet,
}

/// Parses the headers into `state`.
#[inline(always)]
pub(super) fn read<const LINK: u32>(skb: &Skb<'_>, hook: PacketHook, state: &mut State) -> Kind {
    let Some(version) = skb.version() else { return Kind::Other };
    if read_plain::<LINK>(skb, version, state).is_some() {
        return Kind::Packet;
    }
    Kind::of(read_any_headers(skb.0.skb.skb, LINK, hook as u32))
}

/// Parses the headers of a typical packet: unfragmented, no options, TCP or UDP, headers in the linear part. Calls
/// no helper, each of which costs as much as a fifth of a table lookup.
#[inline(always)]
fn read_plain<const LINK: u32>(skb: &Skb<'_>, version: Version, state: &mut State) -> Option<()> {
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
    state.tuple = tuple(&network, &transport);
    state.network = network;
    state.transport = transport;
    Some(())
}

/// Parses the headers of any packet; returns a [`Kind`]. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_any_headers(skb: *mut __sk_buff, link: u32, hook: u32) -> u32 {
    let (ctx, Some(state)) = (&TcContext::new(skb), state()) else { return Kind::Other as u32 };
    let offset = if link == ETHERNET { ETHERNET } else { NONE };
    let hook = if hook == PacketHook::Egress as u32 { PacketHook::Egress } else { PacketHook::Ingress };
    read_any(&Skb(ctx), offset, hook, state) as u32
}

#[inline(always)]
fn read_any(skb: &Skb<'_>, offset: u32, hook: PacketHook, state: &mut State) -> Kind {
    let State { network, transport, tuple: of_packet, .. } = state;
    let parsed = match skb.version() {
        Some(Version::V4) => network::parse_v4(skb, offset),
        Some(Version::V6) => network::parse_v6(skb, offset),
        None => return Kind::Other,
    };
    let Some(parsed) = parsed else { return Kind::Other };
    *network = parsed;
    if matches!(network.protocol, ICMP | ICMPV6) {
        return Kind::Control;
    }
    if network.protocol != Protocol::Tcp as u8 && network.protocol != Protocol::Udp as u8 {
        return Kind::Other;
    }
    if matches!(network.fragment, Fragment::Later) {
        let Some(ports) = recall(network, hook) else { return Kind::Late };
        *transport = Transport {
            source: ports.source,
            destination: ports.destination,
            segment: Segment::LATER,
            numbers: Numbers::default(),
        };
        *of_packet = tuple(network, transport);
        return Kind::Packet;
    }
    match transport::parse(skb, network.transport, network.protocol) {
        Some(parsed) => {
            *transport = parsed;
            *of_packet = tuple(network, transport);
            Kind::Packet
        }
        None => Kind::Other,
    }
}

impl Kind {
    /// The kind that a step returned.
    #[inline(always)]
    const fn of(code: u32) -> Self {
        const CONTROL: u32 = Kind::Control as u32;
        const LATE: u32 = Kind::Late as u32;
        const PACKET: u32 = Kind::Packet as u32;
        match code {
            CONTROL => Self::Control,
            LATE => Self::Late,
            PACKET => Self::Packet,
            _ => Self::Other,
        }
    }
}

#[inline(always)]
fn tuple(network: &Network, transport: &Transport) -> Tuple {
    let (source, destination) =
        ((network.source, transport.source), (network.destination, transport.destination));
    Tuple::new(network.protocol, source, destination)
}

#[inline(always)]
fn fragment_key(network: &Network, tuple: &Tuple, hook: PacketHook) -> FragmentKey {
    FragmentKey {
        source: tuple.source,
        destination: tuple.destination,
        identification: network.identification,
        protocol: network.protocol,
        hook: hook as u8,
        padding: 0,
    }
}

/// Stores the ports of a first fragment for the later ones.
#[inline(never)]
pub(super) fn remember(network: &Network, tuple: &Tuple, hook: PacketHook) {
    let key = fragment_key(network, tuple, hook);
    let ports = FragmentPorts {
        source: tuple.source_port,
        destination: tuple.destination_port,
        fingerprint: key.fingerprint(),
    };
    // A full LRU makes room. If the insertion fails, the later fragments have no ports, and the datagram is lost.
    let _ = FRAGMENTS.insert(&key, &ports, 0);
}

#[inline(never)]
fn recall(network: &Network, hook: PacketHook) -> Option<FragmentPorts> {
    let tuple = Tuple::new(network.protocol, (network.source, Port::NONE), (network.destination, Port::NONE));
    let key = fragment_key(network, &tuple, hook);
    // SAFETY: the value of FRAGMENTS is one aligned word.
    let word = unsafe { FRAGMENTS.get_ptr(&key)?.cast::<u64>().read_volatile() };
    let ports: FragmentPorts = must_cast(word);
    if ports.fingerprint == key.fingerprint() { Some(ports) } else { None }
}

/// Rewrites both addresses and ports of a packet of a remapped connection, whose record is in the state: to the endpoint at
/// ingress, to the client at egress. A step: see [`super`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn remap(skb: *mut __sk_buff, hook: u32) -> i32 {
    let Some(State { network, transport, tuple, ends, origin, routed, .. }) = state() else { return DROP };
    let ctx = TcContext::new(skb);
    let (source, destination) = if hook == PacketHook::Ingress as u32 {
        let source = ends.inside(origin);
        *routed = Tuple::new(tuple.protocol, source, ends.to());
        (source, ends.to())
    } else {
        if matches!(network.fragment, Fragment::First) {
            remember(network, tuple, PacketHook::Egress);
        }
        (ends.asked(), ends.from())
    };
    match packet::rewrite_both(&mut Skb(&ctx), network, transport, source, destination) {
        Some(()) => PASS,
        None => DROP,
    }
}

/// Rewrites address and port: of the destination at ingress, of the source at egress.
#[inline(always)]
pub(super) fn rewrite(ctx: &TcContext, state: &mut State, hook: PacketHook, new: (Address, Port)) -> i32 {
    let State { network, transport, tuple, routed, .. } = state;
    if matches!(hook, PacketHook::Ingress) {
        *routed = Tuple::new(tuple.protocol, (tuple.source, tuple.source_port), new);
    } else if matches!(network.fragment, Fragment::First) {
        remember(network, tuple, hook);
    }
    match packet::rewrite(&mut Skb(ctx), network, transport, hook.side(), new) {
        Some(()) => PASS,
        None => DROP,
    }
}
