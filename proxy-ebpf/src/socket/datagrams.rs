//! DATAGRAMS: the other peers of a UDP socket, which it names in each datagram or was connected to before.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use proxy_common::{
    Address, Aged, Datagrams, FrontendKey, NodeEvent, OverflowKey, Port, Translation, select::is_serving,
};

use super::{
    connected,
    context::{is_connected, is_connected_to},
    overflow,
};
use crate::{
    count,
    tables::{DATAGRAMS, Maps},
};

/// The socket's record, which lives as long as the program runs.
#[inline(always)]
pub(super) fn record(ctx: &SockAddrContext) -> Option<&'static mut Datagrams> {
    // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
    unsafe { DATAGRAMS.get_ptr_mut(ctx).as_mut() }
}

/// The number of the connected peer's record, in SOCKETS.
pub(super) const PEER: u32 = 0;

/// The number of the record that is this entry.
#[inline(always)]
pub(super) const fn number(entry: u32) -> u32 {
    entry + 1
}

/// A record of the socket by its number: [`PEER`], or an entry's.
#[inline(always)]
pub(super) fn numbered(ctx: &SockAddrContext, number: u32) -> Option<&'static mut Translation> {
    match number {
        PEER => connected::record(ctx),
        _ => Some(record(ctx)?.entry_mut(number - 1)),
    }
}

/// The mark of a record of the socket that is used now.
#[inline(always)]
pub(super) fn tick(ctx: &SockAddrContext, datagrams: &mut Datagrams) -> u16 {
    let now = datagrams.tick();
    if now == Datagrams::BEGINNING
        && let Some(record) = connected::record(ctx)
    {
        record.set_time(0);
    }
    now
}

/// What the process asked for, by an entry.
#[inline(always)]
pub(super) fn name(datagrams: &Datagrams, found: Aged) -> (Address, Port) {
    let entry = datagrams.entry(found.entry);
    (entry.frontend, entry.frontend_port)
}

/// The translation to `destination` that OVERFLOW has for this socket's port, if its endpoint serves; back among the
/// socket's own.
#[inline(always)]
pub(super) fn find_in_overflow(
    ctx: &SockAddrContext,
    destination: &FrontendKey,
    service: u32,
    has_overflowed: bool,
) -> Option<u32> {
    let translation = overflow::OfPort::new(ctx, has_overflowed)?.get(
        &destination.address,
        destination.port,
        OverflowKey::BY_FRONTEND,
    )?;
    if !serves(translation, service) {
        return None;
    }
    // The element of OVERFLOW may be reused, this copy may not.
    let checksum = translation.mark;
    let number = store(ctx, translation)?;
    let entry = numbered(ctx, number)?;
    if checksum != entry.checksum() {
        entry.frontend_port = Port::NONE;
        return None;
    }
    // A checksum looks like any mark.
    entry.mark = 0;
    Some(number)
}

/// Whether a record still leads to an endpoint of this Service that serves.
#[inline(always)]
pub(super) fn serves(record: &Translation, service: u32) -> bool {
    record.service == service && is_serving(&Maps, record.endpoint, record.generation)
}

/// Records a translation that was made for this socket; other sockets of its port find it too.
#[inline(always)]
pub(super) fn remember(ctx: &SockAddrContext, translation: &Translation) {
    match store(ctx, translation) {
        Some(number) => overflow::share_with_siblings(ctx, number),
        None => overflow::share(ctx, translation),
    }
}

/// Keeps a translation that is used now; gives its number. Nothing if the kernel has no memory for the record.
#[inline(always)]
fn store(ctx: &SockAddrContext, translation: &Translation) -> Option<u32> {
    put(ctx, translation, false)
}

/// Keeps the record of the peer that the socket is connected to no more; it does not become younger by that.
#[inline(always)]
pub(super) fn retire(ctx: &SockAddrContext) {
    retire_record(ctx.sock_addr);
}

/// A [step](super::steps).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn retire_record(sock_addr: *mut bpf_sock_addr) -> u32 {
    let ctx = &SockAddrContext { sock_addr };
    if let Some(record) = connected::record(ctx)
        && record.is_used()
    {
        put(ctx, record, true);
    }
    0
}

