//! Medians, their confidence intervals, and the spread of samples.

use serde::Serialize;

/// What is told of a row of samples.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many samples.
    pub(crate) samples: usize,
    /// The median.
    pub(crate) median: f64,
    /// Lower end of the median's 95 % confidence interval.
    pub(crate) low: f64,
    /// Its upper end.
    pub(crate) high: f64,
    /// A tenth of the samples are below.
    pub(crate) p10: f64,
    /// A tenth of the samples are above.
    pub(crate) p90: f64,
}

impl Summary {
    /// Of samples that are finite numbers; zeros without any.
    ///
    /// The interval is that of order statistics: the median of the population lies between the samples of these ranks
    /// in 95 % of all cases, whatever the distribution is (normal approximation of the binomial one).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is clamped to what there is"
    )]
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |rank: f64| {
            let rank = rank.round().clamp(0.0, count.saturating_sub(1) as f64);
            sorted.get(rank as usize).copied().unwrap_or_default()
        };
        let last = count.saturating_sub(1) as f64;
        let median = f64::midpoint(at((last / 2.0).floor()), at((last / 2.0).ceil()));
        let half = 1.96 * (count as f64).sqrt() / 2.0;
        Self {
            samples: count,
            median,
            low: at((last / 2.0 - half).floor()),
            high: at((last / 2.0 + half).ceil()),
            p10: at(last * 0.1),
            p90: at(last * 0.9),
        }
    }

    /// Of the ratios, round by round.
    pub(crate) fn ratio(of: &[f64], to: &[f64]) -> Self {
        let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        Self::of(&ratios)
    }
}

/// The means of two rows, round by round.
pub(crate) fn means(first: &[f64], second: &[f64]) -> Vec<f64> {
    first.iter().zip(second).map(|(first, second)| f64::midpoint(*first, *second)).collect()
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_median_of_two_is_between_them() {
        assert!((Summary::of(&[1.0, 2.0]).median - 1.5).abs() < f64::EPSILON);
    }

    #[test]
    fn outliers_move_nothing() {
        let mut samples = vec![10.0; 99];
        samples.push(1e9);
        let summary = Summary::of(&samples);
        assert_eq!((summary.low, summary.median, summary.high, summary.p90), (10.0, 10.0, 10.0, 10.0));
    }

    #[test]
    fn the_interval_of_a_hundred_is_ranks_40_to_60() {
        let samples: Vec<f64> = (0..100).map(f64::from).collect();
        let summary = Summary::of(&samples);
        assert_eq!((summary.low, summary.high), (39.0, 60.0));
    }

    #[test]
    fn no_samples_are_no_panic() {
        assert_eq!(Summary::of(&[]).samples, 0);
    }
}
