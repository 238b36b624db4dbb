//! Tests that could not run here, and why: each appends a line `SKIPPED <test>: <reason>` to a file.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

/// A test that skipped all or part of its work.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Skip {
    test: String,
    reason: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.test, self.reason)
    }
}

/// The skips in the file at `log`; none if the file does not exist.
pub(super) fn read(log: &Path) -> Result<BTreeSet<Skip>> {
    match fs::read_to_string(log) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", log.display())),
    }
}

/// How many tests skipped: one that gives two reasons counts once.
pub(super) fn tests(skips: &BTreeSet<Skip>) -> usize {
    skips.iter().map(|skip| &skip.test).collect::<BTreeSet<_>>().len()
}

fn parse(text: &str) -> BTreeSet<Skip> {
    let skips = text.lines().filter_map(|line| line.strip_prefix("SKIPPED ")?.split_once(": "));
    skips.map(|(test, reason)| Skip { test: test.to_owned(), reason: reason.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::{parse, tests};

    #[test]
    fn a_test_with_two_reasons_counts_once() {
        let skips = parse("SKIPPED a::b: not root\nnoise\nSKIPPED a::b: no veth: at all\nSKIPPED c: 5.10\n");
        assert_eq!(tests(&skips), 2);
        let lines: Vec<String> = skips.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["a::b: no veth: at all", "a::b: not root", "c: 5.10"]);
    }
}
