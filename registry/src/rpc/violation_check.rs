//! What a reported violation must look like.

use memharvest_proto::collector::v1::Signal;
use memharvest_proto::registry::v1::{Violation, ViolationKind, ViolationState};

use crate::check::{Check, MAX_TEXT};

/// Most points of the series around a violation.
const MAX_POINTS: usize = 10_000;

/// Wrong fields that are told.
pub(super) const MAX_WRONG: usize = 20;

/// Notes what is wrong with a violation.
pub(super) fn check_violation(check: &mut Check, violation: &Violation) {
    check.violation_id("violation_id", &violation.violation_id);
    check.vm("vm_id", &violation.vm_id);
    check.id("host_id", &violation.host_id);
    check.that(
        violation.kind() != ViolationKind::Unspecified,
        "kind",
        "must be forecast, promise or boundary",
    );
    check.that(violation.signal() != Signal::Unspecified, "signal", "must be rss or demand");
    let opened = check.instant("opened_at", violation.opened_at.as_ref());
    let closed = check.instant_or_none("closed_at", violation.closed_at.as_ref());
    match violation.state() {
        ViolationState::Unspecified => check.wrong.add("state", "must be open or closed"),
        ViolationState::Open => {
            check.that(violation.closed_at.is_none(), "closed_at", "must be absent while open");
        }
        ViolationState::Closed => {
            check.that(violation.closed_at.is_some(), "closed_at", "must be given once closed");
        }
    }
    check.that(
        closed.is_none_or(|closed| opened <= Some(closed)),
        "closed_at",
        "must not be before opened_at",
    );
    for (field, bytes) in [
        ("predicted_bytes", violation.predicted_bytes),
        ("actual_bytes", violation.actual_bytes),
        ("overshoot_bytes", violation.overshoot_bytes),
        ("allocated_bytes", violation.allocated_bytes),
        ("revision", violation.revision),
    ] {
        check.bytes(field, Some(bytes));
    }
    check.within("overshoot_ratio", violation.overshoot_ratio, 0.0, f64::MAX);
    check.within("target_violation_rate", violation.target_violation_rate, 0.0, 1.0);
    check.duration_or_none("horizon", violation.horizon.as_ref(), 0, 86_400);
    for (field, text) in [
        ("vm_name", &violation.vm_name),
        ("model_version", &violation.model_version),
        ("close_reason", &violation.close_reason),
        ("traceparent", &violation.traceparent),
    ] {
        check.text(field, text, MAX_TEXT);
    }
    // As long as all labels of a host make it.
    check.text("boundary_version", &violation.boundary_version, 64 * 1024);
    check.that(violation.series.len() <= MAX_POINTS, "series", "must be at most 10000 points");
    for (at, point) in violation.series.iter().take(MAX_POINTS).enumerate() {
        check.nested(
            || format!("series[{at}]"),
            |own| {
                own.instant("at", point.at.as_ref());
                own.bytes("actual_bytes", Some(point.actual_bytes));
                own.bytes("predicted_bytes", point.predicted_bytes);
            },
        );
        if check.wrong.as_slice().len() >= MAX_WRONG {
            return;
        }
    }
}
