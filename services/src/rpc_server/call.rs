//! The layer that every gRPC call goes through.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{Instrument, Span, field};

use super::Limits;
use crate::metrics::Metrics;
use crate::rpc_body::{Interrupt, WatchedBody, code_of};
use crate::rpc_methods::{RpcMethod, RpcMethods};
use crate::trace_context;

/// What the layer knows.
pub(super) struct Calls {
    pub(super) methods: RpcMethods,
    pub(super) metrics: Metrics,
    pub(super) unary: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) limits: Limits,
    pub(super) end_streams: CancellationToken,
}

/// tonic cuts a call at the caller's deadline too, but with `CANCELLED`; ours comes this much before it.
const AHEAD_OF_TONIC: Duration = Duration::from_millis(3);

pub(super) async fn serve(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let method = calls.methods.look_up(request.uri().path());
    let span = span_of(&method, request.headers());
    let mut timer = calls.metrics.server.start(&method.service, &method.name, span.clone());

    let (semaphore, limit) = if method.streaming {
        (&calls.streams, calls.limits.streams_open)
    } else {
        (&calls.unary, calls.limits.unary_in_flight)
    };
    let Ok(permit) = Arc::clone(semaphore).try_acquire_owned() else {
        timer.end(Code::ResourceExhausted);
        let kind = if method.streaming { "streams" } else { "calls" };
        return refusal(Status::resource_exhausted(format!(
            "at the limit of {limit} {kind}; try again later"
        )));
    };

    let response = if method.streaming {
        next.run(request).instrument(span).await
    } else {
        let deadline = deadline_of(request.headers(), calls.limits.unary_deadline);
        match tokio::time::timeout(deadline, next.run(request).instrument(span)).await {
            Ok(response) => response,
            Err(_) => refusal(Status::deadline_exceeded(format!("not done within {deadline:?}"))),
        }
    };
    if let Some(code) = code_of(response.headers()) {
        timer.end(code);
    }
    let end_streams = calls.end_streams.clone();
    let interrupt: Option<Interrupt> = method.streaming.then(|| -> Interrupt {
        Box::pin(async move {
            end_streams.cancelled_owned().await;
            Status::unavailable("the server is stopping; connect again")
        })
    });
    // A unary answer is complete by now; only a stream goes on taking room.
    let permit = method.streaming.then_some(permit);
    response.map(|body| Body::new(WatchedBody::new(body, timer, interrupt, permit)))
}

/// A span for a unary call of ours. Probes would drown the rest, and a stream's span would hold every message of its
/// life: its messages carry their own contexts.
fn span_of(method: &RpcMethod, headers: &HeaderMap) -> Span {
    if method.streaming || method.service.starts_with("grpc.") {
        return Span::none();
    }
    let span = tracing::info_span!(
        "rpc_server",
        otel.name = format!("{}/{}", method.service, method.name),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = method.service,
        rpc.method = method.name,
        rpc.grpc.status_code = field::Empty,
        otel.status_code = field::Empty,
    );
    trace_context::extract(&span, headers);
    span
}

/// The shorter of the caller's deadline and the server's.
fn deadline_of(headers: &HeaderMap, longest: Duration) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_timeout);
    asked.map_or(longest, |asked| asked.saturating_sub(AHEAD_OF_TONIC).min(longest))
}

/// Parses `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn refusal(status: Status) -> Response {
    status.into_http::<Body>()
}

/// The answer in place of a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text =
        cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    refusal(Status::internal("the handler panicked; the server's log tells why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_callers_deadline() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for nonsense in ["", "S", "-1S", "5", "5s", "123456789S", "5µ"] {
            assert_eq!(parse_timeout(nonsense), None, "{nonsense}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(deadline_of(&headers, Duration::from_secs(30)), Duration::from_secs(30));
        headers.insert("grpc-timeout", "99S".parse().unwrap());
        assert_eq!(deadline_of(&headers, Duration::from_secs(30)), Duration::from_secs(30));
    }
}
