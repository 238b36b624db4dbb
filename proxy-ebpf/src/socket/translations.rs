//! A socket's translations: SOCKETS for the connected peer, DATAGRAMS for peers of unconnected UDP, and OVERFLOW for
//! the sockets that talk to more Services than DATAGRAMS holds.
//!
//! TCP sockets use the cheaper `peers` and come here only when their element there is taken. The two storages are
//! separate because size is cost: 48 bytes and 200 bytes.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use proxy_common::{Address, Datagrams, FrontendKey, NodeEvent, OverflowKey, Port, Protocol, Translation};

use super::peers;

use crate::{
    count,
    tables::{DATAGRAMS, NAMESPACES, OVERFLOW, SOCKETS},
};

/// Records the connected peer.
#[inline(always)]
pub(super) fn remember_connected(ctx: &SockAddrContext, protocol: u8, mut translation: Translation) {
    if protocol == Protocol::Tcp as u8 && peers::occupy(ctx, &translation.frontend, translation.frontend_port)
    {
        return;
    }
    // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
    unsafe {
        if let Some(record) = SOCKETS.get_ptr_mut(ctx).as_mut() {
            *record = translation;
            return;
        }
        if SOCKETS.get_or_insert_ptr_mut(ctx, Some(&mut translation)).is_null() {
            count::event(NodeEvent::UnrecordedSocket);
        }
    }
    if protocol == Protocol::Udp as u8 {
        // Sends on a connected socket reach no hook: when the endpoint goes, the agent comes for it.
        remember_namespace(ctx);
    }
}

/// Records that this socket's namespace has connected UDP sockets that were translated.
#[inline(always)]
fn remember_namespace(ctx: &SockAddrContext) {
    // SAFETY: the helper takes the program's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if NAMESPACES.get_ptr(&cookie).is_none() && NAMESPACES.insert(&cookie, &0, 0).is_err() {
        count::event(NodeEvent::UntrackedNamespace);
    }
}

/// Forgets the connected peer, if there is one: the socket is being connected to something else.
#[inline(always)]
pub(super) fn forget_connected(ctx: &SockAddrContext, protocol: u8) {
    if protocol == Protocol::Tcp as u8 {
        peers::vacate(ctx);
    }
    // SAFETY: as in `remember_connected`.
    unsafe {
        let record = SOCKETS.get_ptr_mut(ctx);
        if !record.is_null() {
            (*record).frontend_port = Port::NONE;
        }
    }
}

/// Whether the agent has marked this TCP socket as one of its own, to be left alone. A lookup in the socket itself,
/// asked only of connections to Services.
#[inline(always)]
pub(super) fn is_bypassed(ctx: &SockAddrContext, protocol: u8) -> bool {
    // SAFETY: as in `remember_connected`.
    protocol == Protocol::Tcp as u8
        && unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() }.is_some_and(Translation::is_bypass)
}

/// The connected peer's translation, if the program asked for `destination`.
#[inline(always)]
pub(super) fn connected_peer(ctx: &SockAddrContext, destination: &FrontendKey) -> Option<Translation> {
    // SAFETY: as in `remember_connected`.
    let record = unsafe { SOCKETS.get_ptr_mut(ctx).as_ref()? };
    record.is_from(&destination.address, destination.port).then_some(*record)
}

/// What the program asked for, if the connected peer is the one at `address` and `port`.
#[inline(always)]
pub(super) fn connected_frontend(
    ctx: &SockAddrContext,
    address: &Address,
    port: Port,
) -> Option<(Address, Port)> {
    // SAFETY: as in `remember_connected`.
    unsafe {
        let record = SOCKETS.get_ptr_mut(ctx);
        if !record.is_null() && (*record).is_to(address, port) {
            Some(((*record).frontend, (*record).frontend_port))
        } else {
            None
        }
    }
}

/// The translation that this socket has for datagrams to `destination`.
#[inline(always)]
pub(super) fn datagram_peer(ctx: &SockAddrContext, destination: &FrontendKey) -> Option<Translation> {
    // SAFETY: as in `remember_connected`.
    let datagrams = unsafe { DATAGRAMS.get_ptr_mut(ctx).as_mut()? };
    for (index, entry) in datagrams.entries.iter().enumerate() {
        if entry.is_from(&destination.address, destination.port) {
            datagrams.latest = index as u32;
            return Some(*entry);
        }
    }
    if datagrams.evicted == 0 {
        return None;
    }
    let mut translation = overflowed(ctx, &destination.address, destination.port, OverflowKey::BY_FRONTEND)?;
    // Back among the latest: the answer may come from an endpoint that several Services share.
    translation.checksum = 0;
    remember_datagram(ctx, &translation);
    Some(translation)
}

