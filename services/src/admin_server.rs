//! The admin server: read-only HTTP for probes and Prometheus.
//!
//! - `GET /livez`: 200 as long as the process can answer at all
//! - `GET /readyz`: 200 when every part is ready; 503 with `{"ready":false,"waiting_for":[…]}` before that and while
//!   the process stops
//! - `GET /metrics`: the process's metrics in Prometheus' text format, then the service's own page

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::task::JoinSet;

use crate::listener::Bound;
use crate::metrics::Metrics;
use crate::page_writer::PageWriter;
use crate::readiness::Readiness;
use crate::shutdown::Stop;

/// Writes series straight from a service's state.
pub type Page = Arc<dyn Fn(&mut PageWriter) + Send + Sync>;

/// What the admin server shows.
#[derive(Clone)]
pub struct AdminServer {
    metrics: Metrics,
    readiness: Readiness,
    stop: Stop,
    page: Option<Page>,
}

impl AdminServer {
    /// Probes and metrics of one process.
    #[must_use]
    pub fn new(metrics: &Metrics, readiness: &Readiness, stop: &Stop) -> Self {
        Self { metrics: metrics.clone(), readiness: readiness.clone(), stop: stop.clone(), page: None }
    }

    /// Adds series to `/metrics` that are written at every scrape.
    #[must_use]
    pub fn page(mut self, page: Page) -> Self {
        self.page = Some(page);
        self
    }

    /// The routes, for a server that already listens elsewhere.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "live\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// Serves until the handle is dropped: to the very end of a drain, so that probes see it.
    #[must_use = "the server ends when its handle is dropped"]
    pub fn spawn(self, bound: Bound) -> AdminHandle {
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = axum::serve(bound.listener, self.router()).await {
                tracing::error!(%error, "the admin server ended");
            }
        });
        AdminHandle(task)
    }
}

/// Ends the admin server when dropped.
#[derive(Debug)]
pub struct AdminHandle(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

async fn ready(State(server): State<AdminServer>) -> Response {
    let mut waiting_for = server.readiness.waiting_for();
    if server.stop.is_requested() {
        waiting_for.push("draining".into());
    }
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready, "waiting_for": waiting_for }))).into_response()
}

async fn metrics(State(server): State<AdminServer>) -> Response {
    let mut page = PageWriter::default();
    match server.metrics.render() {
        Ok(own) => page.append(&own),
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render metrics: {error}\n"))
                .into_response();
        }
    }
    if let Some(write) = &server.page {
        write(&mut page);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.finish()).into_response()
}
