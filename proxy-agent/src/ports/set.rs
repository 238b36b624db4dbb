//! Any ports, as the kernel writes them: `8080,9148-9150`.

use std::{fmt, num::ParseIntError, str::FromStr};

const WORDS: usize = (1 << 16) / 64;

/// A set of ports: one bit each.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

impl PortSet {
    pub(super) fn range(first: u16, last: u16) -> Self {
        let mut set = Self::default();
        set.add(first, last);
        set
    }

    fn add(&mut self, first: u16, last: u16) {
        for port in first..=last {
            self.0[usize::from(port) / 64] |= 1 << (port % 64);
        }
    }

    /// Adds one port.
    pub(crate) fn insert(&mut self, port: u16) {
        self.add(port, port);
    }

    /// Takes one port away.
    pub(crate) fn remove(&mut self, port: u16) {
        self.0[usize::from(port) / 64] &= !(1 << (port % 64));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn has(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] & (1 << (port % 64)) != 0
    }

    /// Those of both.
    pub(crate) fn with(&self, other: &Self) -> Self {
        self.combined(other, |own, other| own | other)
    }

    /// Those that `other` does not have.
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.combined(other, |own, other| own & !other)
    }

    fn combined(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        let mut set = self.clone();
        for (word, other) in set.0.iter_mut().zip(other.0.iter()) {
            *word = operation(*word, *other);
        }
        set
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl FromStr for PortSet {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut set = Self::default();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            set.add(first.parse()?, last.parse()?);
        }
        Ok(set)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut from = None;
        for port in 0..=u16::MAX {
            let first = match (self.has(port), from) {
                (true, None) => {
                    from = Some(port);
                    port
                }
                (true, Some(first)) => first,
                (false, _) => continue,
            };
            if port < u16::MAX && self.has(port + 1) {
                continue;
            }
            if first == port {
                write!(f, "{comma}{port}")?;
            } else {
                write!(f, "{comma}{first}-{port}")?;
            }
            (comma, from) = (",", None);
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_the_kernel_does() {
        for (text, written, length) in [
            ("", "", 0),
            ("\n", "", 0),
            ("8080,9148-9150\n", "8080,9148-9150", 4),
            ("0-65535", "0-65535", 65_536),
            ("65535", "65535", 1),
            ("3,1,2,64,63", "1-3,63-64", 5),
        ] {
            let set: PortSet = text.parse().expect(text);
            assert_eq!((set.to_string(), set.len()), (written.to_owned(), length), "{text:?}");
        }
        "1-x".parse::<PortSet>().expect_err("not ports");
    }
}
