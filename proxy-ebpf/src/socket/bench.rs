//! connect4 with other ways to remember the peer, for `cargo xtask bench connect` to compare. Built only with
//! the feature `bench`, into an object of its own; no node ever loads this.
//!
//! Every program but `empty4` makes the same decision, rewrite and count as `connect`, and differs only in what it does
//! about the record:
//!
//! | program | remembers | forgets |
//! |---|---|---|
//! | `empty4` | nothing, nor does anything else: what measuring itself costs | - |
//! | `decide4` | nothing | - |
//! | `small4` | in socket storage, 24 bytes: what `getpeername` needs | with the socket |
//! | `cookie4` | in a preallocated hash keyed by the socket's cookie | `cookie_release` |
//! | `slot4` | in an array element that the cookie points at, 32 bytes; in socket storage where a living socket has it | `slot_release` |

use aya_ebpf::{
    EbpfContext as _,
    btf_maps::{Array, HashMap, SkStorage},
    helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::{btf_map, cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use proxy_common::{Address, Decision, FrontendKey, Port, Translation, select};

use super::context::{ALLOW, Hook, SocketClient, destination, protocol, refuse_connect, rewrite};
use crate::{count, tables::Maps};

const LEN: usize = 1 << 16;

/// What `getpeername` of a TCP socket needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frontend {
    address: Address,
    port: Port,
    padding: [u16; 3],
}

/// The same, and whose it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The socket's cookie; 0 where nobody has the element.
    owner: u64,
    frontend: Frontend,
}

#[btf_map]
static SMALL: SkStorage<Frontend> = SkStorage::new();

#[btf_map]
static COOKIES: HashMap<u64, Translation, LEN> = HashMap::new();

#[btf_map]
static SLOTS: Array<Slot, LEN> = Array::new();

/// One way to remember.
trait Memory {
    fn remember(ctx: &SockAddrContext, frontend: &FrontendKey, translation: Translation);
    fn forget(ctx: &SockAddrContext);
}

#[inline(always)]
fn connect<M: Memory>(ctx: &SockAddrContext) -> i32 {
    let Some(protocol) = protocol(ctx) else {
        return ALLOW;
    };
    let destination = destination(ctx, Hook::V4, protocol);
    // SAFETY: helpers without pointers.
    let (clock, random) = (|| unsafe { bpf_ktime_get_ns() }, || unsafe { bpf_get_prandom_u32() });
    match select(&Maps, &destination, &SocketClient(ctx), clock, random) {
        Decision::NotService => {
            M::forget(ctx);
            ALLOW
        }
        Decision::Refuse { service, reason } => {
            M::forget(ctx);
            count::refusal(service, reason);
            refuse_connect(ctx, Hook::V4)
        }
        Decision::Forward(forward) => {
            let endpoint = forward.endpoint;
            M::remember(ctx, &destination, Translation::new(&destination, &endpoint));
            rewrite(ctx, Hook::V4, &endpoint.address, endpoint.port);
            count::connection(endpoint.service);
            ALLOW
        }
    }
}

/// Nothing at all.
#[cgroup_sock_addr(connect4)]
pub(crate) fn empty4(_: SockAddrContext) -> i32 {
    ALLOW
}

struct Nothing;

impl Memory for Nothing {
    #[inline(always)]
    fn remember(_: &SockAddrContext, _: &FrontendKey, _: Translation) {}

    #[inline(always)]
    fn forget(_: &SockAddrContext) {}
}

/// The decision alone.
#[cgroup_sock_addr(connect4)]
pub(crate) fn decide4(ctx: SockAddrContext) -> i32 {
    connect::<Nothing>(&ctx)
}

struct Small;

impl Memory for Small {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, frontend: &FrontendKey, _: Translation) {
        let mut small = Frontend { address: frontend.address, port: frontend.port, padding: [0; 3] };
        // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
        unsafe {
            let record = SMALL.get_ptr_mut(ctx);
            if record.is_null() {
                SMALL.get_or_insert_ptr_mut(ctx, Some(&mut small));
            } else {
                *record = small;
            }
        }
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext) {
        // SAFETY: as in `remember`.
        unsafe {
            let record = SMALL.get_ptr_mut(ctx);
            if !record.is_null() {
                (*record).port = Port(0);
            }
        }
    }
}

/// Socket storage of what `getpeername` needs.
#[cgroup_sock_addr(connect4)]
pub(crate) fn small4(ctx: SockAddrContext) -> i32 {
    connect::<Small>(&ctx)
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn released(ctx: &SockContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

struct Cookie;

impl Memory for Cookie {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, _: &FrontendKey, translation: Translation) {
        let _ = COOKIES.insert(&cookie(ctx), &translation, 0);
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext) {
        let _ = COOKIES.remove(&cookie(ctx));
    }
}

/// A hash keyed by the socket's cookie.
#[cgroup_sock_addr(connect4)]
pub(crate) fn cookie4(ctx: SockAddrContext) -> i32 {
    connect::<Cookie>(&ctx)
}

/// Forgets what `cookie4` remembered.
#[cgroup_sock(sock_release)]
pub(crate) fn cookie_release(ctx: SockContext) -> i32 {
    let _ = COOKIES.remove(&released(&ctx));
    ALLOW
}

struct InSlot;

impl Memory for InSlot {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, frontend: &FrontendKey, translation: Translation) {
        let owner = cookie(ctx);
        let Some(slot) = slot(owner) else { return };
        // SAFETY: an element of the map, and its words are aligned. Two sockets that meet in an empty element
        // are told apart when it is read: by its owner.
        unsafe {
            let current = (&raw const (*slot).owner).read_volatile();
            if current != 0 && current != owner {
                Small::remember(ctx, frontend, translation);
                return;
            }
            (*slot).frontend = Frontend { address: frontend.address, port: frontend.port, padding: [0; 3] };
            (&raw mut (*slot).owner).write_volatile(owner);
        }
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext) {
        vacate(cookie(ctx));
    }
}

#[inline(always)]
fn slot(owner: u64) -> Option<*mut Slot> {
    SLOTS.get_ptr_mut(owner as u32 & (LEN as u32 - 1))
}

#[inline(always)]
fn vacate(owner: u64) {
    let Some(slot) = slot(owner) else { return };
    // SAFETY: as in `InSlot::remember`.
    unsafe {
        let place = &raw mut (*slot).owner;
        if place.read_volatile() == owner {
            place.write_volatile(0);
        }
    }
}

/// An array element that the socket's cookie points at.
#[cgroup_sock_addr(connect4)]
pub(crate) fn slot4(ctx: SockAddrContext) -> i32 {
    connect::<InSlot>(&ctx)
}

/// Gives the element of `slot4` back.
#[cgroup_sock(sock_release)]
pub(crate) fn slot_release(ctx: SockContext) -> i32 {
    vacate(released(&ctx));
    ALLOW
}
