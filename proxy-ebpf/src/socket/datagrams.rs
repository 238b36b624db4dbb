//! DATAGRAMS: the other peers of a UDP socket, which it names in each datagram or was connected to before.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Address, Datagrams, FrontendKey, NodeEvent, OverflowKey, Port, Translation};

use super::overflow;
use crate::{count, tables::DATAGRAMS};

/// The socket's record, which lives as long as the program runs.
#[inline(always)]
pub(super) fn record(ctx: &SockAddrContext) -> Option<&'static mut Datagrams> {
    // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
    unsafe { DATAGRAMS.get_ptr_mut(ctx).as_mut() }
}

/// A record of the socket, by the number of its entry, and its age.
#[derive(Clone, Copy)]
pub(super) struct Youngest {
    entry: u32,
    pub(super) age: u32,
}

/// The youngest entry of those that are `wanted`.
#[inline(always)]
pub(super) fn youngest(datagrams: &Datagrams, wanted: impl Fn(&Translation) -> bool) -> Option<Youngest> {
    let mut found = Youngest { entry: 0, age: u32::MAX };
    for (index, entry) in datagrams.entries.iter().enumerate() {
        let age = datagrams.age(entry);
        if age < found.age && wanted(entry) {
            found = Youngest { entry: index as u32, age };
        }
    }
    (found.age != u32::MAX).then_some(found)
}

/// An entry, to be used.
#[inline(always)]
pub(super) fn get(datagrams: &mut Datagrams, found: Youngest) -> &mut Translation {
    entry_mut(datagrams, found.entry)
}

/// What the process asked for, by an entry.
#[inline(always)]
pub(super) fn name(datagrams: &Datagrams, found: Youngest) -> (Address, Port) {
    let entry = entry(datagrams, found.entry);
    (entry.frontend, entry.frontend_port)
}

/// The translation to `destination` that OVERFLOW has for this socket's port; back among the socket's own.
#[inline(always)]
pub(super) fn find_in_overflow(
    ctx: &SockAddrContext,
    destination: &FrontendKey,
    has_overflowed: bool,
) -> Option<&'static mut Translation> {
    let translation = overflow::OfPort::new(ctx, has_overflowed)?.get(
        &destination.address,
        destination.port,
        OverflowKey::BY_FRONTEND,
    )?;
    // The element of OVERFLOW may be reused, this copy may not.
    let checksum = translation.mark;
    let entry = store(ctx, translation)?;
    if checksum != entry.checksum() {
        entry.frontend_port = Port::NONE;
        return None;
    }
    // A checksum looks like any mark.
    entry.mark = Translation::ALONE;
    Some(entry)
}

/// Records a translation that was made for this socket; other sockets of its port find it too.
#[inline(always)]
pub(super) fn remember(ctx: &SockAddrContext, translation: &Translation) {
    if store(ctx, translation).is_none() || overflow::has_siblings(ctx) {
        overflow::share(ctx, translation);
    }
}

/// Puts a translation over the one with the same ends, else into a free entry, else in place of the oldest, which moves to
/// OVERFLOW. Nothing if the kernel has no memory for the record.
#[inline(never)]
pub(super) fn store(ctx: &SockAddrContext, translation: &Translation) -> Option<&'static mut Translation> {
    // SAFETY: as in `record`; a null initial value asks for zeros, which is `Datagrams::EMPTY`.
    let Some(datagrams) = (unsafe { DATAGRAMS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else {
        count::event(NodeEvent::UnrecordedSocket);
        return None;
    };
    // The oldest, where a free one is older than any, and one with the same ends older still.
    let (mut index, mut age) = (0, 0);
    for (number, entry) in datagrams.entries.iter().enumerate() {
        let is_same = entry.is_to(&translation.endpoint_address, translation.endpoint_port)
            && entry.is_from(&translation.frontend, translation.frontend_port);
        let its = match () {
            () if is_same => SAME,
            () if !entry.is_used() => FREE,
            () => datagrams.age(entry) + 1,
        };
        if its > age {
            (index, age) = (number as u32, its);
        }
    }
    if age < FREE {
        overflow::evict(ctx, entry(datagrams, index));
        datagrams.evicted = 1;
    }
    // The record of a peer that the socket was connected to keeps its age.
    let is_retired = translation.mark & Translation::CONNECTED != 0;
    let mark = if is_retired { translation.mark } else { datagrams.tick() };
    let entry = entry_mut(datagrams, index);
    let was_connected = if age == SAME { entry.mark & Translation::CONNECTED } else { 0 };
    *entry = *translation;
    entry.mark = mark | was_connected;
    Some(entry)
}

const FREE: u32 = 1 << 20;
const SAME: u32 = 1 << 21;

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
