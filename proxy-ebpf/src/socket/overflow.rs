//! OVERFLOW: translations that a socket's own records cannot hold, or that other sockets need as well. SHARED_PORTS
//! says for which ports there are some.
//!
//! | written | owner in the key |
//! |---|---|
//! | when a socket talks to more Services than DATAGRAMS holds | namespace and local port |
//! | when sockets share a port (`SO_REUSEPORT`): the kernel hands an answer to any of them | namespace and local port |
//! | when the kernel has no memory for a socket's record (`optmem_max`) | namespace and local port; of a connected peer the socket's cookie |
//!
//! The agent removes what nobody has used for a while. A full table refuses new translations, counted for their
//! Service: their answers carry the endpoint's address.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_getsockopt, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use proxy_common::{Address, NodeEvent, OverflowKey, Overflowed, Port, Translation};

use super::{context::local_port, datagrams};
use crate::{
    config, count,
    tables::{OVERFLOW, SHARED_PORTS},
};

const SOL_SOCKET: i32 = 1;
const SO_REUSEPORT: i32 = 15;

/// The translations of a local port.
pub(super) struct OfPort {
    owner: u64,
    local_port: Port,
}

impl OfPort {
    /// Of the socket's own port, where there may be some: if the socket `has_overflowed`, or its port is shared.
    #[inline(always)]
    pub(super) fn new(ctx: &SockAddrContext, has_overflowed: bool) -> Option<Self> {
        let local_port = local_port(ctx);
        if local_port.number == 0 || !(has_overflowed || is_shared(local_port)) {
            return None;
        }
        Some(Self { owner: namespace(ctx), local_port })
    }

    /// A translation, looked up by the address that was asked for or by the one that was given.
    #[inline(always)]
    pub(super) fn get(&self, address: &Address, port: Port, direction: u32) -> Option<&'static Translation> {
        let Self { owner, local_port } = *self;
        get(&OverflowKey { owner, address: *address, port, local_port, direction })
    }

    /// What the process asked for, if a datagram from `address` and `port` answers it.
    #[inline(always)]
    pub(super) fn name(&self, address: &Address, port: Port) -> Option<(Address, Port)> {
        name(self.get(address, port, OverflowKey::BY_ENDPOINT)?)
    }

    /// What comes from `address` and `port` answers nothing that is noted here.
    #[inline(always)]
    pub(super) fn unname(&self, address: &Address, port: Port) {
        let Self { owner, local_port } = *self;
        let direction = OverflowKey::BY_ENDPOINT;
        let _ = OVERFLOW.remove(&OverflowKey { owner, address: *address, port, local_port, direction });
    }
}

/// What the process asked for, if the socket is connected to `address` and `port` and had no memory for the record.
#[inline(always)]
pub(super) fn connected(ctx: &SockAddrContext, address: &Address, port: Port) -> Option<(Address, Port)> {
    if !is_shared(Port::NONE) {
        return None;
    }
    name(get(&connected_key(ctx, address, port))?)
}

#[inline(always)]
fn name(translation: &Translation) -> Option<(Address, Port)> {
    let copy = *translation;
    is_whole(&copy).then_some((copy.frontend, copy.frontend_port))
}

/// Records the connected peer of a socket without memory for it.
#[inline(always)]
pub(super) fn remember_connected(ctx: &SockAddrContext, translation: &Translation) {
    mark_shared(Port::NONE);
    let key = connected_key(ctx, &translation.endpoint_address, translation.endpoint_port);
    put(&key, translation);
}

/// The socket is about to be connected there, and not because of a Service: an earlier connect with this peer does not
/// name it.
#[inline(always)]
pub(super) fn forget_connected(ctx: &SockAddrContext, address: &Address, port: Port) {
    if is_shared(Port::NONE) {
        let _ = OVERFLOW.remove(&connected_key(ctx, address, port));
    }
}

/// Moves a record of the socket here, as the socket has no entry left for it; by [its number](datagrams::numbered).
#[inline(always)]
pub(super) fn evict(ctx: &SockAddrContext, number: u32) {
    evict_record(ctx.sock_addr, number);
}

/// A [step](super::steps).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn evict_record(sock_addr: *mut bpf_sock_addr, number: u32) -> u32 {
    let ctx = &SockAddrContext { sock_addr };
    count::event(NodeEvent::OverflowedSocket);
    if let Some(leaving) = datagrams::numbered(ctx, number) {
        datagrams::outlive(ctx, leaving);
        // If sockets share the port it is here already, and what they asked since goes first.
        put_of_port(ctx, leaving, !has_siblings(ctx), !leaving.is_renamed());
    }
    0
}

/// Makes a record of the socket known to the others of its port, if there may be some.
#[inline(always)]
pub(super) fn share_with_siblings(ctx: &SockAddrContext, number: u32) {
    share_record(ctx.sock_addr, number);
}

/// A [step](super::steps).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_record(sock_addr: *mut bpf_sock_addr, number: u32) -> u32 {
    let ctx = &SockAddrContext { sock_addr };
    if has_siblings(ctx)
        && let Some(record) = datagrams::numbered(ctx, number)
    {
        share(ctx, record);
    }
    0
}

/// Makes a translation known to whoever has this port.
#[inline(never)]
pub(super) fn share(ctx: &SockAddrContext, translation: &Translation) {
    let local_port = local_port(ctx);
    if local_port.number != 0 {
        mark_shared(local_port);
    }
    put_of_port(ctx, translation, true, true);
}

