//! How fast this machine is: limits of time grow with it where a test is not about that time.

use std::time::Duration;

/// The variable that says by which number limits are multiplied. `cargo xtask vm` sets it: an emulated processor is slow.
pub const PACE: &str = "SIDESTEP_PACE";

/// This long on an ordinary machine, longer on a slow one.
pub fn within(limit: Duration) -> Duration {
    limit * std::env::var(PACE).ok().and_then(|pace| pace.parse().ok()).unwrap_or(1)
}
