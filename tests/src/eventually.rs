//! Waiting, always bounded.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest wait for a change of the manifests to reach sockets. It takes milliseconds; a busy machine takes longer.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks again and again until `condition` holds, and gives up after [`SOON`] with a panic that says `what` was awaited.
///
/// Returns how long it took.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "waited {SOON:?} in vain: {what}");
        sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// The same with an error instead of a panic, for those who report rather than test.
pub fn wait_for(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !condition() {
        anyhow::ensure!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}
