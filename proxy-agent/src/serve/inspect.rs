//! The site for people and their tools: metrics, and the effective configuration (HE-4).

use std::sync::Arc;

use hyper::StatusCode;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    Shared,
    http::{self, Answer, Site},
};
use crate::config::Settings;

/// The site at `metricsBindAddress`.
#[derive(Debug)]
pub(super) struct Inspect {
    shared: Arc<Shared>,
    configuration: serde_json::Value,
    /// One scrape at a time: it costs a thread.
    scrape: Semaphore,
}

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Inspect {
    /// Shows these settings.
    pub(super) fn new(shared: Arc<Shared>, settings: &Settings) -> Self {
        let configuration = serde_json::json!({"kubeproxy.config.k8s.io": &settings.effective});
        Self { shared, configuration, scrape: Semaphore::new(1) }
    }

    async fn metrics(&self) -> Answer {
        // Never closed, so there is always a permit in the end.
        let _permit = self.scrape.acquire().await;
        let shared = Arc::clone(&self.shared);
        let wrong = |error: String| http::text(StatusCode::INTERNAL_SERVER_ERROR, error);
        match spawn_blocking(move || shared.metrics.text()).await {
            Ok(Ok(text)) => http::answer(StatusCode::OK, METRICS, text),
            Ok(Err(error)) => wrong(error.to_string()),
            Err(error) => wrong(error.to_string()),
        }
    }
}

impl Site for Inspect {
    async fn answer(&self, path: &str) -> Answer {
        match path {
            "/metrics" => self.metrics().await,
            "/healthz" | "/livez" => http::text(StatusCode::OK, "ok"),
            "/proxyMode" => http::text(StatusCode::OK, "sidestep"),
            "/configz" => http::json(StatusCode::OK, &self.configuration),
            _ => http::not_found(),
        }
    }
}
