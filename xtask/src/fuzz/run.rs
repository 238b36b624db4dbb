//! Runs the fuzzer on one target, and reads what it prints.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use comfy_table::{Table, presets};
use sha2::{Digest as _, Sha256};

use super::keep;
use crate::{process, progress, workspace};

/// The longest input: longer ones reach the same code, slower.
const LONGEST: u32 = 8192;
/// How many seconds one input may take. A fraction of a millisecond is usual.
const SLOWEST: u32 = 10;
/// How many MiB the process may take.
const MEMORY: u32 = 1024;

/// The table of all targets, without rows.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["target", "executions", "a second", "edges at first", "edges", "inputs"]);
    table
}

/// What the fuzzer says of its state, such as
/// `#2097152 pulse  cov: 1234 ft: 5678 corp: 200/12Kb exec/s: 1000 rss: 80Mb`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct State {
    executions: u64,
    edges: u64,
    inputs: u64,
    a_second: u64,
}

impl State {
    fn read(line: &str) -> Option<Self> {
        let number = |text: &str| text.split('/').next()?.parse().ok();
        let mut words = line.split_whitespace();
        let executions = words.next()?.strip_prefix('#')?.parse().ok()?;
        let words: Vec<&str> = words.collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            number(words.get(at + 1)?)
        };
        Some(Self {
            executions,
            edges: after("cov:")?,
            inputs: after("corp:").unwrap_or_default(),
            a_second: after("exec/s:").unwrap_or_default(),
        })
    }
}

/// Fuzzes one target, and returns its row of the table.
pub(super) fn target(fuzzer: &Path, target: &str, minutes: f64, keep: bool) -> Result<[String; 6]> {
    let (kept, found) = (super::corpus(target), workspace::target("fuzz/corpus").join(target));
    let crashes = workspace::target("fuzz/crashes").join(target);
    for folder in [&found, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = workspace::target("fuzz").join(format!("{target}.log"));
    let time = Duration::from_secs_f64(minutes * 60.0);
    let mut command = command(fuzzer, target);
    command.args([format!("-max_total_time={}", time.as_secs().max(1)), format!("-max_len={LONGEST}")]);
    command.args([
        format!("-timeout={SLOWEST}"),
        format!("-rss_limit_mb={MEMORY}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command.arg(format!("-artifact_prefix={}/", crashes.display())).arg(&found).arg(&kept);
    let what = format!("fuzz {target} for {minutes} minutes");
    progress::step(&what, || process::run_logged(&mut command, &log))
        .with_context(|| format!("what broke it is in {}; `--input FILE` repeats it", crashes.display()))?;
    let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let states: Vec<State> = text.lines().filter_map(State::read).collect();
    let (Some(first), Some(last)) = (states.first(), states.last()) else {
        bail!("{} has no line of the fuzzer's state", log.display());
    };
    if keep {
        merge(fuzzer, target, &found, &kept)?;
    }
    Ok([
        target.to_owned(),
        last.executions.to_string(),
        last.a_second.to_string(),
        first.edges.to_string(),
        last.edges.to_string(),
        last.inputs.to_string(),
    ])
}

/// Makes `kept` few and short inputs that reach most of what all of them reach.
fn merge(fuzzer: &Path, target: &str, found: &Path, kept: &Path) -> Result<()> {
    let (fewer, control) = (workspace::target("fuzz/fewer").join(target), workspace::target("fuzz/control"));
    for former in [&fewer, &control] {
        let _ = fs::remove_dir_all(former).or_else(|_| fs::remove_file(former));
    }
    fs::create_dir_all(&fewer).with_context(|| fewer.display().to_string())?;
    let mut command = command(fuzzer, target);
    // Every edge that an input reaches, and not how often, nor what is new in it.
    command.args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={LONGEST}"));
    command.arg(format!("-merge_control_file={}", control.display())).arg(&fewer).arg(found).arg(kept);
    let log = workspace::target("fuzz").join(format!("{target}.merge.log"));
    progress::step(&format!("minimise the corpus of {target}"), || process::run_logged(&mut command, &log))?;
    let text = fs::read_to_string(&control).with_context(|| control.display().to_string())?;
    let inputs = keep::choose(&text).iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
    ensure!(!inputs.is_empty(), "nothing is left of the corpus of {target}");
    for old in fs::read_dir(kept)? {
        fs::remove_file(old?.path())?;
    }
    for input in inputs {
        // The same input has the same name in every run.
        let name = Sha256::digest(&input)
            .iter()
            .take(8)
            .fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
        fs::write(kept.join(name), input)?;
    }
    Ok(())
}

/// Runs one input.
pub(super) fn repeat(fuzzer: &Path, target: &str, input: &Path) -> Result<()> {
    process::run(command(fuzzer, target).arg(input))
}

fn command(fuzzer: &Path, target: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command.env("SIDESTEP_FUZZ_TARGET", target).current_dir(workspace::root());
    command
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn a_line_of_the_fuzzer_is_read() {
        let line = "#2097152\tpulse  cov: 1234 ft: 5678 corp: 200/12Kb lim: 4096 exec/s: 1000 rss: 80Mb";
        let state = State { executions: 2_097_152, edges: 1234, inputs: 200, a_second: 1000 };
        assert_eq!(State::read(line), Some(state));
        assert_eq!(State::read("INFO: Seed: 7"), None);
        assert_eq!(State::read("#1 READ units: 3"), None);
    }
}
