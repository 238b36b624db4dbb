//! How many tests passed and failed, from the runner's `JUnit` report.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use quick_junit::Report;

/// The runner's counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tests that succeeded, including skipped ones.
    pub(super) passed: usize,
    /// Tests that failed.
    pub(super) failed: usize,
    /// The names of all tests and of their modules: a scenario with several variants is a module.
    pub(super) names: BTreeSet<String>,
}

/// Reads the report at `path`.
pub(super) fn read(path: &Path) -> Result<Counts> {
    let xml = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&xml).with_context(|| format!("cannot parse {}", path.display()))
}

fn parse(xml: &str) -> Result<Counts> {
    let report = Report::deserialize_from_str(xml)?;
    ensure!(report.tests > 0, "the report names no test");
    let failed = report.failures + report.errors;
    let tests = report.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let names = tests.flat_map(|test| test.name.as_str().split("::").map(str::to_owned));
    Ok(Counts { passed: report.tests.saturating_sub(failed), failed, names: names.collect() })
}

#[cfg(test)]
mod tests {
    use super::{Counts, parse};

    #[test]
    fn failures_and_errors_are_not_passes() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="1" time="1.0">
  <testsuite name="a" tests="3" disabled="0" errors="1" failures="1">
    <testcase name="one" classname="a" time="0.1"></testcase>
    <testcase name="module::two" classname="a" time="0.1"><failure type="test failure"></failure></testcase>
    <testcase name="three" classname="a" time="0.1"><error type="exec failure"></error></testcase>
  </testsuite>
</testsuites>"#;
        let names = ["one", "module", "two", "three"].map(str::to_owned).into();
        assert_eq!(parse(xml).unwrap(), Counts { passed: 1, failed: 2, names });
    }

    #[test]
    fn a_report_without_tests_is_an_error() {
        let xml = r#"<testsuites name="nextest-run" tests="0" failures="0" errors="0"></testsuites>"#;
        assert!(parse(xml).is_err());
    }
}
