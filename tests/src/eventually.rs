//! Bounded waiting.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest wait until a change of the manifests takes effect. It takes milliseconds; thousands of Services that a debug build
/// reads on a busy machine take ten seconds.
pub const SOON: Duration = Duration::from_secs(30);

/// Polls until `condition` holds; after [`SOON`] it panics and names `what` it waited for.
///
/// Returns how long it took.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Like [`eventually`], with this limit and an error instead of a panic.
pub fn wait_for(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !condition() {
        anyhow::ensure!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}
