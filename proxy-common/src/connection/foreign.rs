//! FOREIGN_PORTS: which source ports conntrack masquerades connections with, as a filter.
//!
//! kube-proxy's connections outlive its rules, and conntrack knows their source ports by endpoint, as SOURCE_PORTS knows
//! ours. An answer cannot tell which of the two asked, so no endpoint may have one port twice.

use super::buckets;
use crate::address::{Address, Port};

/// Words of FOREIGN_PORTS: a power of two. 64 KiB; with a hundred thousand such connections one port in six is passed
/// over needlessly.
pub const FOREIGN_WORDS: u32 = 1 << 13;

/// Seconds for which OUTGOING says that an answer is expected: as long as netfilter keeps a UDP stream.
pub const EXPECTED: u64 = 180;

/// Which word of FOREIGN_PORTS a connection to the endpoint that is masqueraded with this port has a bit in, and the
/// bit.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "parts of the hash")]
pub const fn foreign_bit(
    endpoint: &Address,
    endpoint_port: Port,
    protocol: u8,
    source_port: Port,
) -> (u32, u64) {
    let seed = (source_port.number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let hash = buckets::hash(endpoint, endpoint_port, protocol, seed);
    ((hash >> (64 - FOREIGN_WORDS.trailing_zeros())) as u32, 1 << (hash >> 40 & 63))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;

    #[test]
    fn ports_and_endpoints_are_spread_over_all_bits() {
        let bits: BTreeSet<(u32, u64)> = (0..4_u8)
            .flat_map(|last| (0..4096).map(move |port| (IpAddr::from([10, 244, 1, last]), port)))
            .map(|(ip, port)| foreign_bit(&ip.into(), Port::new(8080), 6, Port::new(49_152 + port)))
            .collect();
        assert!(bits.iter().all(|(word, _)| *word < FOREIGN_WORDS));
        // 16,384 throws at 524,288 bits hit 16,130 different ones.
        assert!((16_000..16_250).contains(&bits.len()), "{}", bits.len());
    }
}
