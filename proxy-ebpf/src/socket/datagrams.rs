//! DATAGRAMS: the other peers of a UDP socket, which it names in each datagram or was connected to before.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Address, Datagrams, FrontendKey, NodeEvent, OverflowKey, Port, Translation};

use super::overflow;
use crate::{count, tables::DATAGRAMS};

/// The socket's record.
#[inline(always)]
pub(super) fn record(ctx: &SockAddrContext) -> Option<&mut Datagrams> {
    // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
    unsafe { DATAGRAMS.get_ptr_mut(ctx).as_mut() }
}

/// The translation that this socket, or another one of its port, has for datagrams to `destination`.
#[inline(always)]
pub(super) fn find<'a>(ctx: &'a SockAddrContext, destination: &FrontendKey) -> Option<&'a Translation> {
    let mut has_overflowed = false;
    if let Some(datagrams) = record(ctx) {
        for (index, entry) in datagrams.entries.iter_mut().enumerate() {
            if entry.is_from(&destination.address, destination.port) {
                datagrams.latest = index as u32;
                entry.mark = 0;
                return Some(entry);
            }
        }
        has_overflowed = datagrams.evicted != 0;
    }
    let translation = overflow::OfPort::new(ctx, has_overflowed)?.get(
        &destination.address,
        destination.port,
        OverflowKey::BY_FRONTEND,
    )?;
    // Back among the latest: the answer may come from an endpoint that several Services share. The element of OVERFLOW
    // may be reused, this copy may not.
    let entry = store(ctx, translation)?;
    if !overflow::is_whole(entry) {
        entry.frontend_port = Port::NONE;
        return None;
    }
    entry.mark = 0;
    Some(entry)
}

/// What the process asked for, if a datagram from `address` and `port` answers it.
#[inline(always)]
pub(super) fn name(datagrams: &Datagrams, address: &Address, port: Port) -> Option<(Address, Port)> {
    // Two Services may lead to one endpoint: the one that was asked last goes first.
    let latest = entry(datagrams, datagrams.latest);
    if latest.names(address, port) {
        return Some((latest.frontend, latest.frontend_port));
    }
    for entry in &datagrams.entries {
        if entry.names(address, port) {
            return Some((entry.frontend, entry.frontend_port));
        }
    }
    None
}

/// Records a translation that was made for this socket; other sockets of its port find it too.
#[inline(always)]
pub(super) fn remember(ctx: &SockAddrContext, translation: &Translation) {
    if store(ctx, translation).is_none() || overflow::has_siblings(ctx) {
        overflow::share(ctx, translation);
    }
}

/// Puts a translation over the old one for the same address, else into a free entry, else in place of the oldest, which
/// moves to OVERFLOW. Nothing if the kernel has no memory for the record.
#[inline(never)]
pub(super) fn store<'a>(ctx: &'a SockAddrContext, translation: &Translation) -> Option<&'a mut Translation> {
    // SAFETY: as in `record`; a null initial value asks for zeros, which is `Datagrams::EMPTY`.
    let Some(datagrams) = (unsafe { DATAGRAMS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else {
        count::event(NodeEvent::UnrecordedSocket);
        return None;
    };
    let mut free = None;
    for (index, entry) in datagrams.entries.iter().enumerate() {
        if entry.is_from(&translation.frontend, translation.frontend_port) {
            free = Some(index as u32);
            break;
        }
        if !entry.is_used() && free.is_none() {
            free = Some(index as u32);
        }
    }
    let index = free.unwrap_or_else(|| {
        let oldest = datagrams.evicted;
        overflow::evict(ctx, entry(datagrams, oldest));
        datagrams.evicted = oldest.wrapping_add(1);
        oldest
    });
    datagrams.latest = index & MASK;
    let entry = entry_mut(datagrams, index);
    *entry = *translation;
    Some(entry)
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
