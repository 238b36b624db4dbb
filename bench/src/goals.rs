//! What must be reached.

use serde::Serialize;

use crate::statistics::Summary;

/// Which side of the limit is the good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sense {
    /// At most.
    AtMost,
    /// At least.
    AtLeast,
}

/// A goal and what was measured. The median decides; the interval says how sure that is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// What was measured.
    pub(crate) name: String,
    /// The median, with its confidence interval.
    pub(crate) value: Summary,
    /// At most or at least.
    pub(crate) sense: Sense,
    /// What.
    pub(crate) limit: f64,
    /// Whether the median is on the good side.
    pub(crate) met: bool,
}

impl Goal {
    /// At most `limit`.
    pub(crate) fn at_most(name: impl Into<String>, value: Summary, limit: f64) -> Self {
        Self { name: name.into(), value, sense: Sense::AtMost, limit, met: value.median <= limit }
    }

    /// At least `limit`.
    pub(crate) fn at_least(name: impl Into<String>, value: Summary, limit: f64) -> Self {
        Self { name: name.into(), value, sense: Sense::AtLeast, limit, met: value.median >= limit }
    }

    /// Whether the other side of the limit is within the confidence interval.
    pub(crate) fn is_close(&self) -> bool {
        self.value.low <= self.limit && self.limit <= self.value.high
    }
}
