//! The agent's HTTP listeners: its health, health checks of load balancers, metrics.
//!
//! | file | concept |
//! |---|---|
//! | `health` | when is the agent healthy? (pure) |
//! | `healthz` | `/healthz` and `/livez` (HE-1, HE-2) |
//! | `health_checks` | one listener for each health check node port (HE-3) |
//! | `inspect` | `/metrics`, `/proxyMode`, `/configz` (HE-4) |
//! | `metrics` | the agent's own counts, and those read from the tables at each scrape |
//! | `http`, `listen` | answering requests; listening, and trying again |
//! | `guests` | how many clients there are, and for how long |
//!
//! Handlers read snapshots and never wait for the agent; the agent never waits for a client. Long work (a scrape of
//! all Services) runs on a thread of its own. A port that cannot be bound becomes a problem and is tried again every
//! few seconds: no connection fails for lack of a metric.

mod guests;
mod health;
mod health_checks;
mod healthz;
mod http;
mod inspect;
mod listen;
mod metrics;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::task::JoinHandle;

use self::{
    health::Health, health_checks::HealthChecks, healthz::Healthz, inspect::Inspect, metrics::Metrics,
};
use crate::{
    config::Settings,
    dataplane::SharedTables,
    model::{Event, Kind, Object, ObjectKey, Problem, Subject},
    plan::{Changes, Family, HealthCheck, Tally},
};

/// The state that all listeners share.
#[derive(Debug)]
struct Shared {
    health: Mutex<Health>,
    metrics: Metrics,
    /// Addresses that cannot be bound, by listener.
    problems: Mutex<BTreeMap<(Subject, SocketAddr), Problem>>,
}

/// Takes a lock that nobody holds for long; what it guards is whole even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The result of applying changes.
#[derive(Debug)]
pub struct Applied<'a> {
    /// The changes; of the whole plan its last part.
    pub changes: &'a Changes,
    /// Families of all Service ports that changed.
    pub families: BTreeSet<Family>,
    /// How long it took to install them.
    pub took: Duration,
    /// What had come in.
    pub tally: Tally,
    /// Whether load balancers may send new connections here (HE-1).
    pub node_eligible: bool,
    /// What load balancers ask about (HE-3).
    pub health_checks: Vec<HealthCheck>,
    /// How many problems there are.
    pub problems: usize,
    /// Whether everything that came in is installed: not before the sources have reported everything.
    pub synced: bool,
}

/// The listeners; dropping it closes them.
#[derive(Debug)]
pub struct Serve {
    shared: Arc<Shared>,
    health_checks: HealthChecks,
    _tasks: Vec<Task>,
}

impl Serve {
    /// Starts to listen. Fails only if the configuration says that it is to fail (CF-5).
    pub fn start(
        settings: &Settings,
        tables: SharedTables,
        node: &str,
        source: &str,
    ) -> anyhow::Result<Self> {
        let families = if has_ipv6() { &[Family::V4, Family::V6][..] } else { &[Family::V4] };
        let mut metrics = Metrics::new(node, source);
        metrics.read_from(tables);
        let shared = Arc::new(Shared {
            health: Mutex::new(Health::new(families, settings.patience)),
            metrics,
            problems: Mutex::default(),
        });
        let mut tasks = Vec::new();
        if let Some(address) = settings.healthz {
            let site = Healthz(Arc::clone(&shared));
            let what = (Subject::Healthz, "healthzBindAddress");
            tasks.push(listen::start(&shared, what, address, site, settings.bind_hard_fail)?);
        }
        if let Some(address) = settings.metrics {
            let site = Inspect::new(Arc::clone(&shared), settings);
            let what = (Subject::Metrics, "metricsBindAddress");
            tasks.push(listen::start(&shared, what, address, site, settings.bind_hard_fail)?);
        }
        Ok(Self { health_checks: HealthChecks::new(Arc::clone(&shared)), shared, _tasks: tasks })
    }

    /// Changes have come in and are about to be applied.
    pub fn queued<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        let now = Timestamp::now();
        let (mut services, mut slices) = (0, 0);
        for event in events {
            match event {
                Event::Upsert(Object::Service(_)) | Event::Delete(ObjectKey { kind: Kind::Service, .. }) => {
                    services += 1;
                }
                Event::Upsert(Object::EndpointSlice(_))
                | Event::Delete(ObjectKey { kind: Kind::EndpointSlice, .. }) => slices += 1,
                Event::Upsert(Object::Node(_) | Object::Pod(_))
                | Event::Delete(ObjectKey { kind: Kind::Node | Kind::Pod, .. })
                | Event::Found { .. }
                | Event::Unread(_)
                | Event::PodsListed
                | Event::Synced => {}
            }
        }
        lock(&self.shared.health).queued(Instant::now());
        self.shared.metrics.queued(now, services, slices);
    }

    /// They have been applied.
    pub fn applied(&mut self, applied: Applied<'_>) {
        let now = Timestamp::now();
        self.shared.metrics.applied(&applied, now);
        let mut health = lock(&self.shared.health);
        health.applied(now);
        health.set_node_eligible(applied.node_eligible);
        drop(health);
        self.health_checks.set(applied.health_checks);
    }

    /// Problems with addresses that cannot be bound.
    pub fn problems(&self) -> Vec<Problem> {
        lock(&self.shared.problems).values().cloned().collect()
    }
}

/// IN-10: whether the kernel has IPv6, on some interface at least.
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|interfaces| !interfaces.is_empty())
}
