//! sendmsg4, sendmsg6: datagrams of UDP sockets that name their destination.
//!
//! For each Service address a socket keeps its endpoint as long as that endpoint serves, so that protocols with a
//! handshake (QUIC, DTLS) work over unconnected sockets. The kernel holds the socket's lock around these hooks and
//! recvmsg's, so a socket's record has one user.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use proxy_common::{
    Decision, FrontendKind, Protocol, Reason, RefusedPair,
    select::{Resolution, resolve},
};

use super::{
    askers,
    context::{
        ALLOW, Hook, SocketClient, choose_for, destination, is_connected, is_connected_to, is_passed_by,
        protocol, refuse_datagram, rewrite,
    },
    datagrams, overflow, steps, translations,
};
use crate::{count, events, tables::Maps};

/// `sendto()` and `sendmsg()` with an IPv4 destination, v4-mapped ones of `AF_INET6` sockets included.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Hook::V4)
}

/// `sendto()` and `sendmsg()` with an IPv6 destination.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Hook::V6)
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, hook: Hook) -> i32 {
    if protocol(ctx) != Some(Protocol::Udp as u8) {
        return ALLOW;
    }
    let destination = destination(ctx, hook, Protocol::Udp as u8);
    let frontend = match resolve(&Maps, &destination, &SocketClient(ctx)) {
        Resolution::NotService => {
            steps::send_directly(ctx, &destination);
            return ALLOW;
        }
        Resolution::UnknownPort if is_passed_by(ctx) => {
            steps::send_directly(ctx, &destination);
            return ALLOW;
        }
        Resolution::UnknownPort => {
            events::refused_socket(ctx, &destination, RefusedPair::NO_SERVICE, Reason::UnknownPort);
            return refuse_datagram();
        }
        Resolution::Service(frontend) => frontend,
    };
    if frontend.kind() == FrontendKind::NodePort as u8
        && askers::is_answer(ctx, &destination.address, destination.port)
    {
        return ALLOW;
    }
    // The kernel takes answers from the connected peer alone. IPv6 sockets name their IPv4 peer in each datagram, so the hook
    // sees what others send without one.
    if is_connected_to(ctx, &destination.address, destination.port) {
        // Not through a hook: it was passed by, or is older than the hooks, or the agent is yet to find it an endpoint.
        return ALLOW;
    }
    if is_connected(ctx)
        && let Some(known) = translations::connected_peer(ctx, &destination)
    {
        overflow::refresh(ctx, datagrams::PEER);
        rewrite(ctx, hook, &known.endpoint_address, known.endpoint_port);
        return ALLOW;
    }
    if let Some(known) = steps::send_again(ctx, &destination, frontend.service) {
        rewrite(ctx, hook, &known.endpoint_address, known.endpoint_port);
        return ALLOW;
    }
    if is_passed_by(ctx) {
        steps::send_directly(ctx, &destination);
        return ALLOW;
    }
    match choose_for(ctx, &destination.address, frontend) {
        Decision::NotService => ALLOW,
        Decision::Refuse { reason, .. } => {
            events::refused_socket(ctx, &destination, frontend.service, reason);
            debug!(
                ctx,
                "datagram to {:i}:{} refused: {}",
                destination.address.bytes,
                destination.port.get(),
                reason as u32
            );
            refuse_datagram()
        }
        Decision::Forward(forward) => {
            let endpoint = forward.endpoint;
            steps::send_first(ctx, &destination, forward.slot);
            events::chosen(ctx, &destination, forward.slot);
            rewrite(ctx, hook, &endpoint.address, endpoint.port);
            count::connection(endpoint.service, forward.remembered);
            debug!(
                ctx,
                "datagram to {:i}:{} got endpoint {}",
                destination.address.bytes,
                destination.port.get(),
                endpoint.id
            );
            ALLOW
        }
    }
}
