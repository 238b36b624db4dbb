//! FRONTEND_LINES: the entries of FRONTENDS once more, two to a cache line.
//!
//! A connection to a Service that is not in the processor's caches waits for memory. An element of FRONTENDS is a bucket, then
//! two lines of an element; the line here is found with arithmetic alone, and tells at once what comes next: the
//! Service, and where its endpoints begin.
//!
//! FRONTENDS is complete, and what everybody but the programs reads. A key has one line. If the line is full, the key is in
//! FRONTENDS alone, and the line says that it does not have all ([`OTHERS`]). Only then does a miss ask FRONTENDS.
//!
//! The agent writes a key before the value that makes it count, and the value carries the key's fingerprint: a program
//! that reads the value of one key and then, the place having been used again, another key, takes it for neither.

use bytemuck::{Pod, Zeroable, must_cast};

use crate::{
    address::{Address, Port},
    frontend::{Found, Frontend, FrontendKey},
};

/// A place in a line: a [`FrontendKey`], a guess, and the key's value in FRONTENDS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FrontendPlace {
    /// Of the key.
    pub address: Address,
    /// Of the key.
    pub port: Port,
    /// Of the key.
    pub protocol: u8,
    /// Of the key.
    pub any_address: u8,
    /// The first slot of the Service's endpoints, so that it is loaded early: a guess, which may be out of date and
    /// decides nothing. In the line's first place also [`OTHERS`].
    pub guess: u32,
    /// The value; its word is 0 in a free place. Written last.
    pub value: Frontend,
}

/// An element of FRONTEND_LINES.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FrontendLine {
    /// Its places.
    pub places: [FrontendPlace; FrontendLine::PLACES],
}

/// Set in the first place's guess when keys of the line are, or were, in FRONTENDS alone.
pub const OTHERS: u32 = 1 << 31;

/// What a line says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lined {
    /// It is a frontend.
    Found(Found),
    /// FRONTENDS knows.
    Elsewhere,
    /// It is none.
    Nowhere,
}

impl FrontendLine {
    /// Places in a line.
    pub const PLACES: usize = 2;
    /// Words of a place: two of the address, one of the rest of the key and the guess, the value.
    pub const WORDS: usize = 4;

    /// How many lines there are for this many frontends.
    pub const fn lines(frontends: u32) -> u32 {
        frontends.div_ceil(2)
    }

    /// Looks for a key in its line, whose words `word` loads, each once.
    #[inline(always)]
    pub fn find(key: &FrontendKey, word: impl Fn(usize) -> u64) -> Lined {
        let [high, low, rest]: [u64; 3] = must_cast(*key);
        let mut others = 0;
        let mut place = 0;
        while place < Self::PLACES {
            let at = place * Self::WORDS;
            // The value before the key: see above.
            let value = word(at + 3);
            let third = word(at + 2);
            if place == 0 {
                others = (third >> 32) as u32 & OTHERS;
            }
            // In arithmetic: each comparison would be a way for the verifier to walk.
            let key_differs = (word(at) ^ high) | (word(at + 1) ^ low) | ((third ^ rest) & 0xffff_ffff);
            if key_differs == 0
                && let Some(frontend) = Frontend::read(value, key)
            {
                return Lined::Found(Found::new(&frontend, (third >> 32) as u32 & !OTHERS));
            }
            place += 1;
        }
        if others == 0 { Lined::Nowhere } else { Lined::Elsewhere }
    }
}

impl FrontendKey {
    /// Which of `lines` the key is in. Independent of the fingerprint, which tells the keys of a line apart. Neighbouring
    /// addresses, as ClusterIPs are, spread evenly.
    #[inline(always)]
    pub const fn line(&self, lines: u32) -> u32 {
        let [high, low, rest]: [u64; 3] = must_cast(*self);
        let sum = high
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
            .wrapping_add(low.wrapping_mul(0xa076_1d64_78bd_642f))
            .wrapping_add(rest.wrapping_mul(0xe703_7ed1_a0b4_28db));
        (((sum >> 32) * lines as u64) >> 32) as u32
    }
}

