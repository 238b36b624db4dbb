//! `struct bpf_sock_addr`: the client and its destination, the rewrite, and the refusal.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_set_retval},
    programs::SockAddrContext,
};
use proxy_common::{
    Address, AddressBits, Client, Decision, Endpoint, Found, FrontendKey, FrontendKind, NodeEvent, Port,
    Protocol, Reason, Scope, Tables, select::choose,
};

use crate::{
    config, count,
    tables::{BYPASSED, Maps},
};

/// The program's verdict: go on.
pub(super) const ALLOW: i32 = 1;
/// The program's verdict: fail the system call with the return value set (or EPERM).
const REJECT: i32 = 0;

const ECONNREFUSED: i32 = 111;

/// The family of the hook, which is not always the socket's.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    V4,
    V6,
}

/// The protocol of the socket, when it is one that is translated here.
#[inline(always)]
pub(super) fn protocol(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: the kernel passes a valid context.
    let protocol = unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() };
    if protocol == Protocol::Tcp as u32 || protocol == Protocol::Udp as u32 {
        Some(protocol as u8)
    } else {
        None
    }
}

/// The address and port in the context: a destination, or in recvmsg and getpeername a peer.
#[inline(always)]
pub(super) fn peer(ctx: &SockAddrContext, hook: Hook) -> (Address, Port) {
    let c = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; volatile, since the verifier accepts only accesses of
    // the fields' own width.
    unsafe {
        let port = Port::from_network((&raw const (*c).user_port).read_volatile() as u16);
        let address = match hook {
            Hook::V4 => {
                Address::from_words([0, 0, 0xffff_u32.to_be(), (&raw const (*c).user_ip4).read_volatile()])
            }
            Hook::V6 => {
                let words = (&raw const (*c).user_ip6).cast::<u32>();
                Address::from_words([
                    words.read_volatile(),
                    words.add(1).read_volatile(),
                    words.add(2).read_volatile(),
                    words.add(3).read_volatile(),
                ])
            }
        };
        (address, port)
    }
}

/// Whether a UDP socket is connected. Taking its peer away runs no hook, so a record of it may be stale.
#[inline(always)]
pub(super) fn is_connected(ctx: &SockAddrContext) -> bool {
    const TCP_ESTABLISHED: u32 = 1;
    // SAFETY: the kernel passes a valid context; the verifier knows its socket as one.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        !socket.is_null() && (&raw const (*socket).state).read_volatile() == TCP_ESTABLISHED
    }
}

/// Whether a UDP socket is connected to `address` and `port`, as the kernel has it.
#[inline(always)]
pub(super) fn is_connected_to(ctx: &SockAddrContext, address: &Address, port: Port) -> bool {
    is_connected(ctx)
        && if address.is_v4() { has_v4_peer(ctx, address, port) } else { has_v6_peer(ctx, address, port) }
}

// Functions of their own: joined, the compiler makes one load of two, at an offset that the verifier does not know.

#[inline(never)]
fn has_v4_peer(ctx: &SockAddrContext, address: &Address, port: Port) -> bool {
    // SAFETY: as in `is_connected`.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        let [.., word] = address.words();
        !socket.is_null()
            && (&raw const (*socket).dst_port).read_volatile() == port.to_network()
            && (&raw const (*socket).dst_ip4).read_volatile() == word
    }
}

#[inline(never)]
fn has_v6_peer(ctx: &SockAddrContext, address: &Address, port: Port) -> bool {
    // SAFETY: as in `is_connected`.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if socket.is_null() || (&raw const (*socket).dst_port).read_volatile() != port.to_network() {
            return false;
        }
        let words = (&raw const (*socket).dst_ip6).cast::<u32>();
        let [a, b, c, d] = address.words();
        words.read_volatile() == a
            && words.add(1).read_volatile() == b
            && words.add(2).read_volatile() == c
            && words.add(3).read_volatile() == d
    }
}

/// The key under which the context's destination would be a Service's.
#[inline(always)]
pub(super) fn destination(ctx: &SockAddrContext, hook: Hook, protocol: u8) -> FrontendKey {
    let (address, port) = peer(ctx, hook);
    FrontendKey::new(address, port, protocol)
}

/// Puts another address and port into the context.
#[inline(always)]
pub(super) fn rewrite(ctx: &SockAddrContext, hook: Hook, address: &Address, port: Port) {
    let c = ctx.sock_addr;
    let [a, b, cc, d] = address.words();
    // SAFETY: as in `peer`.
    unsafe {
        match hook {
            Hook::V4 => (&raw mut (*c).user_ip4).write_volatile(d),
            Hook::V6 => {
                let words = (&raw mut (*c).user_ip6).cast::<u32>();
                words.write_volatile(a);
                words.add(1).write_volatile(b);
                words.add(2).write_volatile(cc);
                words.add(3).write_volatile(d);
            }
        }
        (&raw mut (*c).user_port).write_volatile(u32::from(port.to_network()));
    }
}

/// Refuses a connect with ECONNREFUSED: by name where the kernel can (5.18), else by sending it to loopback port 0,
/// where no socket can listen.
///
/// Never with EPERM, which sends the kernel's own NFS client into a busy loop (cilium#33395).
#[inline(always)]
pub(super) fn refuse_connect(ctx: &SockAddrContext, hook: Hook) -> i32 {
    if config::has_set_retval() {
        return refuse();
    }
    let (address, _) = peer(ctx, hook);
    let loopback = if address.is_v4() {
        Address::from_v4([127, 0, 0, 1])
    } else {
        Address::from_words([0, 0, 0, 1_u32.to_be()])
    };
    rewrite(ctx, hook, &loopback, Port::NONE);
    ALLOW
}

