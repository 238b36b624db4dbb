//! Formats an error and its causes in one line.
//!
//! Libraries say what failed in one error and why in the next one behind it (`client error (Connect)`, and then
//! `Connection refused`); others repeat their cause. Here each cause appears once.

use std::{error::Error, fmt};

/// Shows an error and its causes.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Layer {
        says: &'static str,
        source: io::Error,
    }

    #[test]
    fn each_cause_is_said_once() {
        let layer = |says| Layer { says, source: io::Error::other("refused") };
        assert_eq!(Causes(&layer("connecting")).to_string(), "connecting: refused");
        assert_eq!(Causes(&layer("connecting: refused")).to_string(), "connecting: refused");
        assert_eq!(Causes(&io::Error::other(layer("connecting"))).to_string(), "connecting: refused");
    }
}
