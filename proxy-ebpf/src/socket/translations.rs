//! A socket's translations, over all that may hold them: PEERS for TCP; SOCKETS and DATAGRAMS for UDP; OVERFLOW for what
//! these cannot hold.
//!
//! A record is moved, not overwritten: a UDP socket that is connected to something else keeps its old peer's record in
//! DATAGRAMS. So an answer that was queued before is named right, and so is the peer if the kernel refuses the new
//! connect after the hook. The record that applies is the one that leads to the address in front of the hook.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use proxy_common::{Address, FrontendKey, NodeEvent, Port, Protocol, Translation};

use super::{connected, context::is_connected_to, datagrams, overflow};

use crate::{count, tables::NAMESPACES};

/// Records that the socket is about to be connected as the translation says.
#[inline(always)]
pub(super) fn connect(ctx: &SockAddrContext, protocol: u8, translation: &Translation) {
    if protocol == Protocol::Udp as u8 {
        connect_udp(ctx, translation);
    } else {
        record_connected(ctx, translation);
    }
}

/// Records that the UDP socket is about to be connected as in a record of its own, by [its number](datagrams::numbered);
/// `false` if the kernel has no memory for that.
#[inline(always)]
pub(super) fn connect_kept(ctx: &SockAddrContext, number: u32) -> bool {
    if number == datagrams::PEER {
        // Nothing to write: it was connected to this endpoint last.
        use_connected(ctx);
        overflow::refresh(ctx, number);
        return true;
    }
    let Some(known) = datagrams::numbered(ctx, number) else { return false };
    // A copy, for the old peer's record may take its place.
    let known = *known;
    connect_udp(ctx, &known);
    connected::record(ctx).is_some()
}

#[inline(always)]
fn connect_udp(ctx: &SockAddrContext, translation: &Translation) {
    if connected::record(ctx).is_some_and(|record| !record.is_same(translation)) {
        datagrams::retire(ctx);
    }
    record_connected(ctx, translation);
    use_connected(ctx);
    // When the socket is connected elsewhere, the others of its port may get answers that are still under way.
    overflow::share_with_siblings(ctx, datagrams::PEER);
    // Sends on a connected socket reach no hook: when the endpoint goes, the agent comes for it.
    enter_namespace(ctx);
}

/// Puts the connected peer into SOCKETS, or where the kernel has no memory for that, into OVERFLOW.
#[inline(never)]
fn record_connected(ctx: &SockAddrContext, translation: &Translation) {
    if !connected::write(ctx, translation) {
        count::event(NodeEvent::UnrecordedSocket);
        overflow::remember_connected(ctx, translation);
    }
}

/// The UDP socket is about to be connected to something that is no Service's.
#[inline(always)]
pub(super) fn disconnect(ctx: &SockAddrContext, destination: &FrontendKey) {
    datagrams::retire(ctx);
    ask_directly(ctx, destination);
    // A socket without a record is not known to have been connected to a Service, and needs none.
    if let Some(record) = connected::record(ctx) {
        *record = Translation::direct(destination);
        use_connected(ctx);
    } else {
        overflow::forget_connected(ctx, &destination.address, destination.port);
    }
}

/// A datagram of an unconnected socket goes to an address that is no Service's: if it is that of an endpoint which the
/// socket also asked through a Service, what comes from there answers this datagram.
///
/// `io_uring`, which sends a datagram again with the address that the hook put in, looks the same.
#[inline(always)]
fn ask_directly(ctx: &SockAddrContext, destination: &FrontendKey) {
    let (address, port) = (&destination.address, destination.port);
    if let Some(record) = connected::record(ctx) {
        rename(record, address, port);
    }
    let mut has_overflowed = false;
    if let Some(datagrams) = datagrams::record(ctx) {
        for entry in &mut datagrams.entries {
            rename(entry, address, port);
        }
        has_overflowed = datagrams.evicted != 0;
    }
    if let Some(shared) = overflow::OfPort::new(ctx, has_overflowed) {
        shared.unname(address, port);
    }
}

/// Answers from `address` and `port` are not named by this record any more. A direct peer's name is its own.
#[inline(always)]
fn rename(record: &mut Translation, address: &Address, port: Port) {
    if record.is_to(address, port) && !record.is_direct() {
        record.mark |= Translation::RENAMED;
    }
}

/// A datagram goes to an address that is no Service's.
#[inline(always)]
pub(super) fn send_directly(ctx: &SockAddrContext, destination: &FrontendKey) {
    // IPv6 sockets name their IPv4 peer in each datagram, be it a Service's endpoint.
    if !is_connected_through_service(ctx, destination) {
        ask_directly(ctx, destination);
    }
}

/// Whether a UDP socket is connected to `peer` because it asked for a Service.
#[inline(always)]
fn is_connected_through_service(ctx: &SockAddrContext, peer: &FrontendKey) -> bool {
    is_connected_to(ctx, &peer.address, peer.port)
        && name_of_peer(ctx, &peer.address, peer.port)
            .is_some_and(|(address, port)| port != peer.port || address.words() != peer.address.words())
}

