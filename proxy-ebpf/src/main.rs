//! Sidestep's kernel programs: thin hooks around `proxy_common::select`.
//!
//! | module | holds |
//! |---|---|
//! | `tables` | the maps, and how the decision reads them |
//! | `config` | constants that the loader sets before verification |
//! | `count` | counters |
//! | `events` | what whoever listens is told, and the recorder of refusals |
//! | `packet` | the programs at TC: north-south traffic |
//! | `socket` | the programs at `connect`, `sendmsg`, `recvmsg`, `getpeername` and `sock_release` |
//! | `system_calls` | a counter for the benchmark, only in the object that it loads |
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "a hook's signature is the kernel's: it gets its context by value"
)]
#![expect(clippy::cast_possible_truncation, reason = "the kernel passes ports and protocols in wider fields")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value a key is copied, and the stack has 512 bytes"
)]
#![feature(asm_experimental_arch)]

mod config;
mod count;
mod events;
mod packet;
mod socket;
#[cfg(feature = "bench")]
mod system_calls;
mod tables;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier rejects a program that can enter this loop.
    loop {}
}

/// Compatible with the GPL, as helpers such as `bpf_fib_lookup` require.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
