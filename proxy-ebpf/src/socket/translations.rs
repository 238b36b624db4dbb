//! A socket's translations, over all that may hold them: PEERS for TCP; SOCKETS and DATAGRAMS for UDP; OVERFLOW for what
//! these cannot hold.
//!
//! A record is moved, not overwritten: a UDP socket that is connected to something else keeps its old peer's record in
//! DATAGRAMS. So an answer that was queued before is named right, and so is the peer if the kernel refuses the new
//! connect after the hook. The record that applies is the one that leads to the address in front of the hook.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use proxy_common::{Address, Datagrams, Endpoint, FrontendKey, NodeEvent, Port, Protocol, Translation};

use super::{connected, context::is_connected_to, datagrams, overflow, peers};

use crate::{count, tables::NAMESPACES};

/// Records that the socket is about to be connected to this endpoint.
#[inline(always)]
pub(super) fn connect(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint) {
    if destination.protocol != Protocol::Tcp as u8
        || !peers::occupy(ctx, &destination.address, destination.port)
    {
        connect_in_storage(ctx, destination, endpoint);
    }
}

// Functions of their own, so that the stack holds one translation at a time.

#[inline(never)]
fn connect_in_storage(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint) {
    let translation = Translation::new(destination, endpoint);
    if destination.protocol == Protocol::Udp as u8 {
        connect_udp(ctx, &translation);
    } else {
        record_connected(ctx, &translation);
    }
}

/// Records that the UDP socket is about to be connected to a Service without endpoints.
#[inline(never)]
pub(super) fn connect_unserved(ctx: &SockAddrContext, destination: &FrontendKey) {
    connect_udp(ctx, &Translation::unserved(destination));
}

/// Records that the UDP socket is about to be connected as in `known`, a record of its own.
#[inline(never)]
pub(super) fn connect_kept(ctx: &SockAddrContext, known: &Translation) {
    // A copy: the old peer's record may take its place.
    let known = *known;
    connect_udp(ctx, &known);
}

#[inline(never)]
fn connect_udp(ctx: &SockAddrContext, translation: &Translation) {
    if let Some(record) = connected::record(ctx)
        && !record.is_to(&translation.endpoint_address, translation.endpoint_port)
    {
        retire(ctx, record);
    }
    record_connected(ctx, translation);
    use_connected(ctx);
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

/// The socket is about to be connected to something that is no Service's.
#[inline(always)]
pub(super) fn disconnect(ctx: &SockAddrContext, destination: &FrontendKey) {
    if destination.protocol == Protocol::Udp as u8 {
        disconnect_udp(ctx, destination);
    } else {
        peers::vacate(ctx);
        connected::clear(ctx);
    }
}

#[inline(never)]
fn disconnect_udp(ctx: &SockAddrContext, destination: &FrontendKey) {
    let record = connected::record(ctx);
    if let Some(record) = &record {
        retire(ctx, record);
    }
    ask_directly(ctx, destination);
    // A socket without a record is not known to have been connected to a Service, and needs none.
    if let Some(record) = record {
        *record = Translation::direct(destination);
        use_connected(ctx);
    }
}

/// A datagram of an unconnected socket goes to an address that is no Service's: if it is that of an endpoint which the
/// socket also asked through a Service, what comes from there answers this datagram.
///
/// `io_uring`, which sends a datagram again with the address that the hook put in, looks the same.
#[inline(never)]
pub(super) fn ask_directly(ctx: &SockAddrContext, destination: &FrontendKey) {
    let (address, port) = (&destination.address, destination.port);
    if let Some(record) = connected::record(ctx)
        && record.is_to(address, port)
    {
        record.mark &= Translation::CONNECTED;
    }
    let mut has_overflowed = false;
    if let Some(datagrams) = datagrams::record(ctx) {
        for entry in &mut datagrams.entries {
            if entry.is_to(address, port) {
                entry.mark &= Translation::CONNECTED;
            }
        }
        has_overflowed = datagrams.evicted != 0;
    }
    if let Some(shared) = overflow::OfPort::new(ctx, has_overflowed) {
        shared.unname(address, port);
    }
}

/// Whether a connected UDP socket got its peer, at `peer`, through a Service.
#[inline(never)]
pub(super) fn is_connected_through_service(ctx: &SockAddrContext, peer: &FrontendKey) -> bool {
    name_of_peer(ctx, &peer.address, peer.port)
        .is_some_and(|(address, port)| port != peer.port || address.words() != peer.address.words())
}

/// The translation that a UDP socket has for `destination`, whether it was connected or sent there: the youngest one.
/// Whoever uses it [says so](touch).
#[inline(never)]
pub(super) fn kept(ctx: &SockAddrContext, destination: &FrontendKey) -> Option<&'static mut Translation> {
    let record = connected::record(ctx).filter(|record| record.is_served(destination));
    let Some(datagrams) = datagrams::record(ctx) else {
        return match record {
            Some(record) => Some(record),
            None => datagrams::find_in_overflow(ctx, destination, false),
        };
    };
    let youngest =
        datagrams::youngest(datagrams, |entry| entry.is_from(&destination.address, destination.port));
    if let Some(record) = record
        && youngest.is_none_or(|youngest| datagrams.age(record) <= youngest.age)
    {
        return Some(record);
    }
    match youngest {
        Some(youngest) => Some(datagrams::get(datagrams, youngest)),
        None => datagrams::find_in_overflow(ctx, destination, datagrams.evicted != 0),
    }
}

/// The socket uses a record of its own.
#[inline(never)]
pub(super) fn touch(ctx: &SockAddrContext, record: &mut Translation) {
    let mark = datagrams::record(ctx).map_or(Translation::ALONE, Datagrams::tick);
    record.mark = mark | record.mark & Translation::CONNECTED;
    overflow::refresh(ctx, record);
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

/// Keeps the record of a peer that the socket is connected to no more.
#[inline(always)]
fn retire(ctx: &SockAddrContext, record: &Translation) {
    if record.is_used() {
        datagrams::store(ctx, record);
    }
}

/// The record of the connected peer is the one that was used last.
#[inline(always)]
fn use_connected(ctx: &SockAddrContext) {
    if let Some(record) = connected::record(ctx) {
        let mark = datagrams::record(ctx).map_or(Translation::ALONE, Datagrams::tick);
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
        if let Some(youngest) = datagrams::youngest(datagrams, |entry| entry.names(address, port))
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
    let youngest = datagrams::youngest(datagrams, |entry| entry.connected(address, port))?;
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
