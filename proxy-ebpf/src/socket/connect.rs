//! connect4, connect6: TCP (MPTCP's subflows and TCP fast open included) and connected UDP.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use proxy_common::{
    Decision, Endpoint, Forward, FrontendKey, NodeEvent, Protocol, Reason, RefusedPair,
    select::{Resolution, resolve},
};

use super::{
    connected,
    context::{
        ALLOW, Hook, SocketClient, choose_for, destination, is_passed_by, protocol, refuse_connect, rewrite,
    },
    peers, steps, translations,
};
use crate::{config, count, events, tables::Maps};

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
    /// Whether listeners are told of a socket's endpoint.
    const TELLS: bool = true;

    /// Gives a UDP socket the endpoint that it has for this destination, if that serves; `false` if it has none.
    #[inline(always)]
    fn keep(_: &SockAddrContext, _: Hook, _: &FrontendKey, _: u32) -> bool {
        false
    }

    /// The socket is about to be connected to this endpoint, which is in this slot.
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, endpoint: &Endpoint, slot: u32);
    /// The UDP socket is about to be connected to a Service without endpoints.
    #[inline(always)]
    fn remember_unserved(_: &SockAddrContext, _: &FrontendKey) {}
    /// The socket is about to be connected to something else.
    fn forget(ctx: &SockAddrContext, destination: &FrontendKey);
}

/// In PEERS, SOCKETS and DATAGRAMS.
pub(super) struct Peers;

impl Memory for Peers {
    #[inline(always)]
    fn keep(ctx: &SockAddrContext, hook: Hook, destination: &FrontendKey, service: u32) -> bool {
        let Some(known) = steps::keep(ctx, destination, service) else { return false };
        rewrite(ctx, hook, &known.endpoint_address, known.endpoint_port);
        true
    }

    #[inline(always)]
    fn remember(ctx: &SockAddrContext, destination: &FrontendKey, _: &Endpoint, slot: u32) {
        if destination.protocol != Protocol::Tcp as u8
            || !peers::occupy(ctx, &destination.address, destination.port)
        {
            steps::connect(ctx, destination, slot);
        }
    }

    #[inline(always)]
    fn remember_unserved(ctx: &SockAddrContext, destination: &FrontendKey) {
        steps::connect_unserved(ctx, destination);
    }

    #[inline(always)]
    fn forget(ctx: &SockAddrContext, destination: &FrontendKey) {
        if destination.protocol == Protocol::Udp as u8 {
            steps::disconnect(ctx, destination);
        } else {
            peers::vacate(ctx);
            connected::clear(ctx);
        }
    }
}

#[inline(always)]
pub(super) fn connect<M: Memory>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let Some(protocol) = protocol(ctx) else {
        return ALLOW;
    };
    let destination = destination(ctx, hook, protocol);
    let client = SocketClient(ctx);
    match resolve(&Maps, &destination, &client) {
        Resolution::NotService => {
            // The socket may have been connected to a Service before (`AF_UNSPEC` runs no hook).
            M::forget(ctx, &destination);
            ALLOW
        }
        // The agent's own way to the API server.
        _ if translations::is_bypassed(ctx, protocol) => ALLOW,
        // As with netfilter, where the socket's port and the frontend name one connection.
        Resolution::Service(frontend)
            if protocol == Protocol::Udp as u8 && M::keep(ctx, hook, &destination, frontend.service) =>
        {
            ALLOW
        }
        _ if is_passed_by(ctx) => {
            M::forget(ctx, &destination);
            ALLOW
        }
        Resolution::UnknownPort => {
            let is_refused = fails::<M>(ctx, &destination, RefusedPair::NO_SERVICE, Reason::UnknownPort);
            answer::<M>(ctx, hook, &destination, is_refused)
        }
        Resolution::Service(frontend) => match choose_for(ctx, &destination.address, frontend) {
            Decision::NotService => ALLOW,
            Decision::Refuse { reason, .. } => {
                let is_refused = fails::<M>(ctx, &destination, frontend.service, reason);
                answer::<M>(ctx, hook, &destination, is_refused)
            }
            Decision::Forward(Forward { endpoint, slot, remembered }) => {
                M::remember(ctx, &destination, &endpoint, slot);
                if M::TELLS {
                    events::chosen(ctx, &destination, slot);
                }
                rewrite(ctx, hook, &endpoint.address, endpoint.port);
                count::connection(endpoint.service, remembered);
                debug!(
                    ctx,
                    "connect to {:i}:{} got endpoint {}",
                    destination.address.bytes,
                    destination.port.get(),
                    endpoint.id
                );
                ALLOW
            }
        },
    }
}

/// Refuses the connect; or lets the socket be connected to the frontend itself, until the agent finds an endpoint for it.
#[inline(always)]
fn answer<M: Memory>(ctx: &SockAddrContext, hook: Hook, destination: &FrontendKey, is_refused: bool) -> i32 {
    if is_refused {
        return refuse_connect(ctx, hook);
    }
    M::remember_unserved(ctx, destination);
    ALLOW
}

/// A connect that gets no endpoint: whether it is refused. A function of its own: it is rare, and the verifier walks it
/// apart.
#[inline(never)]
fn fails<M: Memory>(ctx: &SockAddrContext, destination: &FrontendKey, service: u32, reason: Reason) -> bool {
    let protocol = destination.protocol;
    if protocol == Protocol::Udp as u8 && reason.lets_connect() {
        // No request yet, often not even meant as one: programs connect to learn their own address, resolvers to sort
        // addresses (RFC 6724).
        count::event(NodeEvent::UnservedSocket);
        return false;
    }
    if !leaves_connected(protocol) {
        M::forget(ctx, destination);
    }
    events::refused_socket(ctx, destination, service, reason);
    debug!(
        ctx,
        "connect to {:i}:{} refused: {}",
        destination.address.bytes,
        destination.port.get(),
        reason as u32
    );
    true
}

/// Whether a refused connect leaves the socket with the peer that it had: UDP's does where the call fails,
/// which before 5.18 it does not (`refuse_connect`).
#[inline(always)]
fn leaves_connected(protocol: u8) -> bool {
    protocol == Protocol::Udp as u8 && config::has_set_retval()
}
