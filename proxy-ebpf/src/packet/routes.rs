//! Route lookups.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_fib_lookup as Lookup, helpers::bpf_fib_lookup, programs::TcContext,
};
use proxy_common::{Address, Network};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const SIZE: i32 = size_of::<Lookup>().cast_signed() as i32;

/// Looks up the route of a packet that arrives at `device`. Returns a `BPF_FIB_LKUP_RET_`, or another number on
/// error.
#[inline(always)]
pub(super) fn lookup(ctx: &TcContext, question: &mut Lookup, device: u32, flags: u32) -> u32 {
    question.ifindex = device;
    // SAFETY: the helper takes the program's own context, and writes to arguments of this length.
    let answer = unsafe { bpf_fib_lookup(ctx.as_ptr(), question, SIZE, flags) };
    answer.cast_unsigned() as u32
}

/// Prepares the lookup of a destination, without ports and length. Overwrites what is left of an earlier lookup.
#[inline(always)]
pub(super) fn ask(lookup: &mut Lookup, network: &Network, source: &Address, destination: &Address) {
    lookup.l4_protocol = network.protocol;
    (lookup.sport, lookup.dport) = (0, 0);
    lookup.__bindgen_anon_1.tot_len = 0;
    lookup.__bindgen_anon_2.flowinfo = 0;
    if network.v6 {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = source.words();
        lookup.__bindgen_anon_4.ipv6_dst = destination.words();
    } else {
        let ([.., source], [.., destination]) = (source.words(), destination.words());
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = source;
        lookup.__bindgen_anon_4.ipv4_dst = destination;
    }
}

/// Whether the route that was found leads to a gateway, and not to `destination` itself.
#[inline(always)]
pub(super) fn gateway(lookup: &Lookup, network: &Network, destination: &Address) -> bool {
    let [.., last] = destination.words();
    // An IPv4 route may go by a gateway in IPv6.
    let family = if network.v6 { AF_INET6 } else { AF_INET };
    // SAFETY: plain numbers, whichever the helper wrote.
    unsafe {
        lookup.family != family
            || if network.v6 {
                lookup.__bindgen_anon_4.ipv6_dst != destination.words()
            } else {
                lookup.__bindgen_anon_4.ipv4_dst != last
            }
    }
}

/// The source address that the routes prefer, if the lookup asked for it.
#[inline(always)]
pub(super) fn source(lookup: &Lookup, network: &Network) -> Address {
    // SAFETY: plain numbers, whichever the helper wrote.
    unsafe {
        if network.v6 {
            Address::from_words(lookup.__bindgen_anon_3.ipv6_src)
        } else {
            Address::from_words([0, 0, 0xffff_u32.to_be(), lookup.__bindgen_anon_3.ipv4_src])
        }
    }
}
