//! What a boundary may say, how it is written down, and what holds where several speak. Pure.

use memharvest_proto::collector::v1::Signal;
use memharvest_proto::registry::v1::{Boundary, BoundarySource, BoundaryValues, Fairness, HostBasis};
use serde::{Deserialize, Serialize};

use crate::time::{duration_from_ns, duration_to_ns};

mod check;
mod diff;

pub use check::{check, check_at};
pub use diff::diff;

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

    pub(super) fn everything() -> BoundaryValues {
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

    #[test]
    fn every_field_survives_the_way_to_the_store_and_back() {
        assert_eq!(from_json(&to_json(&everything()).unwrap()).unwrap(), everything());
        assert_eq!(to_json(&BoundaryValues::default()).unwrap(), "{}");
        assert_eq!(from_json("{}").unwrap(), BoundaryValues::default());
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
