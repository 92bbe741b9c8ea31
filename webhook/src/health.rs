//! Probes and metrics, over plain HTTP on a port of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::certificate;
use crate::metrics::Metrics;
use crate::state::State;

/// What readiness depends on.
#[derive(Clone)]
pub struct Health {
    /// Every watch has shown everything once.
    pub state: State,
    /// There is a certificate.
    pub certificate: certificate::Current,
    /// We are about to end.
    pub stopping: watch::Receiver<bool>,
    /// Whether this replica leads.
    pub leading: watch::Receiver<bool>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
}

impl Health {
    /// What is missing for being ready.
    fn missing(&self) -> Vec<&'static str> {
        let conditions = [
            (!*self.stopping.borrow(), "shutting down"),
            (self.state.synced(), "rulesets, policies and namespaces are not all known yet"),
            (self.certificate.borrow().is_some(), "there is no certificate yet"),
        ];
        conditions.into_iter().filter(|(met, _)| !met).map(|(_, missing)| missing).collect()
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(Shared(health): Shared<Health>) -> (StatusCode, String) {
    let missing = health.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
    }
}

async fn metrics(Shared(health): Shared<Health>) -> impl IntoResponse {
    health.metrics.leading.set(i64::from(*health.leading.borrow()));
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics.text())
}
