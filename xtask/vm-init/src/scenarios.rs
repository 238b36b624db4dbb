//! Runs the lab's scenarios, each a test of a static binary, one after the other.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Name, binary and test of each, separated by tabs; written by `cargo xtask vm`.
const LIST: &str = "/scenarios";
/// Where a test says that it skips itself.
const SKIPPED: &str = "/run/skipped";
/// What a test prints.
const OUTPUT: &str = "/run/scenario.log";
/// The limit of each. An emulated processor is slow, but a test that hangs is a failure.
const LIMIT: Duration = Duration::from_mins(4);
/// By which number the tests multiply their own limits.
const PACE: &str = "10";
/// How many lines of a failed test's output go to the console.
const TAIL: usize = 40;

/// A test.
pub(crate) struct Scenario {
    name: String,
    binary: String,
    test: String,
}

/// All of them.
pub(crate) fn read() -> Result<Vec<Scenario>> {
    let list = fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    let scenario = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        Some(Scenario { name: words.next()?, binary: words.next()?, test: words.next()? })
    };
    Ok(list.lines().filter_map(scenario).collect())
}

impl Scenario {
    /// Runs it, and prints how it ended; false if it failed.
    pub(crate) fn run(&self) -> Result<bool> {
        let Self { name, binary, test } = self;
        let _ = fs::remove_file(SKIPPED);
        let output = fs::File::create(OUTPUT)?;
        let mut command = Command::new(format!("/tests/{binary}"));
        command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SIDESTEP_BIN", "/sidestep");
        command.env("SIDESTEP_SKIP_LOG", SKIPPED).env("SIDESTEP_PACE", PACE).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start /tests/{binary}"))?;
        let ended = ends_within_limit(&mut child)?;
        let seconds = start.elapsed().as_secs();
        let printed = String::from_utf8_lossy(&fs::read(OUTPUT)?).into_owned();
        let (outcome, detail) = if let Ok(skipped) = fs::read_to_string(SKIPPED) {
            let reason =
                skipped.trim().split_once(": ").map_or(skipped.trim(), |(_, reason)| reason).to_owned();
            ("skipped", reason)
        } else if ended == Some(true) && printed.contains("1 passed") {
            ("ok", format!("{seconds} s"))
        } else {
            println!("--- {binary} {test}, {seconds} s");
            let lines: Vec<&str> = printed.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
            let why = match ended {
                None => format!("not over after {} s", LIMIT.as_secs()),
                Some(true) => "there is no such test".to_owned(),
                Some(false) => panic_of(&lines),
            };
            ("FAIL", why)
        };
        println!("VM CHECK {name}\t{outcome}\t{detail}");
        Ok(outcome != "FAIL")
    }
}

/// Whether it succeeded; nothing if it had to be killed.
fn ends_within_limit(child: &mut Child) -> Result<Option<bool>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The line after the one that names the place of the panic.
fn panic_of(lines: &[&str]) -> String {
    let place = lines.iter().position(|line| line.contains("panicked at"));
    place.and_then(|place| lines.get(place + 1)).map_or("no panic", |line| line.trim()).to_owned()
}
