//! The Internet checksum (RFC 1071), and its incremental update (RFC 1624).
//!
//! Sums are in native byte order over the words in memory, as in the kernel: the one's complement sum works in
//! either order.

use crate::address::{Address, Port};

/// What replacing the address `old` by `new` adds to a sum.
#[inline(always)]
pub const fn of_address(old: &Address, new: &Address) -> u32 {
    let [old, new] = [old.words(), new.words()];
    let mut sum = 0;
    let mut word = 0;
    while word < 4 {
        sum += !old[word] as u64 + new[word] as u64;
        word += 1;
    }
    fold_words(sum)
}

/// What replacing the port `old` by `new` adds to a sum.
#[inline(always)]
pub const fn of_port(old: Port, new: Port) -> u32 {
    difference(old.to_network(), new.to_network())
}

/// What replacing the sixteen bits `old` by `new`, both as they lie in memory, adds to a sum.
#[inline(always)]
pub const fn difference(old: u16, new: u16) -> u32 {
    !old as u32 + new as u32
}

/// The sum of two sums.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    fold_words(a as u64 + b as u64)
}

/// Updates `checksum` after the data that it covers changed by `difference`.
#[inline(always)]
pub const fn adjust(checksum: u16, difference: u32) -> u16 {
    finish(add(!checksum as u32, difference))
}

/// The checksum of a sum: its complement, folded to sixteen bits.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The sum of bytes. Only the end of a packet may have an odd number of them.
pub fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        _ => 0,
    });
    fold_words(words.sum())
}

/// The sum of a pseudo-header. `length` is that of the transport header and its data.
pub fn pseudo_header(source: &Address, destination: &Address, protocol: u8, length: u32) -> u32 {
    let addresses = if source.is_v4() {
        let ([.., a], [.., b]) = (source.words(), destination.words());
        fold_words(u64::from(a) + u64::from(b))
    } else {
        add(sum(&source.bytes), sum(&destination.bytes))
    };
    let [.., low, high] = [length >> 16, length & 0xffff].map(|half| u32::from((half as u16).to_be()));
    fold_words(
        u64::from(addresses) + u64::from(low) + u64::from(high) + u64::from(u16::from(protocol).to_be()),
    )
}

#[inline(always)]
const fn fold_words(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2.
    #[test]
    fn the_sum_of_the_rfcs_example() {
        let sum = sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(finish(sum).to_ne_bytes(), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn an_adjusted_checksum_is_the_one_computed_anew() {
        let mut bytes = *b"\x45\x00\x00\x54\x1c\x46\x40\x00\x40\x06\x00\x00\xac\x10\x0a\x63\xac\x10\x0a\x0c";
        let before = finish(sum(&bytes));
        let (old, new) = (Address::from_v4([172, 16, 10, 12]), Address::from_v4([10, 244, 1, 10]));
        bytes[16..].copy_from_slice(&[10, 244, 1, 10]);
        assert_eq!(adjust(before, of_address(&old, &new)), finish(sum(&bytes)));
    }
}