/// Puts a translation over the one with the same ends, else into a free entry, else in place of the oldest, which moves to
/// OVERFLOW. If none is as old as a retired one, that moves there itself.
#[inline(never)]
fn put(ctx: &SockAddrContext, translation: &Translation, is_retired: bool) -> Option<u32> {
    // SAFETY: as in `record`; a null initial value asks for zeros, which is `Datagrams::EMPTY`.
    let Some(datagrams) = (unsafe { DATAGRAMS.get_or_insert_ptr_mut(ctx, None).as_mut() }) else {
        count::event(NodeEvent::UnrecordedSocket);
        return None;
    };
    spare_peer(ctx.sock_addr);
    let Aged { entry: index, age } = place(datagrams, translation);
    if age < FREE {
        datagrams.evicted = 1;
        if is_retired && is_older(ctx, datagrams, translation, age) {
            overflow::evict(ctx, PEER);
            return None;
        }
        overflow::evict(ctx, number(index));
    }
    let its = if is_retired { datagrams.age(translation) } else { 0 };
    let entry = datagrams.entry(index);
    if age == SAME && datagrams.age(entry) < its {
        let entry = datagrams.entry_mut(index);
        entry.mark |= Translation::CONNECTED;
        return Some(number(index));
    }
    let mark = if is_retired { translation.mark } else { tick(ctx, datagrams) | translation.mark };
    let entry = datagrams.entry_mut(index);
    let was_connected = if age == SAME { entry.mark & Translation::CONNECTED } else { 0 };
    *entry = *translation;
    entry.mark = mark | was_connected;
    Some(number(index))
}

/// An entry makes room. If the record in SOCKETS leads there too, and is older, answers go by the name of what leaves.
#[inline(always)]
pub(super) fn outlive(ctx: &SockAddrContext, leaving: &Translation) {
    if let Some(datagrams) = record(ctx)
        && let Some(record) = connected::record(ctx)
        && datagrams.age(leaving) < datagrams.age(record)
        && record.is_to(&leaving.endpoint_address, leaving.endpoint_port)
    {
        record.mark |= Translation::RENAMED;
    }
}

/// Whether a retired record is at least of this age, and not that of the peer that the socket has now: that stays at hand,
/// for the connect may fail.
#[inline(never)]
fn is_older(ctx: &SockAddrContext, datagrams: &Datagrams, retired: &Translation, age: u32) -> bool {
    datagrams.age(retired) >= age && !is_connected_to(ctx, &retired.endpoint_address, retired.endpoint_port)
}

/// Makes the record of the peer that the socket is connected to the youngest, if it is among these entries, as it is after a
/// connect that failed. A [step](super::steps).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn spare_peer(sock_addr: *mut bpf_sock_addr) -> u32 {
    let ctx = &SockAddrContext { sock_addr };
    let is_peer = |record: &Translation| is_connected_to(ctx, &record.endpoint_address, record.endpoint_port);
    if is_connected(ctx)
        && let Some(datagrams) = record(ctx)
        && connected::record(ctx).is_some_and(|record| !is_peer(record))
        && let Some(last) = datagrams.youngest(|entry| entry.may_be_peers() && is_peer(entry))
    {
        let now = tick(ctx, datagrams);
        datagrams.entry_mut(last.entry).set_time(now);
    }
    0
}

/// In place of an age, a free entry's: older than any.
const FREE: u32 = 1 << 20;
/// In place of an age, that of the entry with the same ends.
const SAME: u32 = 1 << 21;

/// Where to put a translation: over the entry with the same ends, whose age is [`SAME`] then; else over a free one, of
/// [`FREE`]; else over the oldest.
#[inline(never)]
fn place(datagrams: &Datagrams, translation: &Translation) -> Aged {
    let mut found = Aged { entry: 0, age: 0 };
    for (number, entry) in datagrams.entries.iter().enumerate() {
        let age = match () {
            () if entry.is_same(translation) => SAME,
            () if !entry.is_used() => FREE,
            () => datagrams.age(entry) + 1,
        };
        if age > found.age {
            found = Aged { entry: number as u32, age };
        }
    }
    found
}
