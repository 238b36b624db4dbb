//! The buckets of kube-proxy's histograms: queries name them.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// From 1 ms on, fifteen times the double. Most of ours are in the first.
pub(super) fn sync() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 0.25, 0.5, then seconds to a minute, 5 seconds to two, 30 seconds to five.
pub(super) fn programming() -> Histogram {
    let seconds = (1_u32..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    Histogram::new([0.25, 0.5].into_iter().chain(seconds.map(f64::from)))
}
