//! Parses the machines' consoles, and prints the table of all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};

/// How many lines of a console a failure shows.
const TAIL: usize = 60;

/// One machine's outcome.
#[derive(Default)]
pub(super) struct Report {
    /// The kernel that was asked for.
    pub(super) kernel: &'static str,
    /// Whether all checks passed.
    pub(super) ok: bool,
    release: String,
    checks: Vec<Check>,
    /// How many instructions the verifier walked, by program.
    verified: BTreeMap<String, u32>,
    took: Duration,
    /// The console's last lines.
    tail: String,
}

struct Check {
    name: String,
    outcome: String,
    detail: String,
}

impl Check {
    fn failed(&self) -> bool {
        self.outcome == "FAIL"
    }
}

impl Report {
    /// Finds the lines of `vm-init` in the console's output: names and details are separated by tabs.
    pub(super) fn read(kernel: &'static str, console: &str, took: Duration) -> Self {
        let after = |prefix: &'static str| console.lines().filter_map(move |line| line.strip_prefix(prefix));
        let checks = after("VM CHECK ").filter_map(|line| {
            let mut words = line.splitn(3, '\t');
            let (name, outcome) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some(Check { name, outcome, detail: words.next().unwrap_or_default().to_owned() })
        });
        let verified = after("VM VERIFIED ").filter_map(|line| {
            let (name, count) = line.split_once('\t')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        let lines: Vec<&str> = console.lines().collect();
        Self {
            kernel,
            ok: after("VM RESULT ").any(|result| result == "ok"),
            release: after("VM KERNEL ").next().unwrap_or("(it did not boot)").to_owned(),
            checks: checks.collect(),
            verified: verified.collect(),
            took,
            tail: lines[lines.len().saturating_sub(TAIL)..].join("\n"),
        }
    }

    /// A machine that did not come to boot.
    pub(super) fn never_booted(kernel: &'static str, error: &anyhow::Error) -> Self {
        let release = format!("{kernel} (not to be had)");
        Self { kernel, release, tail: format!("{error:#}"), ..Self::default() }
    }

    /// The failed checks and the end of the console.
    pub(super) fn failures(&self) -> String {
        let failed = self.checks.iter().filter(|check| check.failed());
        let failed: Vec<String> = failed.map(|check| format!("  {}: {}", check.name, check.detail)).collect();
        let last = self.checks.last().map_or("nothing", |check| &check.name);
        format!(
            "kernel {}, last heard of: {last}\n{}\nthe end of its console:\n{}",
            self.release,
            failed.join("\n"),
            self.tail
        )
    }

    fn cell(&self, name: &str) -> String {
        match self.checks.iter().find(|check| check.name == name) {
            Some(check) if check.failed() || check.detail.is_empty() => check.outcome.clone(),
            Some(Check { outcome, detail, .. }) => format!("{outcome} ({detail})"),
            None => "-".to_owned(),
        }
    }

    fn count(&self, program: &str) -> String {
        match self.verified.get(program) {
            Some(count) => count.to_string(),
            None if self.verified.is_empty() => "not told".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// A column for each kernel: the checks, the time, and the verified instructions of each program.
pub(super) fn tables(reports: &[Report]) -> [Table; 2] {
    let table = |first: &str| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([first].into_iter().chain(reports.iter().map(|report| report.release.as_str())));
        table
    };
    let row = |table: &mut Table, name: &str, cell: &dyn Fn(&Report) -> String| {
        table.add_row([name.to_owned()].into_iter().chain(reports.iter().map(cell)));
    };
    let mut checks = table("check");
    let longest = reports.iter().max_by_key(|report| report.checks.len());
    for check in longest.iter().flat_map(|report| &report.checks) {
        row(&mut checks, &check.name, &|report| report.cell(&check.name));
    }
    row(&mut checks, "wall time", &|report| format!("{:.0} s", report.took.as_secs_f32()));
    let mut verified = table("verified instructions");
    let programs: std::collections::BTreeSet<&String> =
        reports.iter().flat_map(|report| report.verified.keys()).collect();
    for program in programs {
        row(&mut verified, program, &|report| report.count(program));
    }
    [checks, verified]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Report, tables};

    #[test]
    fn a_check_that_did_not_run_is_not_ok() {
        let console = "junk\nVM KERNEL 5.10.0-1\nVM CHECK load\tok\nVM CHECK a tcp\tFAIL\trefused\n\
                       VM CHECK old\tskipped\tno TCX\nVM VERIFIED connect4\t700\nVM RESULT FAIL\n";
        let report = Report::read("5.10", console, Duration::from_secs(7));
        assert!(!report.ok);
        let cells = ["load", "a tcp", "udp", "old"].map(|name| report.cell(name));
        assert_eq!(cells, ["ok", "FAIL", "-", "skipped (no TCX)"]);
        assert!(report.failures().contains("a tcp: refused"));
        let silent = Report::read("6.1", "", Duration::ZERO);
        assert_eq!([report.count("connect4"), silent.count("connect4")], ["700", "not told"]);
        let [checks, verified] = tables(&[silent, report]).map(|table| table.to_string());
        assert!(checks.contains("a tcp") && verified.contains("connect4"), "{checks}{verified}");
    }
}
