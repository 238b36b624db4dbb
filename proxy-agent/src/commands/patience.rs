//! Waiting until connections are over, for `takeover` and `cleanup --drain`.

use std::{
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::SignedDuration;

use crate::dataplane::Left;

/// How often to look which connections are left.
const PERIOD: Duration = Duration::from_secs(2);
/// How long to wait unless told otherwise.
const WAIT: Duration = Duration::from_mins(10);
/// The exit status when connections are left.
const LEFT: u8 = 2;
/// How often to say so at most.
const QUIET: Duration = Duration::from_secs(10);

/// How long to wait, and what then.
#[derive(Debug, Args)]
pub(super) struct Patience {
    /// How long to wait for connections to end [default: 10m]
    ///
    /// Such as `90s`, `10m` or `2h`. When the time is over, what these connections need stays, and so do they; run the
    /// command again to remove it later. The exit status is 2 then.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Do not spare the connections that are left after the wait
    ///
    /// Removes what they need, which breaks them.
    #[arg(long)]
    break_the_rest: bool,
}

impl Patience {
    /// Whether nobody asked for any.
    pub(super) const fn is_default(&self) -> bool {
        self.wait.is_none() && !self.break_the_rest
    }

    /// Waits until no connection of `whose` is left, or the time is over. Returns whether what they need may go; if not,
    /// says what is left. `left` counts them.
    pub(super) fn outlasts(
        &self,
        whose: &str,
        mut left: impl FnMut() -> anyhow::Result<Left>,
    ) -> anyhow::Result<bool> {
        let (began, wait) = (Instant::now(), self.wait.unwrap_or(WAIT));
        let mut said: Option<(Instant, Left)> = None;
        loop {
            let left = left()?;
            let rest = wait.saturating_sub(began.elapsed());
            if left.is_empty() || (rest.is_zero() && self.break_the_rest) {
                return Ok(true);
            }
            if rest.is_zero() {
                println!(
                    "still there: {}; what they need stays. Run the command again to remove it later",
                    told(&left)
                );
                return Ok(false);
            }
            if said.as_ref().is_none_or(|(when, what)| when.elapsed() >= QUIET && *what != left) {
                println!("waiting for connections of {whose} to end: {}", told(&left));
                said = Some((Instant::now(), left));
            }
            sleep(PERIOD.min(rest));
        }
    }
}

/// Such as `90s` or `10m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("{text:?} is not a duration such as 90s, 10m or 2h");
    let parsed = text.parse::<SignedDuration>().map_err(wrong)?;
    Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())
}

/// The end while connections are left.
pub(super) fn left() -> ExitCode {
    ExitCode::from(LEFT)
}

/// Such as `TCP 12, UDP 3`.
pub(super) fn told(left: &Left) -> String {
    if left.is_empty() {
        return "none".to_owned();
    }
    let each: Vec<String> = left.iter().map(|(protocol, count)| format!("{protocol} {count}")).collect();
    each.join(", ")
}
