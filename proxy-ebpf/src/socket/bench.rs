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
//! | `storage4` | in socket storage, 48 bytes: the whole translation | with the socket |

use aya_ebpf::{
    EbpfContext as _,
    btf_maps::{HashMap, SkStorage},
    helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::{btf_map, cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use proxy_common::{Address, Decision, FrontendKey, Port, Translation, select};

use super::context::{ALLOW, Hook, SocketClient, destination, protocol, refuse_connect, rewrite};
use crate::{
    count,
    tables::{Maps, SOCKETS},
};

const LEN: usize = 1 << 16;

/// What `getpeername` of a TCP socket needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frontend {
    address: Address,
    port: Port,
    padding: [u16; 3],
}

#[btf_map]
static SMALL: SkStorage<Frontend> = SkStorage::new();

#[btf_map]
static COOKIES: HashMap<u64, Translation, LEN> = HashMap::new();

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
            count::connection(endpoint.service, forward.remembered);
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
                (*record).port = Port::NONE;
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

struct Storage;

impl Memory for Storage {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, _: &FrontendKey, mut translation: Translation) {
        // SAFETY: as in `Small::remember`.
        unsafe {
            if let Some(record) = SOCKETS.get_or_insert_ptr_mut(ctx, Some(&mut translation)).as_mut() {
                *record = translation;
            }
        }
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext) {
        // SAFETY: as in `Small::remember`.
        unsafe {
            if let Some(record) = SOCKETS.get_ptr_mut(ctx).as_mut() {
                record.frontend_port = Port::NONE;
            }
        }
    }
}

/// Socket storage of the whole translation, as UDP has it.
#[cgroup_sock_addr(connect4)]
pub(crate) fn storage4(ctx: SockAddrContext) -> i32 {
    connect::<Storage>(&ctx)
}