/// Refuses a datagram with ECONNREFUSED; before 5.18 with EPERM, for want of anything better.
#[inline(always)]
pub(super) fn refuse_datagram() -> i32 {
    if config::has_set_retval() { refuse() } else { REJECT }
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REJECT
}

/// The cookie of the socket's network namespace.
#[inline(always)]
pub(crate) fn namespace(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The cookie of the node's.
#[inline(always)]
fn node_namespace() -> u64 {
    match config::node_netns() {
        // SAFETY: null asks for the initial namespace's cookie.
        0 => unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) },
        cookie => cookie,
    }
}

/// Whether the socket keeps the Service's address that it asks for: its packets are translated at the pod's device. Asked
/// only once a Service was found. A function of its own, so that the verifier walks it apart.
#[inline(never)]
pub(super) fn is_passed_by(ctx: &SockAddrContext) -> bool {
    let passes = if config::host_only() {
        namespace(ctx) != node_namespace()
    } else {
        config::passes_by() && is_to_pass(namespace(ctx))
    };
    if passes {
        count::event(NodeEvent::PassedSocket);
    }
    passes
}

/// What the agent says of a network namespace. One that it does not know yet is served, and it comes to look.
#[inline(always)]
fn is_to_pass(namespace: u64) -> bool {
    let Some(why) = BYPASSED.get_ptr(&namespace) else {
        count::event(NodeEvent::UnknownNamespace);
        return false;
    };
    // SAFETY: the value of BYPASSED is one aligned word. Cookies are never used again, and an element goes after its
    // namespace, so it is this one's.
    unsafe { why.read_volatile() != 0 }
}

/// The client behind a socket.
pub(super) struct SocketClient<'a>(pub(super) &'a SockAddrContext);

impl Client for SocketClient<'_> {
    #[inline(always)]
    fn identity(&self) -> Address {
        Address::of_namespace(namespace(self.0))
    }

    #[inline(always)]
    fn is_node(&self) -> bool {
        namespace(self.0) == node_namespace()
    }

    #[inline(always)]
    fn scope(&self) -> Scope {
        Scope::Inside
    }

    #[inline(always)]
    fn source(&self, tables: &impl Tables, destination: &Address) -> Option<Address> {
        let bound = bound_address(self.0, destination);
        if !bound.is_unspecified() {
            return Some(bound);
        }
        tables.client(namespace(self.0))?.for_destination(destination)
    }
}

/// The socket's own port; 0 before it has one.
#[inline(always)]
pub(super) fn local_port(ctx: &SockAddrContext) -> Port {
    // SAFETY: as in `is_connected`.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if socket.is_null() {
            Port::NONE
        } else {
            Port::new((&raw const (*socket).src_port).read_volatile() as u16)
        }
    }
}

/// Whether the socket is bound to the device `lo`.
#[inline(always)]
fn is_bound_to_loopback(ctx: &SockAddrContext) -> bool {
    const LOOPBACK_IFINDEX: u32 = 1;
    // SAFETY: as in `is_connected`.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        !socket.is_null() && (&raw const (*socket).bound_dev_if).read_volatile() == LOOPBACK_IFINDEX
    }
}

/// Chooses an endpoint of the Service behind `frontend` for this socket.
#[inline(always)]
pub(super) fn choose_for(ctx: &SockAddrContext, destination: &Address, frontend: Found) -> Decision {
    // SAFETY: helpers without pointers.
    let (clock, random) = (|| unsafe { bpf_ktime_get_ns() }, || unsafe { bpf_get_prandom_u32() });
    let decision = choose(&Maps, destination, frontend, &SocketClient(ctx), clock, random);
    if let Decision::Forward(forward) = &decision
        && let Some(reason) = obstacle(ctx, frontend, &forward.endpoint)
    {
        return Decision::Refuse { service: Some(frontend.service), reason };
    }
    decision
}

/// Why this socket must not get the endpoint that was chosen for it.
#[inline(always)]
fn obstacle(ctx: &SockAddrContext, frontend: Found, endpoint: &Endpoint) -> Option<Reason> {
    // A server that is down would be taken for up, and could not come up: its port is in use.
    let bound = bound_address(ctx, &endpoint.address);
    if local_port(ctx) == endpoint.port && bound.words() == endpoint.address.words() {
        return Some(Reason::OwnAddress);
    }
    if frontend.kind() == FrontendKind::NodePort as u8
        && (is_bound_to_loopback(ctx) || (bound.is_loopback() && !bound.is_unspecified()))
        && !Maps.address(&endpoint.address).has(AddressBits::NODE)
    {
        return Some(Reason::BoundToLoopback);
    }
    None
}

/// The address that a socket is bound to, in the family of `destination`; the "any" address where it is not.
///
/// A function of its own: inlined, the compiler joins its loads into one at an offset that the verifier does not know.
#[inline(never)]
fn bound_address(ctx: &SockAddrContext, destination: &Address) -> Address {
    // SAFETY: as in `is_connected`.
    unsafe {
        let socket = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if socket.is_null() {
            return Address::ANY_V6;
        }
        if destination.is_v4() {
            let v4 = (&raw const (*socket).src_ip4).read_volatile();
            return Address::from_words([0, 0, 0xffff_u32.to_be(), v4]);
        }
        let words = (&raw const (*socket).src_ip6).cast::<u32>();
        Address::from_words([
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ])
    }
}