/// What the program asked for, if a datagram from `address` and `port` answers it.
#[inline(always)]
pub(super) fn datagram_frontend(
    ctx: &SockAddrContext,
    address: &Address,
    port: Port,
) -> Option<(Address, Port)> {
    // SAFETY: as in `remember_connected`.
    let datagrams = unsafe { DATAGRAMS.get_ptr_mut(ctx).as_ref()? };
    // Two Services may lead to one endpoint: the one that was asked last goes first.
    let latest = entry(datagrams, datagrams.latest);
    if latest.is_to(address, port) {
        return Some((latest.frontend, latest.frontend_port));
    }
    for entry in &datagrams.entries {
        if entry.is_to(address, port) {
            return Some((entry.frontend, entry.frontend_port));
        }
    }
    if datagrams.evicted == 0 {
        return None;
    }
    let translation = overflowed(ctx, address, port, OverflowKey::BY_ENDPOINT)?;
    Some((translation.frontend, translation.frontend_port))
}

/// Records a translation for datagrams: over the old one for the same address, else in a free entry, else
/// in place of the oldest, which moves to OVERFLOW.
#[inline(always)]
pub(super) fn remember_datagram(ctx: &SockAddrContext, translation: &Translation) {
    // SAFETY: as in `remember_connected`; a null initial value asks for zeros, which is `Datagrams::EMPTY`.
    let Some(datagrams) = (unsafe { DATAGRAMS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else {
        count::event(NodeEvent::UnrecordedSocket);
        return;
    };
    let mut place = None;
    for (index, entry) in datagrams.entries.iter().enumerate() {
        if entry.is_from(&translation.frontend, translation.frontend_port) {
            place = Some(index as u32);
            break;
        }
        if entry.frontend_port == Port::NONE && place.is_none() {
            place = Some(index as u32);
        }
    }
    let place = place.unwrap_or_else(|| {
        let oldest = datagrams.evicted;
        evict(ctx, entry_mut(datagrams, oldest));
        datagrams.evicted = oldest.wrapping_add(1);
        oldest
    });
    *entry_mut(datagrams, place) = *translation;
    datagrams.latest = place % Datagrams::LEN as u32;
}

const _: () = assert!(Datagrams::LEN.is_power_of_two());
const MASK: u32 = Datagrams::LEN as u32 - 1;

#[inline(always)]
fn entry(datagrams: &Datagrams, index: u32) -> &Translation {
    // SAFETY: the masked index is within the array; `get` would leave a bounds check that the verifier
    // cannot see through.
    unsafe { datagrams.entries.get_unchecked((index & MASK) as usize) }
}

#[inline(always)]
fn entry_mut(datagrams: &mut Datagrams, index: u32) -> &mut Translation {
    // SAFETY: as in `entry`.
    unsafe { datagrams.entries.get_unchecked_mut((index & MASK) as usize) }
}

/// Moves a translation to OVERFLOW, under the address asked for and under the one given.
///
/// Value and keys are used where they are: the stack has no room for copies.
#[inline(always)]
fn evict(ctx: &SockAddrContext, translation: &mut Translation) {
    translation.checksum = translation.checksum();
    // The LRU makes room; should it fail all the same, the next datagram chooses again.
    let mut key =
        overflow_key(ctx, &translation.frontend, translation.frontend_port, OverflowKey::BY_FRONTEND);
    let _ = OVERFLOW.insert(&key, &*translation, 0);
    key.address = translation.endpoint_address;
    key.port = translation.endpoint_port;
    key.direction = OverflowKey::BY_ENDPOINT;
    let _ = OVERFLOW.insert(&key, &*translation, 0);
    count::event(NodeEvent::OverflowedSocket);
}

#[inline(always)]
fn overflowed(ctx: &SockAddrContext, address: &Address, port: Port, direction: u16) -> Option<Translation> {
    let pointer = OVERFLOW.get_ptr(&overflow_key(ctx, address, port, direction))?;
    // SAFETY: a copy of a map's value; the checksum tells whether the element was reused meanwhile.
    let translation = unsafe { *pointer };
    (translation.checksum == translation.checksum()).then_some(translation)
}

#[inline(always)]
fn overflow_key(ctx: &SockAddrContext, address: &Address, port: Port, direction: u16) -> OverflowKey {
    // SAFETY: the helper takes the program's own context.
    let socket = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    OverflowKey { socket, address: *address, port, direction, padding: 0 }
}
