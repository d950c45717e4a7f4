//! Optional times and spans of messages: what cannot be told is absent.

use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::proto_time::{duration_from_proto, from_proto};

/// A time of a message; `None` where it is absent or no time.
#[must_use]
pub(crate) fn time(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    from_proto(at?).ok()
}

/// A span of a message; `None` where it is absent, negative or no span.
#[must_use]
pub(crate) fn span(span: Option<&prost_types::Duration>) -> Option<Duration> {
    duration_from_proto(span?).ok()
}
