//! Every REST request is counted, timed and traced by its route, never by its path: ids must not fill the metrics.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use memharvest_services::metrics::Metrics;
use memharvest_services::trace_context::set_parent_from;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tracing::{Instrument, field};

/// Rate, errors and duration of REST requests.
#[derive(Clone, Debug)]
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl HttpMetrics {
    /// Registers the series of the process.
    ///
    /// # Errors
    /// They are registered already.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let help = "HTTP requests served, by route and status.";
        let requests = IntCounterVec::new(
            Opts::new("memharvest_http_requests_total", help),
            &["method", "route", "status"],
        )?;
        let help = "Time that HTTP requests took until the answer began.";
        let opts = HistogramOpts::new("memharvest_http_request_duration_seconds", help).buckets(vec![
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ]);
        let duration = HistogramVec::new(opts, &["method", "route"])?;
        metrics.registry().register(Box::new(requests.clone()))?;
        metrics.registry().register(Box::new(duration.clone()))?;
        Ok(Self { requests, duration })
    }
}

/// The layer. It stands around the routes, so that it knows which one was found.
pub(crate) async fn observe(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!(
        "http_server",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = field::Empty,
    );
    if let Some(parent) = request.headers().get("traceparent").and_then(|value| value.to_str().ok()) {
        set_parent_from(&span, parent);
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let method = if KNOWN_METHODS.contains(&method.as_str()) { method.as_str() } else { "other" };
    metrics.requests.with_label_values(&[method, route, &status.to_string()]).inc();
    metrics.duration.with_label_values(&[method, route]).observe(started.elapsed().as_secs_f64());
    response
}

/// Nobody fills the metrics with methods of his own.
const KNOWN_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
