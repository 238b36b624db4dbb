//! Events: what whoever listens is told, and the recorder of refusals.
//!
//! LISTENING says until when somebody listens. Where something is decided, the programs look at that word; while it is 0, they tell
//! nothing. Packets of established connections decide nothing.

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, bpf_sock_addr},
    helpers::{bpf_get_current_pid_tgid, bpf_get_prandom_u32, bpf_ktime_get_ns, generated},
    programs::SockAddrContext,
};
use bytemuck::must_cast;
use proxy_common::{
    Address, Endpoint, Event, FrontendKey, Happening, LastRefusal, Listener, NodeEvent, Reason, Record,
    RefusedPair,
    connection::{Ends, Origin},
    event::LISTENERS as MOST,
};

use crate::{
    config, count,
    socket::namespace_of,
    tables::{ENDPOINTS, EVENTS, FLOWS, LAST_REFUSALS, LISTENERS, LISTENING, RECORDED_RATE},
};

/// How many pairs of sockets, and of packets, may be new to LAST_REFUSALS in a second: a flood of forged addresses is neither to
/// push out everything else at once, nor to keep out this node's own clients.
const RATE_OF_SOCKETS: u64 = 100;
const RATE_OF_PACKETS: u64 = 20;

/// The socket is about to get the endpoint in this slot.
#[inline(always)]
pub(crate) fn chosen(ctx: &SockAddrContext, destination: &FrontendKey, slot: u32) {
    tell_of_socket(ctx, destination, slot, 0);
}

/// The socket is refused by this Service, or by [`RefusedPair::NO_SERVICE`]. Counts it for both node and Service.
#[inline(always)]
pub(crate) fn refused_socket(ctx: &SockAddrContext, destination: &FrontendKey, service: u32, reason: Reason) {
    record(&Address::of_namespace(namespace_of(ctx)), destination, service, reason as u32);
    tell_of_socket(ctx, destination, service, reason as u32);
}

/// The same for the sender of a packet.
#[inline(always)]
pub(crate) fn refused_packet(client: &Address, frontend: &FrontendKey, service: u32, reason: Reason) {
    let rest = record(client, frontend, service, reason as u32);
    tell_of_packet(client, frontend, rest);
}

/// A packet of this connection is lost, or its endpoint did not want it; the record has this index in FLOWS.
#[inline(always)]
pub(crate) fn lost(ends: &Ends, index: u32, what: NodeEvent) {
    let frontend = FrontendKey::new(ends.frontend, ends.frontend_port, ends.protocol);
    let service = match FLOWS.get_ptr(index) {
        // SAFETY: a word of a value of FLOWS, which may be of another connection by now.
        Some(record) => unsafe { (&raw const (*record).origin.service).read_volatile() },
        None => RefusedPair::NO_SERVICE,
    };
    let rest = record(&ends.client, &frontend, service, what as u32);
    tell_of_packet(&ends.client, &frontend, rest);
}

/// Something happens to the connection with this index in FLOWS.
#[inline(always)]
pub(crate) fn flow(happening: Happening, index: u32) {
    if is_listened() {
        tell_flow(happening as u32, index);
    }
}

/// Returns what [`RefusedPair::rest`] made of it.
#[inline(always)]
fn record(client: &Address, frontend: &FrontendKey, service: u32, what: u32) -> u64 {
    let ([client_high, client_low], [high, low]) = (halves(client), halves(&frontend.address));
    let rest = RefusedPair::rest(frontend, what, service);
    record_refusal(client_high, client_low, high, low, rest);
    rest
}

#[inline(always)]
fn tell_of_socket(ctx: &SockAddrContext, destination: &FrontendKey, number: u32, reason: u32) {
    if is_listened() {
        let [high, low] = halves(&destination.address);
        tell_socket(ctx.sock_addr, high, low, RefusedPair::rest(destination, reason, number));
    }
}

#[inline(always)]
fn tell_of_packet(client: &Address, frontend: &FrontendKey, rest: u64) {
    if is_listened() {
        let ([client_high, client_low], [high, low]) = (halves(client), halves(&frontend.address));
        tell_refused(client_high, client_low, high, low, rest);
    }
}

#[inline(always)]
fn is_listened() -> bool {
    // SAFETY: the value of LISTENING is one aligned word.
    LISTENING.get_ptr(0).is_some_and(|until| unsafe { until.read_volatile() } != 0)
}

#[inline(always)]
fn halves(address: &Address) -> [u64; 2] {
    let [a, b, c, d] = address.words().map(u64::from);
    [a | b << 32, c | d << 32]
}

/// Counts a refusal, and records it. A step, as those that follow: it takes a [`RefusedPair`] in registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn record_refusal(client_high: u64, client_low: u64, high: u64, low: u64, rest: u64) -> u32 {
    let pair = RefusedPair::from_words([client_high, client_low], [high, low], rest);
    count::refusal(&pair);
    let now = now();
    if let Some(known) = LAST_REFUSALS.get_ptr_mut(&pair) {
        // SAFETY: aligned words of a map's value, which lives as long as the program runs.
        unsafe {
            (&raw mut (*known).last).write_volatile(now);
            count::add(&raw mut (*known).count);
        }
        return 0;
    }
    let (rate, most) =
        if pair.client.namespace().is_some() { (0, RATE_OF_SOCKETS) } else { (1, RATE_OF_PACKETS) };
    let value = must_cast::<[u64; 3], LastRefusal>([now, now, 1]);
    // A full LRU makes room.
    if !count::take(RECORDED_RATE.get_ptr_mut(rate), most) || LAST_REFUSALS.insert(&pair, &value, 0).is_err()
    {
        count::event(NodeEvent::UnrecordedRefusal);
    }
    0
}

