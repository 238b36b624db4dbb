//! Pseudo-random numbers, reproducible by their seed.

/// Xorshift.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Thirty-two bits.
    pub const fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// A number below `limit`, which is not 0.
    pub fn below<N: Into<u32> + TryFrom<u32>>(&mut self, limit: N) -> N {
        let number = (u64::from(self.bits()) * u64::from(limit.into())) >> 32;
        u32::try_from(number).ok().and_then(|number| N::try_from(number).ok()).expect("below the limit")
    }

    /// True with a probability of 1 in `times`.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// One of these, which must not be empty.
    pub fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(u32::try_from(length).expect("a short list")) as usize
    }

    /// This many random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.bits().to_le_bytes()[0]).collect()
    }
}
