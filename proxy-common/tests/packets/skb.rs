//! A packet in memory, with the kernel's state of its checksum. The sums are those of `bpf_l4_csum_replace`
//! (net/core/filter.c), implemented independently.

use bytemuck::Pod;
use proxy_common::packet::{Change, Edit, Read};

/// Length of the link header before the packet.
pub(crate) const LINK: u32 = 14;

/// State of the transport checksum (`skb->ip_summed`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Summed {
    /// The packet contains it.
    None,
    /// The device computes it when the packet leaves: the field holds the sum of the pseudo-header.
    Partial,
    /// The packet contains it, and the device computed this sum over all bytes of the received packet.
    Complete(u16),
}

/// The packet.
#[derive(Clone, Debug)]
pub(crate) struct Skb {
    pub(crate) bytes: Vec<u8>,
    pub(crate) summed: Summed,
}

impl Skb {
    pub(crate) fn new(packet: &[u8]) -> Self {
        Self { bytes: [&[0xee; LINK as usize], packet].concat(), summed: Summed::None }
    }

    /// A packet with `CHECKSUM_COMPLETE`.
    pub(crate) fn complete(packet: &[u8]) -> Self {
        Self { summed: Summed::Complete(add(packet)), ..Self::new(packet) }
    }

    /// The packet without its link header, which must not change.
    pub(crate) fn packet(&self) -> &[u8] {
        let (link, packet) = self.bytes.split_at(LINK as usize);
        assert_eq!(link, [0xee; LINK as usize]);
        packet
    }

    /// Whether the sum of the device still matches the bytes.
    pub(crate) fn is_consistent(&self) -> bool {
        match self.summed {
            Summed::Complete(sum) => sum % 0xffff == add(self.packet()) % 0xffff,
            Summed::None | Summed::Partial => true,
        }
    }
}

impl Read for Skb {
    fn load<T: Pod>(&self, offset: u32) -> Option<T> {
        let bytes = self.bytes.get(offset as usize..)?.get(..size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

impl Edit for Skb {
    fn transport_checksum(&mut self, offset: u32, difference: u32, change: Change) -> Option<()> {
        // The helper refuses odd offsets.
        if !offset.is_multiple_of(2) {
            return None;
        }
        let field = self.bytes.get_mut(offset as usize..)?.get_mut(..2)?;
        let old = u16::from_ne_bytes([field[0], field[1]]);
        if change.optional && old == 0 {
            return Some(());
        }
        let mut new = old;
        if self.summed != Summed::Partial {
            new = !fold(u64::from(!old) + u64::from(difference));
            if let Summed::Complete(sum) = &mut self.summed
                && change.pseudo_header
                && !change.v6
            {
                *sum = !fold(u64::from(difference) + u64::from(!*sum));
            }
        } else if change.pseudo_header {
            new = fold(u64::from(difference) + u64::from(old));
        }
        if change.optional && new == 0 {
            new = 0xffff;
        }
        field.copy_from_slice(&new.to_ne_bytes());
        Some(())
    }

    fn uncovered(&mut self, difference: u32) {
        if let Summed::Complete(sum) = &mut self.summed {
            *sum = fold(u64::from(*sum) + u64::from(difference));
        }
    }

    fn store<T: Pod>(&mut self, offset: u32, value: &T) -> Option<()> {
        self.bytes
            .get_mut(offset as usize..)?
            .get_mut(..size_of::<T>())?
            .copy_from_slice(bytemuck::bytes_of(value));
        Some(())
    }
}

/// The sum of all words in memory order.
pub(crate) fn add(bytes: &[u8]) -> u16 {
    fold(
        bytes
            .chunks(2)
            .map(|pair| u64::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
            .sum(),
    )
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).expect("sixteen bits")
}