/// `rest` is as of a [`RefusedPair`]; without a reason, its number is not that of a Service, but of the endpoint's slot.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_socket(sock_addr: *mut bpf_sock_addr, high: u64, low: u64, rest: u64) -> u32 {
    let (what, number) = (rest as u32 >> 24, (rest >> 32) as u32);
    let mut service = number;
    let mut endpoint = None;
    if what == 0 {
        let Some(chosen) = ENDPOINTS.get_ptr(number) else { return 0 };
        // SAFETY: a slot that a program has seen an endpoint in is not written before the program ends.
        let chosen = unsafe { &*chosen };
        service = chosen.service;
        endpoint = Some(chosen);
    }
    let happening = if what == 0 { Happening::Chosen } else { Happening::Refused };
    let client = Address::of_namespace(namespace_of(&SockAddrContext { sock_addr }));
    tell(happening, what, service, &client, |event| {
        event.set_frontend(must_cast([high, low]), rest);
        if let Some(Endpoint { address, port, .. }) = endpoint {
            event.endpoint = *address;
            event.endpoint_port = *port;
        }
        // Kernels that do not let socket programs ask do not let packet programs, either: not where both are told.
        if config::has_caller() {
            event.process = (bpf_get_current_pid_tgid() >> 32) as u32;
            let (thread, length) = ((&raw mut event.thread).cast(), size_of_val(&event.thread) as u32);
            // SAFETY: the helper writes so many bytes. (By value they would be on the stack.)
            unsafe { generated::bpf_get_current_comm(thread, length) };
        }
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_refused(client_high: u64, client_low: u64, high: u64, low: u64, rest: u64) -> u32 {
    let client = must_cast([client_high, client_low]);
    let (what, service) = (rest as u32 >> 24, (rest >> 32) as u32);
    tell(Happening::Refused, what, service, &client, |event| event.set_frontend(must_cast([high, low]), rest))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_flow(happening: u32, index: u32) -> u32 {
    let Some(record) = FLOWS.get_ptr(index) else { return 0 };
    // SAFETY: a value of FLOWS.
    let Record { ends, origin } = unsafe { &*record };
    let Some(happening) = Happening::from_number(happening) else { return 0 };
    // The record of a connection that has ended, or is idle, stays until its slot is needed.
    if happening == Happening::Evicted && (ends.seen.ended() || is_idle(origin)) {
        return 0;
    }
    let what = if happening == Happening::Reset { u32::from(ends.seen.reset) } else { 0 };
    tell(happening, what, origin.service, &ends.client, |event| {
        event.client_port = ends.client_port;
        event.frontend = ends.frontend;
        event.frontend_port = ends.frontend_port;
        event.protocol = ends.protocol;
        event.endpoint = ends.endpoint;
        event.endpoint_port = ends.endpoint_port;
    })
}

/// Whether a connection has been without a packet for so long that nobody misses its record.
#[inline(always)]
fn is_idle(origin: &Origin) -> bool {
    const SECONDS: u32 = 30;
    ((now() / 1_000_000_000) as u32).wrapping_sub(origin.seconds) > SECONDS
}

/// Tells an event to everybody who wants it, with what `fill` knows of it.
#[inline(always)]
fn tell(happening: Happening, what: u32, service: u32, client: &Address, fill: impl Fn(&mut Event)) -> u32 {
    let now = now();
    let Some(listening) = LISTENING.get_ptr_mut(0) else { return 0 };
    // SAFETY: the value of LISTENING is one aligned word.
    if unsafe { listening.read_volatile() } <= now {
        // The last one has ended without a word. One who begins at this moment says so again.
        // SAFETY: as above.
        unsafe { listening.write_volatile(0) };
        return 0;
    }
    let mut slot = 0;
    while slot < MOST {
        if let Some(listener) = LISTENERS.get_ptr_mut(slot) {
            // SAFETY: an element of the map, which lives as long as the program runs. While its listener changes its mind, what is
            // read may be of both.
            let wishes = unsafe { &*listener };
            if wishes.until > now && wishes.wants(happening, what, service, client) && is_drawn(wishes.sample)
            {
                hand(slot, listener, |event| {
                    event.time = now;
                    event.client = *client;
                    event.service = service;
                    event.happening = happening as u8;
                    event.what = what;
                    fill(event);
                });
            }
        }
        slot += 1;
    }
    0
}

#[inline(always)]
fn hand(slot: u32, listener: *mut Listener, fill: impl Fn(&mut Event)) {
    // SAFETY: aligned words of an element of the map.
    let (heard, dropped) = unsafe { (&raw mut (*listener).heard, &raw mut (*listener).dropped) };
    count::add(heard);
    // SAFETY: the kernel frees a buffer only when no program can still use it.
    let entry = unsafe { EVENTS.get(&slot) }.and_then(|events| events.reserve(0));
    let Some(mut entry) = entry else {
        count::add(dropped);
        return;
    };
    // SAFETY: any bytes are an event, and each field is written.
    let event = unsafe {
        entry.as_mut_ptr().write_bytes(0, 1);
        &mut *entry.as_mut_ptr()
    };
    fill(event);
    // Who listens looks in turns: a wake-up for each event would cost those whom the programs serve.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
fn is_drawn(sample: u32) -> bool {
    // SAFETY: the helper takes no pointers.
    sample <= 1 || unsafe { bpf_get_prandom_u32() } % sample == 0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no pointers.
    unsafe { bpf_ktime_get_ns() }
}