/// [The number](datagrams::numbered) of the translation that a UDP socket has for `destination`, whether it was connected or
/// sent there: the youngest one, if its endpoint serves.
#[inline(always)]
pub(super) fn kept(ctx: &SockAddrContext, destination: &FrontendKey, service: u32) -> Option<u32> {
    let mut found = None;
    let mut age = u32::MAX;
    let mut has_overflowed = false;
    let record = connected::record(ctx).filter(|record| record.is_served(destination));
    if let Some(datagrams) = datagrams::record(ctx) {
        has_overflowed = datagrams.evicted != 0;
        if let Some(youngest) = datagrams.youngest(|entry| entry.is_served(destination)) {
            age = youngest.age;
            found = Some(datagrams::number(youngest.entry));
        }
        if let Some(record) = record
            && datagrams.age(record) <= age
        {
            found = Some(datagrams::PEER);
        }
    } else if record.is_some() {
        found = Some(datagrams::PEER);
    }
    match found {
        Some(number) => {
            let record = datagrams::numbered(ctx, number)?;
            datagrams::serves(record, service).then_some(number)
        }
        None => datagrams::find_in_overflow(ctx, destination, service, has_overflowed),
    }
}

/// The time on the socket's clock, at which `record` is used: the clock counts only uses of other records than the last.
#[inline(always)]
fn now(ctx: &SockAddrContext, record: &Translation) -> u16 {
    let Some(datagrams) = datagrams::record(ctx) else { return 0 };
    if datagrams.age(record) == 0 { datagrams.clock as u16 } else { datagrams::tick(ctx, datagrams) }
}

/// The socket sends a datagram by a record of its own, by [its number](datagrams::numbered). If that leads to the peer
/// that the socket is connected to by another name, the answers go by the peer's: the kernel takes them as its.
#[inline(always)]
pub(super) fn send_by(ctx: &SockAddrContext, number: u32) {
    let Some(record) = datagrams::numbered(ctx, number) else { return };
    let (address, port) = (record.endpoint_address, record.endpoint_port);
    if is_connected_to(ctx, &address, port)
        && name_of_peer(ctx, &address, port).is_none_or(|(address, port)| !record.is_from(&address, port))
    {
        record.mark |= Translation::RENAMED;
    } else {
        record.mark = now(ctx, record) | record.mark & Translation::CONNECTED;
    }
    overflow::refresh(ctx, number);
}

/// Records a translation that was made for a datagram of this socket.
#[inline(always)]
pub(super) fn send_first(ctx: &SockAddrContext, translation: &mut Translation) {
    if is_connected_to(ctx, &translation.endpoint_address, translation.endpoint_port) {
        translation.mark = Translation::RENAMED;
    }
    datagrams::remember(ctx, translation);
}

/// The record of the connected peer, if the process asked for `destination`.
#[inline(always)]
pub(super) fn connected_peer(
    ctx: &SockAddrContext,
    destination: &FrontendKey,
) -> Option<&'static Translation> {
    let record = connected::record(ctx)?;
    record.is_from(&destination.address, destination.port).then_some(record)
}

/// The record of the connected peer is the one that was used last.
#[inline(always)]
fn use_connected(ctx: &SockAddrContext) {
    if let Some(record) = connected::record(ctx) {
        let mark = datagrams::record(ctx).map_or(0, |datagrams| datagrams::tick(ctx, datagrams));
        record.mark = mark | Translation::CONNECTED;
    }
}

/// What the process asked for, if a datagram from `address` and `port` answers it.
#[inline(always)]
pub(super) fn name_of_sender(
    ctx: &SockAddrContext,
    address: &Address,
    port: Port,
) -> Option<(Address, Port)> {
    // The kernel takes answers from the connected peer alone; from others are those that were waiting.
    if is_connected_to(ctx, address, port) {
        return name_of_peer(ctx, address, port);
    }
    let record = connected::record(ctx).filter(|record| record.names(address, port));
    let mut has_overflowed = false;
    if let Some(datagrams) = datagrams::record(ctx) {
        // Several Services may lead to one endpoint: the one that was asked last goes first.
        if let Some(youngest) = datagrams.youngest(|entry| entry.names(address, port))
            && record.as_ref().is_none_or(|record| youngest.age < datagrams.age(record))
        {
            return Some(datagrams::name(datagrams, youngest));
        }
        has_overflowed = datagrams.evicted != 0;
    }
    if let Some(record) = record {
        return Some((record.frontend, record.frontend_port));
    }
    if let Some(shared) = overflow::OfPort::new(ctx, has_overflowed)
        && let Some(name) = shared.name(address, port)
    {
        return Some(name);
    }
    overflow::connected(ctx, address, port)
}

/// What the process asked for, if the socket is connected to `address` and `port` because of it.
#[inline(always)]
pub(super) fn name_of_peer(ctx: &SockAddrContext, address: &Address, port: Port) -> Option<(Address, Port)> {
    let Some(record) = connected::record(ctx) else { return overflow::connected(ctx, address, port) };
    if record.is_to(address, port) {
        return Some((record.frontend, record.frontend_port));
    }
    // The last connect has failed: the peer is one from before it.
    let datagrams = datagrams::record(ctx)?;
    let youngest = datagrams.youngest(|entry| entry.connected(address, port))?;
    Some(datagrams::name(datagrams, youngest))
}

/// Records that this socket's namespace has connected UDP sockets that were translated.
#[inline(never)]
fn enter_namespace(ctx: &SockAddrContext) {
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if NAMESPACES.get_ptr(&cookie).is_none() && NAMESPACES.insert(&cookie, &0, 0).is_err() {
        count::event(NodeEvent::UntrackedNamespace);
    }
}

/// Whether the agent has marked this TCP socket as one of its own, to be left alone. A lookup in the socket itself,
/// asked only of connections to Services.
#[inline(always)]
pub(super) fn is_bypassed(ctx: &SockAddrContext, protocol: u8) -> bool {
    protocol == Protocol::Tcp as u8 && connected::record(ctx).is_some_and(|record| record.is_bypass())
}
