//! `sidestep doctor`: checks whether this machine can run Sidestep, and whether translation works on it.
//!
//! | file | checks |
//! |---|---|
//! | `machine` | kernel, cgroup2, bpffs, helpers |
//! | `neighbours` | programs of others at the same hooks, other service proxies |
//! | `outside` | what else north-south traffic meets at this node |
//! | `self_test` | loads the programs in a scratch cgroup, pin directory and network namespace |
//! | `client` | the process in that cgroup that connects real sockets; `scenario`: the Services that it uses |

mod client;
pub(super) mod fuzzing;
mod machine;
mod neighbours;
mod outside;
mod scenario;
mod self_test;

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

pub(super) use self::outside::north_south;
use super::{Output, Paths};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// Output format
    ///
    /// The table is for people and may change between versions; programs read the JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Run as the self-test's client for these servers (JSON); only doctor itself starts it
    #[arg(long, hide = true)]
    client: Option<String>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// Sidestep works, with a limitation.
    Warning,
    Failed,
}

/// One check.
#[derive(Debug, Serialize, Deserialize)]
struct Check {
    name: String,
    outcome: Outcome,
    detail: String,
}

impl Check {
    fn new(name: &str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), outcome, detail: detail.into() }
    }

    fn of<T, E: std::fmt::Display>(
        name: &str,
        result: Result<T, E>,
        detail: impl FnOnce(T) -> String,
    ) -> Self {
        match result {
            Ok(value) => Self::new(name, Outcome::Ok, detail(value)),
            Err(error) => Self::new(name, Outcome::Failed, error.to_string()),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(servers) = &arguments.client {
        println!("{}", serde_json::to_string(&client::run(serde_json::from_str(servers)?))?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut checks = machine::check(&arguments.paths);
    checks.extend(neighbours::check(&arguments.paths));
    checks.extend(outside::check(&arguments.paths));
    checks.extend(self_test::check(&arguments.paths));
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&checks)?),
        Output::Table => {
            for Check { name, outcome, detail } in &checks {
                let mark = match outcome {
                    Outcome::Ok => "ok  ",
                    Outcome::Warning => "warn",
                    Outcome::Failed => "FAIL",
                };
                println!("{mark}  {name:<38}  {detail}");
            }
        }
    }
    let failed = checks.iter().filter(|check| check.outcome == Outcome::Failed).count();
    if arguments.output == Output::Table {
        let warnings = checks.iter().filter(|check| check.outcome == Outcome::Warning).count();
        println!("\n{}", verdict(failed, warnings));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All checks in a few words.
fn verdict(failed: usize, warnings: usize) -> String {
    let warned = match warnings {
        0 => return if failed == 0 { "all green".to_owned() } else { format!("{failed} failed") },
        1 => "1 warning".to_owned(),
        several => format!("{several} warnings"),
    };
    if failed == 0 { format!("nothing failed, {warned}") } else { format!("{failed} failed, {warned}") }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn a_warning_is_not_green() {
        let all = [(0, 0), (0, 1), (2, 0), (1, 3)].map(|(failed, warnings)| verdict(failed, warnings));
        assert_eq!(all, ["all green", "nothing failed, 1 warning", "2 failed", "1 failed, 3 warnings"]);
    }
}
