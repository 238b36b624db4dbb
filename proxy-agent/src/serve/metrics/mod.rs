//! Metrics: names that kube-proxy's dashboards know, and Sidestep's own.
//!
//! The agent counts its own work as it happens ([`Metrics::applied`]). Counts of the kernel programs are read from
//! the maps at each scrape, at a cost proportional to the Services, and kept nowhere.

mod buckets;
mod process;
mod services;
mod tables;

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::{process::Process, services::Services, tables::Fill};
use super::{Applied, health};
use crate::dataplane::SharedTables;

type Label = [(&'static str, &'static str); 1];
type Histograms = Family<Label, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    started: Timestamp,
    sync: Histograms,
    sync_full: Histograms,
    sync_partial: Histograms,
    programming: Histogram,
    last_applied: Seconds,
    last_queued: Seconds,
    service_changes: Counter,
    endpoint_changes: Counter,
    services_pending: Gauge,
    endpoints_pending: Gauge,
    healthz: Family<[(&'static str, String); 1], Counter>,
    livez: Family<[(&'static str, String); 1], Counter>,
    problems: Gauge,
    synced: Gauge,
}

impl Metrics {
    /// Nothing has been counted yet.
    pub(super) fn new(node: &str, source: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            started: Timestamp::now(),
            sync: Family::new_with_constructor(buckets::sync as fn() -> Histogram),
            sync_full: Family::new_with_constructor(buckets::sync as fn() -> Histogram),
            sync_partial: Family::new_with_constructor(buckets::sync as fn() -> Histogram),
            programming: buckets::programming(),
            last_applied: Seconds::default(),
            last_queued: Seconds::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            services_pending: Gauge::default(),
            endpoints_pending: Gauge::default(),
            healthz: Family::default(),
            livez: Family::default(),
            problems: Gauge::default(),
            synced: Gauge::default(),
        };
        metrics.register();
        let registry = &mut metrics.registry;
        // A gauge: older readers of Prometheus' text know no type `info`, and refuse everything for it.
        let agent = Family::<[(&str, String); 3], Gauge>::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        agent
            .get_or_create(&[("version", version), ("node", node.to_owned()), ("source", source.to_owned())])
            .set(1);
        registry.register(
            "sidestep_agent_info",
            "The agent's version, node and source of objects; always 1",
            agent,
        );
        registry.register_collector(Box::new(Process));
        metrics
    }

    /// Adds the collectors of these maps.
    pub(super) fn read_from(&mut self, tables: SharedTables) {
        self.registry.register_collector(Box::new(Services(tables.clone())));
        self.registry.register_collector(Box::new(Fill(tables)));
    }

    fn register(&mut self) {
        let kube_proxy = self.registry.sub_registry_with_prefix("kubeproxy");
        let rules = "Time to install a batch of changes, in seconds";
        kube_proxy.register("sync_proxy_rules_duration_seconds", rules, self.sync.clone());
        kube_proxy.register("sync_full_proxy_rules_duration_seconds", rules, self.sync_full.clone());
        kube_proxy.register("sync_partial_proxy_rules_duration_seconds", rules, self.sync_partial.clone());
        kube_proxy.register(
            "network_programming_duration_seconds",
            "Time from a change of a pod or Service until it was installed, in seconds",
            self.programming.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "Time of the last installed change, in seconds since the epoch",
            self.last_applied.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "Time of the last received change, in seconds since the epoch",
            self.last_queued.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_service_changes",
            "Added, changed and removed Services",
            self.service_changes.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_endpoint_changes",
            "Added, changed and removed EndpointSlices",
            self.endpoint_changes.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_service_changes_pending",
            "Added, changed and removed Services that are not installed yet",
            self.services_pending.clone(),
        );
        kube_proxy.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Added, changed and removed EndpointSlices that are not installed yet",
            self.endpoints_pending.clone(),
        );
        kube_proxy.register("proxy_healthz", "Responses of /healthz by status code", self.healthz.clone());
        kube_proxy.register("proxy_livez", "Responses of /livez by status code", self.livez.clone());
        let sidestep = self.registry.sub_registry_with_prefix("sidestep");
        sidestep.register(
            "problems",
            "Current problems: objects and settings that could not be used or installed",
            self.problems.clone(),
        );
        sidestep.register(
            "synced",
            "1 once the agent has installed all Services, else 0",
            self.synced.clone(),
        );
    }

    /// Changes came in: of this many Services and EndpointSlices.
    pub(super) fn queued(&self, now: Timestamp, services: usize, slices: usize) {
        self.last_queued.set(seconds(now));
        self.services_pending.inc_by(i64::try_from(services).unwrap_or(i64::MAX));
        self.endpoints_pending.inc_by(i64::try_from(slices).unwrap_or(i64::MAX));
    }

    /// Changes were installed.
    pub(super) fn applied(&self, applied: &Applied<'_>, now: Timestamp) {
        let Applied { changes, families, took, tally, problems, synced, .. } = applied;
        if *synced {
            // Until then they only gather.
            self.services_pending.set(0);
            self.endpoints_pending.set(0);
        }
        self.problems.set(i64::try_from(*problems).unwrap_or(i64::MAX));
        self.service_changes.inc_by(tally.services);
        self.endpoint_changes.inc_by(tally.slices);
        for triggered in &tally.triggered {
            if let Some(took) = programming_time(self.started, *triggered, now) {
                self.programming.observe(took);
            }
        }
        if changes.is_empty() {
            return;
        }
        self.last_applied.set(seconds(now));
        let partial = if changes.complete { &self.sync_full } else { &self.sync_partial };
        for family in families {
            let label = [("ip_family", health::name(*family))];
            self.sync.get_or_create(&label).observe(took.as_secs_f64());
            partial.get_or_create(&label).observe(took.as_secs_f64());
        }
        if changes.complete {
            self.synced.set(1);
        }
    }

    /// Counts a health check.
    pub(super) fn probed(&self, path: &str, code: u16) {
        let family = if path == "/livez" { &self.livez } else { &self.healthz };
        family.get_or_create(&[("code", code.to_string())]).inc();
    }

    /// Everything, as OpenMetrics text. Takes a while with many Services: not on the agent's own thread.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The latency that SIG Scalability has an objective for; changes from before the agent was started say
/// nothing of it.
fn programming_time(started: Timestamp, triggered: i64, now: Timestamp) -> Option<f64> {
    let triggered = Timestamp::from_millisecond(triggered).ok()?;
    (triggered >= started).then(|| now.duration_since(triggered).as_secs_f64().max(0.0))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this century are exact")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SLI counts from the annotation on, and never for changes that came before the agent.
    #[test]
    fn programming_time_is_of_changes_that_the_agent_saw() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).expect("a time");
        assert_eq!(programming_time(at(1000), 2000, at(2500)), Some(0.5));
        assert_eq!(programming_time(at(1000), 999, at(2500)), None);
        assert_eq!(programming_time(at(1000), 2000, at(1900)), Some(0.0), "clocks differ");
    }
}
