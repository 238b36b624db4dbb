//! `struct __sk_buff`: reading and editing a packet with the kernel's helpers, which handle offloaded checksums,
//! segmentation and non-linear packets.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{bpf_csum_update, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use bytemuck::Pod;
use proxy_common::packet::{
    Change, Edit, Read,
    layouts::{ETHER_IPV4, ETHER_IPV6},
};

use crate::config;

/// `BPF_F_IPV6` (6.16, 6043b794c766).
const BPF_F_IPV6: u64 = 1 << 7;

const ETH_P_IP: u32 = ETHER_IPV4 as u32;
const ETH_P_IPV6: u32 = ETHER_IPV6 as u32;

/// A packet at a hook.
pub(super) struct Skb<'a>(pub(super) &'a TcContext);

/// The IP version of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// Whom a frame is for, by its Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// This device.
    Us,
    /// Another one: a switch has flooded it, or this device is a bridge's port.
    Other,
    /// Broadcast or multicast.
    All,
}

/// How long a packet has gone round through the device's own queue.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// Start, in units of 2^20 ns, modulo [`Held::CLOCK`] + 1.
    pub(super) since: u32,
    /// Number of rounds, up to 255.
    pub(super) rounds: u32,
}

impl Held {
    /// Mask of `since`.
    pub(super) const CLOCK: u32 = (1 << Self::ROUNDS) - 1;
    /// Offset of the bits of `rounds` in the word of both.
    const ROUNDS: u32 = 24;
}

impl Skb<'_> {
    /// The IP version; `None` for other protocols, and for packets with a VLAN tag, which come to the device of
    /// the VLAN again. A tag of VLAN 0 only has a priority, and the stack removes it.
    #[inline(always)]
    pub(super) fn version(&self) -> Option<Version> {
        let skb = self.0.skb.skb;
        // SAFETY: the kernel passes a valid context; volatile, since the verifier wants whole fields.
        let (tagged, protocol) = unsafe {
            ((&raw const (*skb).vlan_present).read_volatile(), (&raw const (*skb).protocol).read_volatile())
        };
        // SAFETY: as above.
        let vlan = || unsafe { (&raw const (*skb).vlan_tci).read_volatile() } & 0xfff;
        match protocol {
            _ if tagged != 0 && vlan() != 0 => None,
            ETH_P_IP => Some(Version::V4),
            ETH_P_IPV6 => Some(Version::V6),
            _ => None,
        }
    }

    /// Whom the frame is for.
    #[inline(always)]
    pub(super) fn receiver(&self) -> Receiver {
        const PACKET_HOST: u32 = 0;
        const PACKET_OTHERHOST: u32 = 3;
        // SAFETY: as in `version`.
        match unsafe { (&raw const (*self.0.skb.skb).pkt_type).read_volatile() } {
            PACKET_HOST => Receiver::Us,
            PACKET_OTHERHOST => Receiver::Other,
            _ => Receiver::All,
        }
    }

    /// Whether the packet carries a VLAN tag, including that of VLAN 0.
    #[inline(always)]
    pub(super) fn is_tagged(&self) -> bool {
        // SAFETY: as in `version`.
        unsafe { (&raw const (*self.0.skb.skb).vlan_present).read_volatile() != 0 }
    }

    /// Payload of each segment of a GSO packet, in bytes; 0 for another packet.
    #[inline(always)]
    pub(super) fn segment_size(&self) -> u32 {
        // SAFETY: as in `version`.
        unsafe { (&raw const (*self.0.skb.skb).gso_size).read_volatile() }
    }

    /// Tells egress that the packet needs no further translation.
    #[inline(always)]
    pub(super) fn set_sent_on(&self) {
        let skb = self.0.skb.skb;
        // SAFETY: as in `version`; in `cb`, programs leave data to later programs.
        unsafe {
            (&raw mut (*skb).cb[0]).write_volatile(config::flow_seed() as u32);
            (&raw mut (*skb).cb[1]).write_volatile((config::flow_seed() >> 32) as u32);
        }
    }

    /// Whether ingress called [`Skb::set_sent_on`]. The stack clears `cb` of packets that pass through it.
    #[inline(always)]
    pub(super) fn is_sent_on(&self) -> bool {
        let skb = self.0.skb.skb;
        // SAFETY: as in `version`.
        let [low, high] =
            unsafe { [(&raw const (*skb).cb[0]).read_volatile(), (&raw const (*skb).cb[1]).read_volatile()] };
        u64::from(low) | u64::from(high) << 32 == config::flow_seed()
    }

    /// How long a packet has gone round through the device's own queue; `None` if it has not.
    #[inline(always)]
    pub(super) fn held(&self) -> Option<Held> {
        let skb = self.0.skb.skb;
        // SAFETY: as in `version`.
        let [held, low, high] = unsafe {
            [
                (&raw const (*skb).cb[2]).read_volatile(),
                (&raw const (*skb).cb[3]).read_volatile(),
                (&raw const (*skb).cb[4]).read_volatile(),
            ]
        };
        let is_ours = u64::from(low) | u64::from(high) << 32 == config::flow_seed();
        is_ours.then_some(Held { since: held & Held::CLOCK, rounds: held >> Held::ROUNDS })
    }

    /// Stores this for the next round of the packet.
    #[inline(always)]
    pub(super) fn set_held(&self, held: Held) {
        let skb = self.0.skb.skb;
        // SAFETY: as in `set_sent_on`.
        unsafe {
            (&raw mut (*skb).cb[2]).write_volatile(held.since | held.rounds << Held::ROUNDS);
            (&raw mut (*skb).cb[3]).write_volatile(config::flow_seed() as u32);
            (&raw mut (*skb).cb[4]).write_volatile((config::flow_seed() >> 32) as u32);
        }
    }

    /// Index of the device.
    #[inline(always)]
    pub(super) fn device(&self) -> u32 {
        // SAFETY: as in `version`.
        unsafe { (&raw const (*self.0.skb.skb).ifindex).read_volatile() }
    }
}

