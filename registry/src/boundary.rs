//! What a boundary may say, how it is written down, and what holds where several speak. Pure.

use std::collections::BTreeSet;

use memharvest_proto::collector::v1::Signal;
use memharvest_proto::registry::v1::{
    Boundary, BoundaryDiff, BoundarySource, BoundaryValues, Fairness, HostBasis,
};
use memharvest_services::rpc_error::FieldViolations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::MAX_BYTES;
use crate::scope::Scope;
use crate::time::{duration_from_ns, duration_to_ns};

const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = 86_400 * SECOND_NS;

/// A boundary's fields as JSON: the form that the store and the audit log keep. A field that says nothing is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    headroom_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headroom_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_harvest_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_usage_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_usage_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_violation_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fairness: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    horizon_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_basis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_budget_per_1000_vm_days: Option<f64>,
}

const FAIRNESS_PREFIX: &str = "FAIRNESS_";
const SIGNAL_PREFIX: &str = "SIGNAL_";
const HOST_BASIS_PREFIX: &str = "HOST_BASIS_";

/// `FAIRNESS_PER_VM` as `per_vm`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// `per_vm` as `FAIRNESS_PER_VM`.
fn name(word: &str, prefix: &str) -> String {
    format!("{prefix}{}", word.to_ascii_uppercase())
}

/// A boundary's values as JSON.
///
/// # Errors
/// A number that JSON has no form for, which [`check`] refuses before.
pub fn to_json(values: &BoundaryValues) -> Result<String, serde_json::Error> {
    let fields = Fields {
        headroom_ratio: values.headroom_ratio,
        headroom_bytes: values.headroom_bytes,
        floor_bytes: values.floor_bytes,
        max_harvest_ratio: values.max_harvest_ratio,
        upper_usage_bytes: values.upper_usage_bytes,
        lower_usage_bytes: values.lower_usage_bytes,
        target_violation_rate: values.target_violation_rate,
        fairness: values.fairness.map(|_| word(values.fairness().as_str_name(), FAIRNESS_PREFIX)),
        horizon_ns: values.horizon.as_ref().and_then(duration_to_ns),
        signal: values.signal.map(|_| word(values.signal().as_str_name(), SIGNAL_PREFIX)),
        excluded: values.excluded,
        host_basis: values.host_basis.map(|_| word(values.host_basis().as_str_name(), HOST_BASIS_PREFIX)),
        error_budget_per_1000_vm_days: values.error_budget_per_1000_vm_days,
    };
    serde_json::to_string(&fields)
}

/// A boundary's values from the JSON of [`to_json`].
///
/// # Errors
/// The text is something else.
pub fn from_json(json: &str) -> Result<BoundaryValues, serde_json::Error> {
    let fields: Fields = serde_json::from_str(json)?;
    Ok(BoundaryValues {
        headroom_ratio: fields.headroom_ratio,
        headroom_bytes: fields.headroom_bytes,
        floor_bytes: fields.floor_bytes,
        max_harvest_ratio: fields.max_harvest_ratio,
        upper_usage_bytes: fields.upper_usage_bytes,
        lower_usage_bytes: fields.lower_usage_bytes,
        target_violation_rate: fields.target_violation_rate,
        fairness: fields
            .fairness
            .and_then(|word| Fairness::from_str_name(&name(&word, FAIRNESS_PREFIX)))
            .map(Into::into),
        horizon: fields.horizon_ns.map(duration_from_ns),
        signal: fields
            .signal
            .and_then(|word| Signal::from_str_name(&name(&word, SIGNAL_PREFIX)))
            .map(Into::into),
        excluded: fields.excluded,
        host_basis: fields
            .host_basis
            .and_then(|word| HostBasis::from_str_name(&name(&word, HOST_BASIS_PREFIX)))
            .map(Into::into),
        error_budget_per_1000_vm_days: fields.error_budget_per_1000_vm_days,
    })
}

/// What a version changed, field by field in the order of the alphabet, against the version before it; `None`: there was none.
///
/// # Errors
/// Like [`to_json`].
pub fn diff(
    before: Option<&BoundaryValues>,
    after: &BoundaryValues,
) -> Result<Vec<BoundaryDiff>, serde_json::Error> {
    let fields = |values: &BoundaryValues| -> Result<Map<String, Value>, serde_json::Error> {
        let mut fields: Map<String, Value> = serde_json::from_str(&to_json(values)?)?;
        // Told as messages have it in JSON, such as 900s.
        if let Some(ns) = fields.remove("horizon_ns").and_then(|ns| ns.as_i64()) {
            let (seconds, rest) = (ns / SECOND_NS, ns % SECOND_NS);
            let rest = format!(".{rest:09}");
            let rest = rest.trim_end_matches('0').trim_end_matches('.');
            fields.insert("horizon".to_owned(), format!("{seconds}{rest}s").into());
        }
        Ok(fields)
    };
    let old = before.map_or_else(|| Ok(Map::new()), fields)?;
    let new = fields(after)?;
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |value: Option<&Value>| value.map(ToString::to_string).unwrap_or_default();
    Ok(names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| BoundaryDiff {
            field: name.clone(),
            before_json: text(old.get(name)),
            after_json: text(new.get(name)),
        })
        .collect())
}

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

