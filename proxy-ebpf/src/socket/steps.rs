//! Steps: what the hooks do with a UDP socket's records, in functions that the verifier knows by their types ("global
//! functions", 5.6). It walks each of them once in a program, not once for each path that leads there: four programs of
//! 50,000 instructions took the agent half a second to load.
//!
//! Such a function takes and returns plain numbers beside the context. A destination is three of them; an endpoint is its
//! slot: what a program has seen there stays until it ends, even if the endpoint goes meanwhile.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use proxy_common::{Address, Endpoint, FrontendKey, Port, Protocol, Translation};

use super::{connected, datagrams, translations};
use crate::tables::ENDPOINTS;

/// A destination, with an endpoint's slot or the index of a Service.
struct Numbers {
    high: u64,
    low: u64,
    /// From the lowest bit on: the port, the protocol, the slot or index.
    rest: u64,
}

impl Numbers {
    #[inline(always)]
    fn of(destination: &FrontendKey, number: u32) -> Self {
        let [a, b, c, d] = destination.address.words().map(u64::from);
        let (port, protocol) = (u64::from(destination.port.number), u64::from(destination.protocol));
        Self { high: a | b << 32, low: c | d << 32, rest: port | protocol << 16 | u64::from(number) << 32 }
    }

    #[inline(always)]
    fn destination(&self) -> FrontendKey {
        let Self { high, low, rest } = *self;
        let address = Address::from_words([high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]);
        FrontendKey::new(address, Port { number: rest as u16 }, (rest >> 16) as u8)
    }

    #[inline(always)]
    const fn number(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// The endpoint in this slot, where it is: a copy would be on the stack.
    #[inline(always)]
    fn endpoint(&self) -> Option<&'static Endpoint> {
        // SAFETY: a slot that a program has seen an endpoint in is not written before the program ends.
        ENDPOINTS.get_ptr(self.number()).map(|pointer| unsafe { &*pointer })
    }
}

/// Makes a typed function of a step.
macro_rules! step {
    ($(#[$doc:meta])* fn $step:ident($ctx:ident, $numbers:ident) -> u32 $body:block) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $step(sock_addr: *mut bpf_sock_addr, high: u64, low: u64, rest: u64) -> u32 {
            let ($ctx, $numbers) = (&SockAddrContext { sock_addr }, Numbers { high, low, rest });
            $body
        }
    };
}

#[inline(always)]
fn call(
    step: extern "C" fn(*mut bpf_sock_addr, u64, u64, u64) -> u32,
    ctx: &SockAddrContext,
    destination: &FrontendKey,
    number: u32,
) -> u32 {
    let Numbers { high, low, rest } = Numbers::of(destination, number);
    step(ctx.sock_addr, high, low, rest)
}

step! {
    fn record_peer(ctx, numbers) -> u32 {
        let destination = numbers.destination();
        if let Some(endpoint) = numbers.endpoint() {
            translations::connect(ctx, destination.protocol, &Translation::new(&destination, endpoint));
        }
        0
    }
}

/// Records that the socket is about to be connected to the endpoint in this slot.
#[inline(always)]
pub(super) fn connect(ctx: &SockAddrContext, destination: &FrontendKey, slot: u32) {
    call(record_peer, ctx, destination, slot);
}

step! {
    fn record_frontend(ctx, numbers) -> u32 {
        translations::connect(ctx, Protocol::Udp as u8, &Translation::unserved(&numbers.destination()));
        0
    }
}

/// Records that the UDP socket is about to be connected to a Service without endpoints.
#[inline(always)]
pub(super) fn connect_unserved(ctx: &SockAddrContext, destination: &FrontendKey) {
    call(record_frontend, ctx, destination, 0);
}

step! {
    fn keep_endpoint(ctx, numbers) -> u32 {
        let known = translations::kept(ctx, &numbers.destination(), numbers.number());
        u32::from(known.is_some_and(|known| translations::connect_kept(ctx, known)))
    }
}

/// Records that the UDP socket is about to be connected to the endpoint that it has for this destination, if that serves.
#[inline(always)]
pub(super) fn keep(
    ctx: &SockAddrContext,
    destination: &FrontendKey,
    service: u32,
) -> Option<&'static Translation> {
    if call(keep_endpoint, ctx, destination, service) == 0 {
        return None;
    }
    connected::record(ctx).map(|record| &*record)
}

step! {
    fn connect_past_services(ctx, numbers) -> u32 {
        translations::disconnect(ctx, &numbers.destination());
        0
    }
}

/// Records that the UDP socket is about to be connected to an address that is no Service's.
#[inline(always)]
pub(super) fn disconnect(ctx: &SockAddrContext, destination: &FrontendKey) {
    call(connect_past_services, ctx, destination, 0);
}

step! {
    fn send_by_record(ctx, numbers) -> u32 {
        let Some(known) = translations::kept(ctx, &numbers.destination(), numbers.number()) else { return 0 };
        translations::send_by(ctx, known);
        known + 1
    }
}

/// The translation by which the socket sends to this destination again, if its endpoint serves.
#[inline(always)]
pub(super) fn send_again(
    ctx: &SockAddrContext,
    destination: &FrontendKey,
    service: u32,
) -> Option<&'static Translation> {
    let known = call(send_by_record, ctx, destination, service).checked_sub(1)?;
    datagrams::numbered(ctx, known).map(|record| &*record)
}

step! {
    fn record_datagram(ctx, numbers) -> u32 {
        if let Some(endpoint) = numbers.endpoint() {
            translations::send_first(ctx, &mut Translation::new(&numbers.destination(), endpoint));
        }
        0
    }
}

/// Records that the socket sends to the endpoint in this slot for the first time.
#[inline(always)]
pub(super) fn send_first(ctx: &SockAddrContext, destination: &FrontendKey, slot: u32) {
    call(record_datagram, ctx, destination, slot);
}

step! {
    fn send_past_services(ctx, numbers) -> u32 {
        translations::send_directly(ctx, &numbers.destination());
        0
    }
}

/// Records that the socket sends to an address that is no Service's.
#[inline(always)]
pub(super) fn send_directly(ctx: &SockAddrContext, destination: &FrontendKey) {
    call(send_past_services, ctx, destination, 0);
}
