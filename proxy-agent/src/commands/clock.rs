//! What the kernel's clock says in everybody's time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::dataplane::monotonic_nanoseconds;

/// When the kernel's clock (CLOCK_MONOTONIC), which the programs use, was 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Timestamp);

impl Clock {
    pub(super) fn now() -> Self {
        Self(before(Timestamp::now(), Duration::from_nanos(monotonic_nanoseconds())))
    }

    /// The time at which it says this, in nanoseconds.
    pub(super) fn at(self, nanoseconds: u64) -> Timestamp {
        let since = SignedDuration::try_from(Duration::from_nanos(nanoseconds)).unwrap_or_default();
        self.0.checked_add(since).unwrap_or(self.0)
    }
}

/// A time so long before another.
pub(super) fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    time.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

/// A time for people: seconds are enough.
pub(super) fn told(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}
