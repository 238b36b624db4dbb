//! The metrics of a scrape, with their labels and the values of these.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::{Expr, VectorSelector};

/// The values of each label of a metric.
pub(super) type Values = BTreeMap<String, BTreeSet<String>>;

/// The labels that Prometheus adds to every series.
pub(super) const ADDED: [&str; 2] = ["instance", "job"];

/// A scrape.
pub(super) struct Scrape(BTreeMap<String, Values>);

impl Scrape {
    /// Reads the text of `/metrics`. A sample's line is a valid selector for it, then its value.
    pub(super) fn read(text: &str) -> Self {
        // Prometheus itself adds this metric for every target.
        let mut metrics = BTreeMap::from([("up".to_owned(), Values::new())]);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (selector, _) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let expr =
                promql_parser::parser::parse(selector).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Expr::VectorSelector(VectorSelector { name: Some(name), matchers, .. }) = expr else {
                panic!("{line}")
            };
            let labels: &mut Values = metrics.entry(name).or_default();
            for label in matchers.matchers {
                labels.entry(label.name).or_default().insert(label.value);
            }
        }
        Self(metrics)
    }

    /// The labels of a metric with their values; nothing if the agent does not export it.
    pub(super) fn labels(&self, metric: &str) -> Option<&Values> {
        self.0.get(metric)
    }

    /// The metrics' names.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
