//! A process's own metrics: what it is, its RPCs, its queues, its resources.

use std::time::Instant;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tonic::Code;

use crate::Service;
use crate::tls::identity::Lifetime;

/// The registry of one process. Clones share the same state.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    pub(crate) server: RpcMetrics,
    pub(crate) client: RpcMetrics,
    queue_depth: IntGaugeVec,
    queue_dropped: IntCounterVec,
    refused_callers: IntCounterVec,
    certificate_starts: IntGaugeVec,
    certificate_expires: IntGaugeVec,
}

impl Metrics {
    /// Metrics that every process has.
    ///
    /// # Errors
    /// Two metrics of one name, which would be a mistake in this module.
    pub fn new(service: &Service) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let opts = Opts::new("memharvest_build_info", "Version of the process; always 1.");
        let build_info = IntGaugeVec::new(opts, &["service", "version"])?;
        build_info.with_label_values(&[service.short_name(), service.version]).set(1);
        let opts = Opts::new("memharvest_queue_depth", "Items that wait in a queue.");
        let queue_depth = IntGaugeVec::new(opts, &["queue"])?;
        let opts = Opts::new("memharvest_queue_dropped_total", "Items that a full queue dropped.");
        let queue_dropped = IntCounterVec::new(opts, &["queue"])?;
        let opts =
            Opts::new("memharvest_refused_callers_total", "Callers that were refused, by how far they came.");
        let refused_callers = IntCounterVec::new(opts, &["stage"])?;
        let opts = Opts::new(
            "memharvest_certificate_start_timestamp_seconds",
            "From when on a certificate holds, by what it is for.",
        );
        let certificate_starts = IntGaugeVec::new(opts, &["purpose"])?;
        let opts = Opts::new(
            "memharvest_certificate_expiry_timestamp_seconds",
            "Until when a certificate holds, by what it is for.",
        );
        let certificate_expires = IntGaugeVec::new(opts, &["purpose"])?;
        registry.register(Box::new(refused_callers.clone()))?;
        registry.register(Box::new(certificate_starts.clone()))?;
        registry.register(Box::new(certificate_expires.clone()))?;
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(queue_depth.clone()))?;
        registry.register(Box::new(queue_dropped.clone()))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let server = RpcMetrics::register(&registry, "server", "served")?;
        let client = RpcMetrics::register(&registry, "client", "made")?;
        Ok(Self {
            registry,
            server,
            client,
            queue_depth,
            queue_dropped,
            refused_callers,
            certificate_starts,
            certificate_expires,
        })
    }

    /// Where a service registers metrics of its own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Depth and drops of a queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueMetrics {
        QueueMetrics {
            depth: self.queue_depth.with_label_values(&[name]),
            dropped: self.queue_dropped.with_label_values(&[name]),
        }
    }

    /// A caller was refused.
    pub(crate) fn refused(&self, stage: &str) {
        self.refused_callers.with_label_values(&[stage]).inc();
    }

    /// How long a certificate holds that is used from now on.
    pub(crate) fn certificate(&self, purpose: &str, lifetime: Lifetime) {
        self.certificate_starts.with_label_values(&[purpose]).set(lifetime.starts);
        self.certificate_expires.with_label_values(&[purpose]).set(lifetime.expires);
    }

    /// The page in Prometheus' text format.
    ///
    /// # Errors
    /// A collector gives metrics that do not fit together.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// One queue's metrics.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    depth: IntGauge,
    dropped: IntCounter,
}

impl QueueMetrics {
    /// Items that wait now.
    pub fn set_depth(&self, items: usize) {
        self.depth.set(i64::try_from(items).unwrap_or(i64::MAX));
    }

    /// Items dropped just now.
    pub fn dropped(&self, items: usize) {
        self.dropped.inc_by(items as u64);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct RpcMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl RpcMetrics {
    fn register(registry: &Registry, side: &str, done: &str) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            format!("memharvest_rpc_{side}_requests_total"),
            format!("RPCs {done}, by how they ended; a stream counts when it ends."),
        );
        let requests = IntCounterVec::new(opts, &["service", "method", "code"])?;
        let opts = HistogramOpts::new(
            format!("memharvest_rpc_{side}_duration_seconds"),
            format!("Time that RPCs {done} took; a stream's is its whole life."),
        )
        .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let duration = HistogramVec::new(opts, &["service", "method"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { requests, duration })
    }

    pub(crate) fn start(&self, service: &str, method: &str, span: tracing::Span) -> RpcTimer {
        RpcTimer {
            metrics: self.clone(),
            service: service.to_owned(),
            method: method.to_owned(),
            started: Instant::now(),
            ended: false,
            span,
        }
    }
}

/// One RPC in flight. Dropped before it has ended, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct RpcTimer {
    metrics: RpcMetrics,
    service: String,
    method: String,
    started: Instant,
    ended: bool,
    span: tracing::Span,
}

impl RpcTimer {
    pub(crate) fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let labels = [self.service.as_str(), self.method.as_str()];
        self.metrics.requests.with_label_values(&[labels[0], labels[1], code_name(code)]).inc();
        self.metrics.duration.with_label_values(&labels).observe(self.started.elapsed().as_secs_f64());
        self.span.record("rpc.grpc.status_code", code as i64);
        if code != Code::Ok {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for RpcTimer {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// A gRPC code's name as the specification writes it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
