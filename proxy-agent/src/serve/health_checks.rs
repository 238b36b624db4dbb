//! Health check node ports: one listener for each Service and family that a load balancer asks about (HE-3).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use hyper::header::HeaderValue;
use serde::Serialize;

use super::{
    Shared, Task,
    guests::{Guests, Times},
    http::{self, Answer, Site},
    listen::{self, Families, Named},
    lock,
};
use crate::{
    model::{ObjectName, Subject},
    plan::HealthCheck,
};

/// How many clients of all listeners are served at the same time.
const CLIENTS: usize = 256;

/// The listeners that there are.
#[derive(Debug)]
pub(super) struct HealthChecks {
    shared: Arc<Shared>,
    /// Of all listeners together: however many there are, clients leave descriptors and memory to the agent.
    guests: Arc<Guests>,
    open: BTreeMap<(SocketAddr, ObjectName), Listener>,
}

#[derive(Debug)]
struct Listener {
    local_endpoints: Arc<AtomicU32>,
    _task: Task,
}

impl HealthChecks {
    /// None yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, guests: Guests::new(CLIENTS, Times::default()), open: BTreeMap::new() }
    }

    /// Opens and closes listeners as requested; those that stay report the new numbers.
    pub(super) fn set(&mut self, checks: Vec<HealthCheck>) {
        let mut before = std::mem::take(&mut self.open);
        let mut new = Vec::new();
        for HealthCheck { service, listen, local_endpoints } in checks {
            for address in listen {
                let key = (address, service.clone());
                if let Some(listener) = before.remove(&key) {
                    listener.local_endpoints.store(local_endpoints, Ordering::Relaxed);
                    self.open.insert(key, listener);
                } else {
                    new.push((key, local_endpoints));
                }
            }
        }
        // A port may go from one Service to another.
        drop(before);
        for (key, local_endpoints) in new {
            let listener = self.listener(&key, local_endpoints);
            self.open.insert(key, listener);
        }
    }

    fn listener(&self, (address, service): &(SocketAddr, ObjectName), local_endpoints: u32) -> Listener {
        let local_endpoints = Arc::new(AtomicU32::new(local_endpoints));
        let site = Question {
            shared: Arc::clone(&self.shared),
            service: service.clone(),
            local_endpoints: Arc::clone(&local_endpoints),
        };
        let subject = Subject::HealthCheck(service.clone());
        let named = Named { shared: Arc::clone(&self.shared), key: (subject.clone(), *address) };
        let problem = listen::problem((subject, "spec.healthCheckNodePort"), *address);
        let task =
            listen::keep_listening(named, problem, (*address, Families::Own), site, Arc::clone(&self.guests));
        Listener { local_endpoints, _task: task }
    }
}

/// What is to be found at one listener, at any path.
#[derive(Debug)]
struct Question {
    shared: Arc<Shared>,
    service: ObjectName,
    local_endpoints: Arc<AtomicU32>,
}

/// The body, as kube-proxy's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: BodyName<'a>,
    local_endpoints: u32,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct BodyName<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Site for Question {
    async fn answer(&self, _: &str) -> Answer {
        let (namespace, name) = (self.service.namespace(), self.service.name());
        let local_endpoints = self.local_endpoints.load(Ordering::Relaxed);
        let service_proxy_healthy = lock(&self.shared.health).is_live(Instant::now());
        let body = Body { service: BodyName { namespace, name }, local_endpoints, service_proxy_healthy };
        let mut answer = http::json(http::status(local_endpoints > 0 && service_proxy_healthy), &body);
        answer.headers_mut().insert("x-load-balancing-endpoint-weight", HeaderValue::from(local_endpoints));
        answer
    }
}
