//! What a boundary may say: every value that it may not is named.

use memharvest_proto::collector::v1::Signal;
use memharvest_proto::registry::v1::{BoundaryValues, Fairness, HostBasis};
use memharvest_services::rpc_error::FieldViolations;

use super::{DAY_NS, SECOND_NS};
use crate::check::MAX_BYTES;
use crate::scope::Scope;
use crate::time::duration_to_ns;

/// Notes values that a scope cannot have, or that leave a machine without any margin.
pub fn check_at(scope: &Scope, values: &BoundaryValues, wrong: &mut FieldViolations) {
    if matches!(scope, Scope::Vm(_)) && values.host_basis.is_some() {
        wrong.add("values.host_basis", "is a matter of hosts: set it at a host, a group or the fleet");
    }
    if values.headroom_ratio == Some(0.0) && values.headroom_bytes == Some(0) {
        wrong.add(
            "values.headroom_bytes",
            "must be above 0 where headroom_ratio is 0: without any headroom every error of a forecast is a broken promise",
        );
    }
    if let (Some(floor), Some(upper)) = (values.floor_bytes, values.upper_usage_bytes)
        && floor > upper
    {
        wrong.add(
            "values.floor_bytes",
            format!(
                "must not be above upper_usage_bytes, {upper}: usage up to the floor would be a violation"
            ),
        );
    }
}

/// Notes every value that is out of its range, and values that contradict each other.
pub fn check(values: &BoundaryValues, wrong: &mut FieldViolations) {
    let mut within = |field: &str, value: Option<f64>, fits: fn(f64) -> bool, range: &str| {
        if value.is_some_and(|value| !fits(value)) {
            wrong.add(format!("values.{field}"), format!("must be {range}"));
        }
    };
    within("headroom_ratio", values.headroom_ratio, |v| (0.0..=10.0).contains(&v), "from 0 to 10");
    within("max_harvest_ratio", values.max_harvest_ratio, |v| (0.0..=1.0).contains(&v), "from 0 to 1");
    within(
        "target_violation_rate",
        values.target_violation_rate,
        |v| v > 0.0 && v <= 0.5,
        "above 0 and at most 0.5",
    );
    within(
        "error_budget_per_1000_vm_days",
        values.error_budget_per_1000_vm_days,
        |v| (0.0..=1_000_000.0).contains(&v),
        "from 0 to 1000000",
    );
    for (field, value) in [
        ("headroom_bytes", values.headroom_bytes),
        ("floor_bytes", values.floor_bytes),
        ("upper_usage_bytes", values.upper_usage_bytes),
        ("lower_usage_bytes", values.lower_usage_bytes),
    ] {
        if value.is_some_and(|value| value > MAX_BYTES) {
            wrong.add(format!("values.{field}"), format!("must be at most {MAX_BYTES} bytes"));
        }
    }
    if let (Some(lower), Some(upper)) = (values.lower_usage_bytes, values.upper_usage_bytes)
        && lower > upper
    {
        wrong.add("values.lower_usage_bytes", format!("must not be above upper_usage_bytes, {upper}"));
    }
    if values.fairness.is_some() && values.fairness() == Fairness::Unspecified {
        wrong.add("values.fairness", "must be per_vm, capped or fleet");
    }
    if values.signal.is_some() && values.signal() == Signal::Unspecified {
        wrong.add("values.signal", "must be rss or demand");
    }
    if values.host_basis.is_some() && values.host_basis() == HostBasis::Unspecified {
        wrong.add("values.host_basis", "must be sum or pooled");
    }
    if let Some(horizon) = &values.horizon
        && !duration_to_ns(horizon).is_some_and(|ns| (SECOND_NS..=DAY_NS).contains(&ns))
    {
        wrong.add("values.horizon", "must be from one second to 24 hours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::tests::everything;
    use crate::time::duration_from_ns;

    fn wrong_fields(values: &BoundaryValues) -> Vec<String> {
        let mut wrong = FieldViolations::default();
        check(values, &mut wrong);
        wrong.as_slice().iter().map(|one| one.field.clone()).collect()
    }

    #[test]
    fn good_values_pass() {
        assert!(wrong_fields(&everything()).is_empty());
        assert!(wrong_fields(&BoundaryValues::default()).is_empty());
    }

    #[test]
    fn every_value_out_of_its_range_is_named() {
        let bad = BoundaryValues {
            headroom_ratio: Some(f64::NAN),
            headroom_bytes: Some(u64::MAX),
            floor_bytes: Some(u64::MAX),
            max_harvest_ratio: Some(1.01),
            upper_usage_bytes: Some(u64::MAX),
            lower_usage_bytes: Some(u64::MAX),
            target_violation_rate: Some(0.0),
            fairness: Some(0),
            horizon: Some(duration_from_ns(DAY_NS + 1)),
            signal: Some(9),
            excluded: Some(true),
            host_basis: Some(-1),
            error_budget_per_1000_vm_days: Some(f64::INFINITY),
        };
        // `excluded` is the one field that cannot be wrong.
        assert_eq!(wrong_fields(&bad).len(), 12);
    }

    #[test]
    fn a_band_that_is_upside_down_is_refused() {
        let values =
            BoundaryValues { lower_usage_bytes: Some(2), upper_usage_bytes: Some(1), ..Default::default() };
        assert_eq!(wrong_fields(&values), ["values.lower_usage_bytes"]);
    }

    #[test]
    fn values_that_do_not_fit_their_scope_or_leave_no_margin_are_refused() {
        let wrong = |scope: &str, values: BoundaryValues| -> Vec<String> {
            let mut wrong = FieldViolations::default();
            check_at(&scope.parse().unwrap(), &values, &mut wrong);
            wrong.as_slice().iter().map(|one| one.field.clone()).collect()
        };
        let none = BoundaryValues::default;
        let pooled = || BoundaryValues { host_basis: Some(HostBasis::Pooled.into()), ..none() };
        assert_eq!(wrong(&format!("vm:{}", uuid::Uuid::nil()), pooled()), ["values.host_basis"]);
        assert!(wrong("host:h", pooled()).is_empty());
        let bare = |bytes| BoundaryValues { headroom_ratio: Some(0.0), headroom_bytes: bytes, ..none() };
        assert_eq!(wrong("fleet", bare(Some(0))), ["values.headroom_bytes"]);
        assert!(wrong("fleet", bare(None)).is_empty(), "the bytes may come from another scope");
        let above = BoundaryValues { floor_bytes: Some(2), upper_usage_bytes: Some(1), ..none() };
        assert_eq!(wrong("fleet", above), ["values.floor_bytes"]);
    }
}
