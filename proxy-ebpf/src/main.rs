//! Sidestep's kernel programs: thin hooks around `proxy_common::select`.
//!
//! | module | holds |
//! |---|---|
//! | `tables` | the maps, and how the decision reads them |
//! | `config` | what the loader tells the programs before the verifier sees them |
//! | `count` | counters |
//! | `socket` | the hooks at `connect`, `sendmsg`, `recvmsg` and `getpeername` |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod config;
mod count;
mod socket;
mod tables;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here may panic: the verifier refuses a program that could come to this loop.
    loop {}
}

/// Helpers such as `bpf_ktime_get_ns` are open to programs under any of these licences.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
