//! The goals: limits that the figures must meet.

use serde::Serialize;

use crate::statistics::Summary;

/// The direction of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sense {
    /// At most.
    AtMost,
    /// At least.
    AtLeast,
}

/// A goal and its measurement. The median decides; the interval shows the uncertainty.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// The measured quantity.
    pub(crate) name: String,
    /// The median, with its confidence interval.
    pub(crate) value: Summary,
    /// At most or at least.
    pub(crate) sense: Sense,
    /// The limit.
    pub(crate) limit: f64,
    /// Whether the median, or that of the alternative, is within the limit.
    pub(crate) met: bool,
    /// An alternative goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alternative: Option<Box<Goal>>,
}

impl Goal {
    /// At most `limit`.
    pub(crate) fn at_most(name: impl Into<String>, value: Summary, limit: f64) -> Self {
        Self::new(name.into(), value, Sense::AtMost, limit)
    }

    /// At least `limit`.
    pub(crate) fn at_least(name: impl Into<String>, value: Summary, limit: f64) -> Self {
        Self::new(name.into(), value, Sense::AtLeast, limit)
    }

    fn new(name: String, value: Summary, sense: Sense, limit: f64) -> Self {
        let goal = Self { name, value, sense, limit, met: false, alternative: None };
        Self { met: goal.is_reached(), ..goal }
    }

    /// Adds an alternative goal.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { met: self.met || other.met, alternative: Some(Box::new(other)), ..self }
    }

    /// This goal, then its alternative.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.alternative.as_deref())
    }

    /// Whether the verdict could change within the confidence intervals.
    pub(crate) fn is_close(&self) -> bool {
        if self.met {
            self.each().all(|goal| !goal.is_reached() || goal.is_at_the_limit())
        } else {
            self.each().any(Self::is_at_the_limit)
        }
    }

    /// Whether this goal's own median is within the limit.
    fn is_reached(&self) -> bool {
        match self.sense {
            Sense::AtMost => self.value.median <= self.limit,
            Sense::AtLeast => self.value.median >= self.limit,
        }
    }

    /// Whether the limit is within the confidence interval.
    fn is_at_the_limit(&self) -> bool {
        self.value.low <= self.limit && self.limit <= self.value.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_least(limit: f64, low: f64, median: f64, high: f64) -> Goal {
        let value = Summary { median, low, high, ..Summary::of(&[median]) };
        Goal::at_least("", value, limit)
    }

    #[test]
    fn one_of_two_goals_is_enough() {
        let (missed, met) = (at_least(0.9, 0.8, 0.81, 0.82), at_least(0.9, 0.94, 0.95, 0.96));
        for goal in [missed.clone().or(met.clone()), met.or(missed.clone())] {
            assert!(goal.met && !goal.is_close());
        }
        assert!(!missed.clone().or(missed).met);
    }

    #[test]
    fn a_verdict_is_close_only_where_no_alternative_is_certain() {
        let (barely, clearly) = (at_least(0.9, 0.89, 0.91, 0.93), at_least(0.9, 0.94, 0.95, 0.96));
        assert!(barely.is_close());
        assert!(!barely.clone().or(clearly).is_close());
        let nearly = at_least(0.9, 0.87, 0.89, 0.91);
        assert!(nearly.clone().or(at_least(0.9, 0.1, 0.2, 0.3)).is_close());
        assert!(barely.or(nearly).is_close());
    }
}