/// The socket asks its endpoint again: other sockets of its port still have to know, and by which name it was last.
#[inline(always)]
pub(super) fn refresh(ctx: &SockAddrContext, number: u32) {
    if is_shared(local_port(ctx)) {
        refresh_record(ctx.sock_addr, number);
    }
}

/// A [step](super::steps).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refresh_record(sock_addr: *mut bpf_sock_addr, number: u32) -> u32 {
    let ctx = &SockAddrContext { sock_addr };
    if let Some(record) = datagrams::numbered(ctx, number)
        && let Some(shared) = OfPort::new(ctx, false)
        && shared
            .get(&record.endpoint_address, record.endpoint_port, OverflowKey::BY_ENDPOINT)
            .is_none_or(|known| !known.is_from(&record.frontend, record.frontend_port))
    {
        share(ctx, record);
    }
    0
}

/// Whether other sockets may have the same port (`SO_REUSEPORT`).
#[inline(always)]
fn has_siblings(ctx: &SockAddrContext) -> bool {
    if !config::has_reuseport_option() {
        return false;
    }
    let mut value = 0_i32;
    // SAFETY: the helper takes the program's own context and writes the four bytes of `value`.
    let failed =
        unsafe { bpf_getsockopt(ctx.as_ptr(), SOL_SOCKET, SO_REUSEPORT, (&raw mut value).cast(), 4) };
    failed == 0 && value != 0
}

/// Puts a translation where it is found by the address that was asked for, unless there is one and it does not replace that;
/// and by the endpoint's address, if it `names` answers.
#[inline(always)]
fn put_of_port(ctx: &SockAddrContext, translation: &Translation, replaces: bool, names: bool) {
    let local_port = local_port(ctx);
    // What leads to no endpoint must not take the place of what does.
    if local_port.number == 0 || translation.endpoint == 0 {
        return;
    }
    let mut key = OverflowKey {
        owner: namespace(ctx),
        address: translation.frontend,
        port: translation.frontend_port,
        local_port,
        direction: OverflowKey::BY_FRONTEND,
    };
    if !replaces && OVERFLOW.get_ptr(&key).is_some() {
        return;
    }
    put(&key, translation);
    if !names {
        return;
    }
    key.address = translation.endpoint_address;
    key.port = translation.endpoint_port;
    key.direction = OverflowKey::BY_ENDPOINT;
    put(&key, translation);
}

/// Writes in place, for the stack has no room for a copy; meanwhile the checksum tells readers that there is none.
#[inline(always)]
fn put(key: &OverflowKey, translation: &Translation) {
    let mut element = OVERFLOW.get_ptr_mut(key);
    if element.is_none() {
        if OVERFLOW.insert(key, &EMPTY, 0).is_err() {
            count::unrecorded(translation.service);
            return;
        }
        element = OVERFLOW.get_ptr_mut(key);
    }
    if let Some(element) = element {
        // SAFETY: an element of a map, which lives as long as the program runs.
        unsafe {
            (*element).translation = *translation;
            (*element).translation.mark = translation.checksum();
            (&raw mut (*element).seconds).write_volatile(seconds());
        }
    }
}

/// What a new element holds.
static EMPTY: Overflowed = Overflowed { translation: Translation::UNUSED, seconds: 0 };

/// The translation as it is in the table: its element may be reused at any moment, so whoever copies it asks whether the
/// copy [is whole](is_whole).
#[inline(always)]
fn get(key: &OverflowKey) -> Option<&'static Translation> {
    let pointer = OVERFLOW.get_ptr_mut(key)?;
    // SAFETY: an element of a map, which lives as long as the program runs. One aligned word of it is written: should the
    // element be another key's by now, that one stays a little longer.
    unsafe {
        (&raw mut (*pointer).seconds).write_volatile(seconds());
        Some(&(*pointer).translation)
    }
}

/// Whether a copy of a translation in OVERFLOW was made of one element.
#[inline(always)]
pub(super) fn is_whole(copy: &Translation) -> bool {
    copy.mark == copy.checksum()
}

#[inline(always)]
fn is_shared(port: Port) -> bool {
    let Some(element) = SHARED_PORTS.get_ptr(u32::from(port.number) >> 6) else { return false };
    // SAFETY: a byte of a map's value.
    unsafe {
        (&raw const (*element).ports).cast::<u8>().add(usize::from(port.number & 63)).read_volatile() != 0
    }
}

#[inline(always)]
fn mark_shared(port: Port) {
    if let Some(element) = SHARED_PORTS.get_ptr_mut(u32::from(port.number) >> 6) {
        // SAFETY: a byte of a map's value.
        unsafe {
            (&raw mut (*element).ports).cast::<u8>().add(usize::from(port.number & 63)).write_volatile(1);
        };
    }
}

#[inline(always)]
fn connected_key(ctx: &SockAddrContext, address: &Address, port: Port) -> OverflowKey {
    // SAFETY: the helper takes the program's own context.
    let owner = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let direction = OverflowKey::BY_ENDPOINT;
    OverflowKey { owner, address: *address, port, local_port: Port::NONE, direction }
}

#[inline(always)]
fn namespace(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn seconds() -> u64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_ktime_get_ns() / 1_000_000_000 }
}