impl Skb<'_> {
    /// The bytes of the packet's linear part at `offset`, where nearly all headers are; `None` if the linear part
    /// is too short.
    #[inline(always)]
    pub(super) fn head<T: Pod>(&self, offset: u32) -> Option<&T> {
        let (begin, end) = (self.0.data(), self.0.data_end());
        let head = begin + offset as usize;
        if head + size_of::<T>() > end {
            return None;
        }
        // SAFETY: within the packet (just checked, which is what the verifier looks for).
        Some(unsafe { &*(head as *const T) })
    }
}

impl Read for Skb<'_> {
    #[inline(always)]
    fn load<T: Pod>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, or fails.
        unsafe {
            let result =
                bpf_skb_load_bytes(self.0.as_ptr(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
            if result == 0 { Some(value.assume_init()) } else { None }
        }
    }
}

impl Edit for Skb<'_> {
    #[inline(always)]
    fn transport_checksum(&mut self, offset: u32, difference: u32, change: Change) -> Option<()> {
        let mut flags = 0;
        if change.pseudo_header {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if change.optional {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let replace = |flags| {
            // SAFETY: the helper takes the program's own context.
            unsafe { bpf_l4_csum_replace(self.0.skb.skb, offset, 0, u64::from(difference), flags) }
        };
        if change.pseudo_header && change.v6 {
            if replace(flags | BPF_F_IPV6) == 0 {
                return Some(());
            }
            // An older kernel takes every packet for IPv4, and changes the device's sum over all bytes
            // (CHECKSUM_COMPLETE), which stays the same in IPv6. This reverts the change; without such a sum it
            // does nothing.
            // SAFETY: as above.
            unsafe { bpf_csum_update(self.0.skb.skb, difference) };
        }
        done(replace(flags))
    }

    #[inline(always)]
    fn uncovered(&mut self, difference: u32) {
        // Without CHECKSUM_COMPLETE the helper changes nothing, and returns an error.
        // SAFETY: the helper takes the program's own context.
        unsafe { bpf_csum_update(self.0.skb.skb, difference) };
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: u32, value: &T) -> Option<()> {
        self.store_with(offset, value, 0)
    }
}

impl Skb<'_> {
    /// Writes `value` at `offset`, with `BPF_F_` flags.
    #[inline(always)]
    pub(super) fn store_with<T: Pod>(&mut self, offset: u32, value: &T, flags: u64) -> Option<()> {
        // SAFETY: the helper reads `value`.
        done(unsafe {
            bpf_skb_store_bytes(
                self.0.skb.skb,
                offset,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        })
    }
}

#[inline(always)]
fn done(result: i64) -> Option<()> {
    if result == 0 { Some(()) } else { None }
}