/// What holds where no boundary says anything.
#[must_use]
pub fn defaults() -> BoundaryValues {
    BoundaryValues {
        headroom_ratio: Some(0.05),
        headroom_bytes: Some(64 << 20),
        target_violation_rate: Some(0.01),
        fairness: Some(Fairness::PerVm.into()),
        horizon: Some(duration_from_ns(15 * 60 * SECOND_NS)),
        excluded: Some(false),
        host_basis: Some(HostBasis::Sum.into()),
        ..BoundaryValues::default()
    }
}

/// What holds, field by field: the first layer that says something wins, then the program's default. The sources follow the order of the
/// fields and leave out those without a value.
#[must_use]
pub fn effective(layers: &[Boundary]) -> (BoundaryValues, Vec<BoundarySource>) {
    let fallback = Boundary { values: Some(defaults()), ..Boundary::default() };
    let layers: Vec<(&Boundary, &BoundaryValues)> = layers
        .iter()
        .chain(std::iter::once(&fallback))
        .filter_map(|layer| layer.values.as_ref().map(|values| (layer, values)))
        .collect();
    let mut values = BoundaryValues::default();
    let mut sources = Vec::new();
    macro_rules! resolve {
        ($($field:ident),*) => {$(
            if let Some((layer, found)) = layers.iter().find(|(_, values)| values.$field.is_some()) {
                values.$field = found.$field;
                sources.push(BoundarySource {
                    field: stringify!($field).to_owned(),
                    scope: layer.scope.clone(),
                    version: layer.version,
                });
            }
        )*};
    }
    resolve!(
        headroom_ratio,
        headroom_bytes,
        floor_bytes,
        max_harvest_ratio,
        upper_usage_bytes,
        lower_usage_bytes,
        target_violation_rate,
        fairness,
        horizon,
        signal,
        excluded,
        host_basis,
        error_budget_per_1000_vm_days
    );
    (values, sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> BoundaryValues {
        BoundaryValues {
            headroom_ratio: Some(0.1),
            headroom_bytes: Some(1),
            floor_bytes: Some(2),
            max_harvest_ratio: Some(0.5),
            upper_usage_bytes: Some(4),
            lower_usage_bytes: Some(3),
            target_violation_rate: Some(0.01),
            fairness: Some(Fairness::Capped.into()),
            horizon: Some(duration_from_ns(90 * SECOND_NS)),
            signal: Some(Signal::Demand.into()),
            excluded: Some(true),
            host_basis: Some(HostBasis::Pooled.into()),
            error_budget_per_1000_vm_days: Some(3.5),
        }
    }

    fn wrong_fields(values: &BoundaryValues) -> Vec<String> {
        let mut wrong = FieldViolations::default();
        check(values, &mut wrong);
        wrong.as_slice().iter().map(|one| one.field.clone()).collect()
    }

    #[test]
    fn every_field_survives_the_way_to_the_store_and_back() {
        assert_eq!(from_json(&to_json(&everything()).unwrap()).unwrap(), everything());
        assert_eq!(to_json(&BoundaryValues::default()).unwrap(), "{}");
        assert_eq!(from_json("{}").unwrap(), BoundaryValues::default());
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

    #[test]
    fn a_version_tells_what_it_changed() {
        let told =
            |before: Option<&BoundaryValues>, after: &BoundaryValues| -> Vec<(String, String, String)> {
                let diff = diff(before, after).unwrap().into_iter();
                diff.map(|one| (one.field, one.before_json, one.after_json)).collect()
            };
        let row =
            |field: &str, before: &str, after: &str| (field.to_owned(), before.to_owned(), after.to_owned());
        let first = BoundaryValues {
            floor_bytes: Some(7),
            horizon: Some(duration_from_ns(900 * SECOND_NS)),
            ..Default::default()
        };
        let second = BoundaryValues {
            headroom_ratio: Some(0.1),
            horizon: Some(duration_from_ns(SECOND_NS + SECOND_NS / 2)),
            ..Default::default()
        };
        assert_eq!(told(None, &first), [row("floor_bytes", "", "7"), row("horizon", "", "\"900s\"")]);
        assert_eq!(
            told(Some(&first), &second),
            [
                row("floor_bytes", "7", ""),
                row("headroom_ratio", "", "0.1"),
                row("horizon", "\"900s\"", "\"1.5s\"")
            ]
        );
        assert!(told(Some(&first), &first).is_empty());
    }

    #[test]
    fn the_most_specific_layer_wins_field_by_field() {
        let layer = |scope: &str, values| Boundary {
            scope: scope.into(),
            version: 3,
            values: Some(values),
            ..Default::default()
        };
        let (values, sources) = effective(&[
            layer("vm:x", BoundaryValues { floor_bytes: Some(7), ..Default::default() }),
            layer(
                "fleet",
                BoundaryValues { floor_bytes: Some(1), headroom_ratio: Some(0.2), ..Default::default() },
            ),
        ]);
        assert_eq!((values.floor_bytes, values.headroom_ratio), (Some(7), Some(0.2)));
        assert_eq!(values.upper_usage_bytes, None, "no layer and no default: no limit");
        let source = |field: &str| {
            sources.iter().find(|source| source.field == field).map(|s| (s.scope.as_str(), s.version))
        };
        assert_eq!(source("floor_bytes"), Some(("vm:x", 3)));
        assert_eq!(source("headroom_ratio"), Some(("fleet", 3)));
        assert_eq!(source("target_violation_rate"), Some(("", 0)));
        assert_eq!(source("upper_usage_bytes"), None);
    }
}
