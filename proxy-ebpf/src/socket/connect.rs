//! connect4, connect6: TCP (MPTCP's subflows and TCP fast open included) and connected UDP.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use proxy_common::{
    Decision, Protocol, Reason, Translation,
    select::{Resolution, choose, resolve},
};

use super::{
    context::{ALLOW, Hook, SocketClient, destination, protocol, refuse_connect, rewrite},
    translations,
};
use crate::{config, count, tables::Maps};

/// `connect()` with an `AF_INET` address, whatever the socket's family.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<Peers>(&ctx, Hook::V4)
}

/// `connect()` with an `AF_INET6` address.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<Peers>(&ctx, Hook::V6)
}

/// How a connected socket's translation is remembered, for its peer's name. There is one way; the benchmark compares it with
/// others, in programs that are the same in everything else.
pub(super) trait Memory {
    fn remember(ctx: &SockAddrContext, protocol: u8, translation: Translation);
    fn forget(ctx: &SockAddrContext, protocol: u8);
}

/// In PEERS or SOCKETS.
struct Peers;

impl Memory for Peers {
    #[inline(always)]
    fn remember(ctx: &SockAddrContext, protocol: u8, translation: Translation) {
        translations::remember_connected(ctx, protocol, translation);
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext, protocol: u8) {
        translations::forget_connected(ctx, protocol);
    }
}

#[inline(always)]
pub(super) fn connect<M: Memory>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let Some(protocol) = protocol(ctx) else {
        return ALLOW;
    };
    let destination = destination(ctx, hook, protocol);
    let client = SocketClient(ctx);
    let resolution = resolve(&Maps, &destination, &client);
    if resolution == Resolution::NotService {
        // The socket may have been connected to a Service before (`AF_UNSPEC` runs no hook).
        M::forget(ctx, protocol);
        return ALLOW;
    }
    // The agent's own way to the API server.
    if translations::is_bypassed(ctx, protocol) {
        return ALLOW;
    }
    // SAFETY: helpers without pointers.
    let (clock, random) = (|| unsafe { bpf_ktime_get_ns() }, || unsafe { bpf_get_prandom_u32() });
    let decision = match resolution {
        Resolution::NotService => return ALLOW,
        Resolution::UnknownPort => Decision::Refuse { service: None, reason: Reason::UnknownPort },
        Resolution::Service(frontend) => {
            choose(&Maps, &destination.address, frontend, &client, clock, random)
        }
    };
    match decision {
        Decision::NotService => ALLOW,
        Decision::Refuse { service, reason } => {
            if !leaves_connected(protocol) {
                M::forget(ctx, protocol);
            }
            count::refusal(service, reason);
            debug!(
                ctx,
                "connect to {:i}:{} refused: {}",
                destination.address.bytes,
                destination.port.get(),
                reason as u32
            );
            refuse_connect(ctx, hook)
        }
        Decision::Forward(forward) => {
            let endpoint = forward.endpoint;
            M::remember(ctx, protocol, Translation::new(&destination, &endpoint));
            rewrite(ctx, hook, &endpoint.address, endpoint.port);
            count::connection(endpoint.service, forward.remembered);
            debug!(
                ctx,
                "connect to {:i}:{} got endpoint {}",
                destination.address.bytes,
                destination.port.get(),
                endpoint.id
            );
            ALLOW
        }
    }
}

/// Whether a refused connect leaves the socket with the peer that it had: UDP's does where the call fails,
/// which before 5.18 it does not (`refuse_connect`).
#[inline(always)]
fn leaves_connected(protocol: u8) -> bool {
    protocol == Protocol::Udp as u8 && config::has_set_retval()
}
