//! The packet hooks: what comes from outside of the node, at TC.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

/// Packets that come in through a device with an Ethernet header.
#[classifier]
pub(crate) fn ingress(ctx: TcContext) -> i32 {
    hook(&ctx)
}

/// Packets that go out through a device with an Ethernet header.
#[classifier]
pub(crate) fn egress(ctx: TcContext) -> i32 {
    hook(&ctx)
}

/// Packets that come in through a device without a link header.
#[classifier]
pub(crate) fn ingress_l3(ctx: TcContext) -> i32 {
    hook(&ctx)
}

/// Packets that go out through a device without a link header.
#[classifier]
pub(crate) fn egress_l3(ctx: TcContext) -> i32 {
    hook(&ctx)
}

#[inline(always)]
fn hook(ctx: &TcContext) -> i32 {
    // Keeps the maps and globals of the contract in the object until the programs use them.
    if ctx.len() == u32::MAX {
        let key = bytemuck::Zeroable::zeroed();
        let fragment = bytemuck::Zeroable::zeroed();
        let found = crate::tables::FLOWS.get_ptr(&key).is_some()
            | crate::tables::FLOWS_NEW.get_ptr(&key).is_some()
            | crate::tables::FRAGMENTS.get_ptr(&fragment).is_some()
            | crate::tables::INTERFACES.get_ptr(&0).is_some()
            | crate::tables::REFUSED_RATE.get_ptr(0).is_some();
        let globals = u32::from(crate::config::has_fib_source())
            + u32::from(crate::config::source_ports().0)
            + u32::from(crate::config::source_ports().1)
            + crate::config::udp_timeout();
        return i32::from(found) + globals as i32;
    }
    TC_ACT_UNSPEC
}
