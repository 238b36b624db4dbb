//! `/healthz` for load balancers, and `/livez` for the kubelet.

use std::sync::Arc;

use super::{
    Shared,
    health::Now,
    http::{self, Answer, Site},
    lock,
};

/// The site at `healthzBindAddress`.
#[derive(Debug)]
pub(super) struct Healthz(pub(super) Arc<Shared>);

impl Site for Healthz {
    async fn answer(&self, path: &str) -> Answer {
        let now = Now::get();
        let report = match path {
            "/healthz" => lock(&self.0.health).healthz(now),
            "/livez" => lock(&self.0.health).livez(now),
            _ => return http::not_found(),
        };
        let status = http::status(report.healthy);
        self.0.metrics.probed(path, status.as_u16());
        http::json(status, &report)
    }
}
