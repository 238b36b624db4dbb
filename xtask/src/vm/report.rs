//! Parses a machine's console, and prints the table of all machines.

use comfy_table::{Table, presets};

/// The columns: names as `vm-init` prints them, with their headings.
const CHECKS: &[(&str, &str)] = &[
    ("load", "load"),
    ("attach", "attach"),
    ("sync", "sync"),
    ("devices", "devices"),
    ("doctor", "doctor"),
    ("tcp", "TCP"),
    ("udp", "UDP"),
    ("refusal", "refusal"),
    ("ranges", "source ranges"),
];

/// One machine's outcome.
pub(super) struct Report {
    /// The kernel that was asked for.
    pub(super) kernel: &'static str,
    /// Whether all checks passed.
    pub(super) ok: bool,
    release: String,
    checks: Vec<Check>,
    /// The console's last lines, for a machine that printed no result.
    tail: String,
}

struct Check {
    name: String,
    ok: bool,
    detail: String,
}

impl Report {
    /// Finds the lines of `vm-init` in the console's output.
    pub(super) fn read(kernel: &'static str, console: &str) -> Self {
        let after = |prefix: &'static str| console.lines().filter_map(move |line| line.strip_prefix(prefix));
        let checks = after("VM CHECK ").filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (name, outcome) = (words.next()?.to_owned(), words.next()?);
            Some(Check { name, ok: outcome == "ok", detail: words.next().unwrap_or_default().to_owned() })
        });
        let lines: Vec<&str> = console.lines().collect();
        Self {
            kernel,
            ok: after("VM RESULT ").any(|result| result == "ok"),
            release: after("VM KERNEL ").next().unwrap_or("(version unknown: it did not boot)").to_owned(),
            checks: checks.collect(),
            tail: lines[lines.len().saturating_sub(40)..].join("\n"),
        }
    }

    /// The failed checks and the end of the console.
    pub(super) fn failures(&self) -> String {
        let failed = self.checks.iter().filter(|check| !check.ok);
        let failed: Vec<String> = failed.map(|check| format!("  {}: {}", check.name, check.detail)).collect();
        format!("kernel {}\n{}\nthe end of its console:\n{}", self.release, failed.join("\n"), self.tail)
    }

    fn cell(&self, name: &str) -> String {
        match self.checks.iter().find(|check| check.name == name) {
            Some(check) if check.ok && check.detail.is_empty() => "ok".to_owned(),
            Some(check) if check.ok => format!("ok ({})", check.detail),
            Some(_) => "FAIL".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// One row a kernel.
pub(super) fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kernel"].into_iter().chain(CHECKS.iter().map(|(_, heading)| *heading)));
    for report in reports {
        let cells = CHECKS.iter().map(|(name, _)| report.cell(name));
        table.add_row([report.release.clone()].into_iter().chain(cells));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_check_that_did_not_run_is_not_ok() {
        let console =
            "junk\nVM KERNEL 5.10.0-1\nVM CHECK load ok \nVM CHECK tcp FAIL refused\nVM RESULT FAIL\n";
        let report = Report::read("5.10", console);
        assert!(!report.ok);
        let cells = ["load", "tcp", "udp"].map(|name| report.cell(name));
        assert_eq!(cells, ["ok", "FAIL", "-"]);
        assert!(report.failures().contains("tcp: refused"));
    }
}
