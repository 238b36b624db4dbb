//! recvmsg4/6 and getpeername4/6: translate the endpoint's address back to the Service's for the process that used
//! it.
//!
//! These hooks see every socket of the node; they leave peers alone that were never translated.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use proxy_common::Protocol;

use super::{
    askers,
    context::{ALLOW, Hook, peer, protocol, rewrite},
    peers, translations,
};

/// `recvfrom()` and `recvmsg()` of an `AF_INET` socket.
#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    received(&ctx, Hook::V4)
}

/// `recvfrom()` and `recvmsg()` of an `AF_INET6` socket, v4-mapped peers included.
#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    received(&ctx, Hook::V6)
}

/// `getpeername()` with an `AF_INET` answer.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    connected(&ctx, Hook::V4)
}

/// `getpeername()` with an `AF_INET6` answer.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    connected(&ctx, Hook::V6)
}

#[inline(always)]
fn received(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let (address, port) = peer(ctx, hook);
    if let Some((frontend, frontend_port)) = translations::name_of_sender(ctx, &address, port) {
        rewrite(ctx, hook, &frontend, frontend_port);
    } else {
        askers::note(ctx, &address, port);
    }
    ALLOW
}

#[inline(always)]
fn connected(ctx: &SockAddrContext, hook: Hook) -> i32 {
    if protocol(ctx) == Some(Protocol::Tcp as u8)
        && let Some((frontend, frontend_port)) = peers::frontend(ctx)
    {
        rewrite(ctx, hook, &frontend, frontend_port);
        return ALLOW;
    }
    let (address, port) = peer(ctx, hook);
    if let Some((frontend, frontend_port)) = translations::name_of_peer(ctx, &address, port) {
        rewrite(ctx, hook, &frontend, frontend_port);
    }
    ALLOW
}