const _: () = assert!(FrontendLine::PLACES == 2);
const _: () = assert!(size_of::<FrontendPlace>() == 8 * FrontendLine::WORDS);
// A cache line, and the first of a map's elements begins with a page.
const _: () = assert!(size_of::<FrontendLine>() == 64);

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::frontend::FrontendKind;

    const LINES: u32 = 1 << 17;

    fn key(address: u32, port: u16) -> FrontendKey {
        FrontendKey::new(IpAddr::from(Ipv4Addr::from_bits(address)).into(), Port::new(port), 6)
    }

    fn place(key: &FrontendKey, service: u32, guess: u32) -> FrontendPlace {
        let FrontendKey { address, port, protocol, any_address, padding: _ } = *key;
        let value = Frontend::new(key, service, FrontendKind::ClusterIp);
        FrontendPlace { address, port, protocol, any_address, guess, value }
    }

    fn find(line: FrontendLine, key: &FrontendKey) -> Lined {
        let words: [u64; 8] = must_cast(line);
        FrontendLine::find(key, |word| words[word])
    }

    #[test]
    fn a_key_is_found_in_either_place_and_no_other_is() {
        let (a, b) = (key(0x0a60_0001, 80), key(0x0a60_0002, 443));
        let line = FrontendLine { places: [place(&a, 7, 40), place(&b, 8, 50)] };
        for (key, service, slot) in [(&a, 7, 40), (&b, 8, 50)] {
            let Lined::Found(found) = find(line, key) else { panic!("{key} is there") };
            assert_eq!((found.service, found.kind(), found.guess()), (service, 1, slot));
        }
        let node_port = FrontendKey { any_address: 1, ..a };
        let datagrams = FrontendKey { protocol: 17, ..a };
        for other in [key(0x0a60_0001, 81), key(0x0a60_0003, 80), node_port, datagrams] {
            assert_eq!(find(line, &other), Lined::Nowhere, "{other}");
        }
    }

    #[test]
    fn a_fingerprint_alone_is_no_match() {
        let (a, b) = (key(0x0a60_0001, 80), key(0x0a60_0002, 80));
        // Never written so: what a program may see that is held up while the place is used again.
        for (value, of) in [(&a, &b), (&b, &a)] {
            let mixed = FrontendPlace { value: place(value, 7, 0).value, ..place(of, 7, 0) };
            let line = FrontendLine { places: [mixed, FrontendPlace::zeroed()] };
            assert_eq!((find(line, &a), find(line, &b)), (Lined::Nowhere, Lined::Nowhere));
        }
    }

    #[test]
    fn a_line_that_does_not_have_all_says_so() {
        let (a, b) = (key(0x0a60_0001, 80), key(0x0a60_0002, 80));
        let empty = FrontendLine::zeroed();
        assert_eq!(find(empty, &a), Lined::Nowhere);
        let line = FrontendLine { places: [place(&a, 7, OTHERS + 40), FrontendPlace::zeroed()] };
        assert_eq!(find(line, &b), Lined::Elsewhere);
        let Lined::Found(found) = find(line, &a) else { panic!("it is there") };
        assert_eq!(found.guess(), 40, "the mark is not part of it");
    }

    #[test]
    #[expect(clippy::large_stack_arrays, reason = "there is no heap")]
    fn neighbouring_addresses_seldom_share_a_line_with_two_others() {
        for services in [1_000, 10_000, 65_536] {
            let mut held = [0_u8; LINES as usize];
            for number in 0..services {
                held[key(0x0a60_0001 + number, 80).line(LINES) as usize] += 1;
            }
            let left_out: u32 = held.iter().map(|&keys| u32::from(keys.saturating_sub(2))).sum();
            assert!(left_out * 100 <= services, "{left_out} of {services}");
        }
    }
}
