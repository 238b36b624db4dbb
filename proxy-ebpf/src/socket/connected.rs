//! SOCKETS: the peer that a UDP socket was connected to last, and that of a TCP socket whose element of PEERS another
//! living socket holds.
//!
//! The hook runs before the kernel decides: a connect may still fail, and taking the peer away (AF_UNSPEC) runs no
//! hook. So readers compare a record with the peer's address in front of them.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Port, Translation};

use crate::tables::SOCKETS;

/// The socket's record, which lives as long as the program runs.
#[inline(always)]
pub(super) fn record(ctx: &SockAddrContext) -> Option<&'static mut Translation> {
    // SAFETY: the storage is the socket's own, and the kernel holds the socket's lock in these hooks.
    unsafe { SOCKETS.get_ptr_mut(ctx).as_mut() }
}

/// Writes the record; `false` if the kernel has no memory for one.
#[inline(always)]
pub(super) fn write(ctx: &SockAddrContext, translation: &Translation) -> bool {
    // SAFETY: as in `record`; a null initial value asks for zeros.
    match unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() } {
        Some(record) => {
            *record = *translation;
            true
        }
        None => false,
    }
}

/// Empties the record, if there is one. A bypass stays one.
#[inline(always)]
pub(super) fn clear(ctx: &SockAddrContext) {
    if let Some(record) = record(ctx) {
        record.frontend_port = Port::NONE;
    }
}
