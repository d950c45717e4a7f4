//! W3C trace context: in the metadata of RPCs, and as a `traceparent` string in messages of streams and records.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// The current span's context as `traceparent`; nothing when traces are off.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    let mut fields = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut fields);
    fields.remove(TRACEPARENT)
}

/// Makes `span` a child of the context in `traceparent`. Must come before the span is first entered; an empty or
/// malformed text leaves the span as it is.
pub fn set_parent_from(span: &Span, traceparent: &str) {
    let fields = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    adopt(span, &fields);
}

/// Makes `span` a child of the caller's context.
pub(crate) fn extract(span: &Span, headers: &HeaderMap) {
    adopt(span, &Headers(headers));
}

/// Writes the span's context into the headers of a call.
pub(crate) fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersMut(headers));
}

fn adopt(span: &Span, fields: &dyn Extractor) {
    let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), fields);
    if context.span().span_context().is_valid() {
        // Fails only where traces are off, and then there is nothing to adopt.
        let _ = span.set_parent(context);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
