//! connect4 with other ways to remember the peer, for `cargo xtask bench connect` to compare. Built only with
//! the feature `bench`, into an object of its own; no node ever loads this.
//!
//! Every program but `empty4` is [`connect`] itself, with another [`Memory`]:
//!
//! | program | remembers | forgets |
//! |---|---|---|
//! | `empty4` | nothing, and does nothing: the cost of measuring | - |
//! | `decide4` | nothing | - |
//! | `small4` | in socket storage, 24 bytes: what `getpeername` needs | with the socket |
//! | `cookie4` | in a preallocated hash keyed by the socket's cookie | `cookie_release` |
//! | `storage4` | in socket storage, 48 bytes: the whole translation | with the socket |
//! | `untold4` | as the shipped one, which besides tells listeners of the endpoint | as the shipped one |

use aya_ebpf::{
    EbpfContext as _,
    btf_maps::{HashMap, SkStorage},
    helpers::bpf_get_socket_cookie,
    macros::{btf_map, cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use proxy_common::{Address, Endpoint, FrontendKey, Port, Translation};

use super::{
    connect::{Memory, Peers, connect},
    context::{ALLOW, Hook},
};
use crate::tables::SOCKETS;

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

/// Nothing at all.
#[cgroup_sock_addr(connect4)]
pub(crate) fn empty4(_: SockAddrContext) -> i32 {
    ALLOW
}

struct Nothing;

impl Memory for Nothing {
    #[inline(always)]
    fn remember(_: &SockAddrContext, _: &FrontendKey, _: &Endpoint, _: u32) {}

    #[inline(always)]
    fn forget(_: &SockAddrContext, _: &FrontendKey) {}
}

/// The decision alone.
#[cgroup_sock_addr(connect4)]
pub(crate) fn decide4(ctx: SockAddrContext) -> i32 {
    connect::<Nothing>(&ctx, Hook::V4)
}

struct Small;

impl Memory for Small {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint, _: u32) {
        let translation = &Translation::new(destination, endpoint);
        let Translation { frontend: address, frontend_port: port, .. } = *translation;
        let mut small = Frontend { address, port, padding: [0; 3] };
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
    fn forget(ctx: &SockAddrContext, _: &FrontendKey) {
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
    connect::<Small>(&ctx, Hook::V4)
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
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint, _: u32) {
        let translation = &Translation::new(destination, endpoint);
        let _ = COOKIES.insert(&cookie(ctx), translation, 0);
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext, _: &FrontendKey) {
        let _ = COOKIES.remove(&cookie(ctx));
    }
}

/// A hash keyed by the socket's cookie.
#[cgroup_sock_addr(connect4)]
pub(crate) fn cookie4(ctx: SockAddrContext) -> i32 {
    connect::<Cookie>(&ctx, Hook::V4)
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
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint, _: u32) {
        let translation = &Translation::new(destination, endpoint);
        // SAFETY: as in `Small::remember`.
        unsafe {
            if let Some(record) = SOCKETS.get_or_insert_ptr_mut(ctx, Some(&mut { *translation })).as_mut() {
                *record = *translation;
            }
        }
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext, _: &FrontendKey) {
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
    connect::<Storage>(&ctx, Hook::V4)
}

/// As the shipped one, without a look whether somebody listens.
struct Untold;

impl Memory for Untold {
    const TELLS: bool = false;

    #[inline(always)]
    fn keep(ctx: &SockAddrContext, hook: Hook, destination: &FrontendKey, service: u32) -> bool {
        Peers::keep(ctx, hook, destination, service)
    }

    #[inline(always)]
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint, slot: u32) {
        Peers::remember(ctx, destination, endpoint, slot);
    }

    #[inline(always)]
    fn remember_unserved(ctx: &SockAddrContext, destination: &FrontendKey) {
        Peers::remember_unserved(ctx, destination);
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext, destination: &FrontendKey) {
        Peers::forget(ctx, destination);
    }
}

/// The same without events.
#[cgroup_sock_addr(connect4)]
pub(crate) fn untold4(ctx: SockAddrContext) -> i32 {
    connect::<Untold>(&ctx, Hook::V4)
}
