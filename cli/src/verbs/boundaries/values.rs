//! The values of a boundary as flags.

use serde_json::{Map, Value, json};

use crate::format::parse_bytes;

/// Fields to say, and fields to say no longer; all others stay as they are.
#[derive(Debug, clap::Args)]
pub(super) struct Values {
    /// Kept above the prediction, as a share of it: 0.1 is 10 %
    #[arg(long, value_name = "RATIO")]
    headroom_ratio: Option<f64>,
    /// Kept above the prediction at least, such as 64MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    headroom_bytes: Option<u64>,
    /// Never leave a machine less than this
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    floor_bytes: Option<u64>,
    /// Never harvest more than this share of the allocation
    #[arg(long, value_name = "RATIO")]
    max_harvest_ratio: Option<f64>,
    /// Usage above this is a violation
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    upper_usage_bytes: Option<u64>,
    /// Usage below this is a violation
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    lower_usage_bytes: Option<u64>,
    /// Share of forecasts that may be exceeded: 0.01 is 1 %
    #[arg(long, value_name = "RATIO")]
    target_violation_rate: Option<f64>,
    /// How the target is shared
    #[arg(long, value_parser = ["per_vm", "capped", "fleet"])]
    fairness: Option<String>,
    /// How far ahead forecasts reach, such as 15m
    #[arg(long, value_name = "DURATION")]
    horizon: Option<String>,
    /// Harvest this signal only
    #[arg(long, value_parser = ["rss", "demand"])]
    signal: Option<String>,
    /// Harvest nothing: true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    excluded: Option<bool>,
    /// What a host's harvest is made of
    #[arg(long, value_parser = ["sum", "pooled"])]
    host_basis: Option<String>,
    /// Promise violations allowed in 1,000 machine-days
    #[arg(long, value_name = "N")]
    error_budget_per_1000_vm_days: Option<f64>,
    /// No longer say this field at this scope; may be repeated
    #[arg(long, value_name = "FIELD", value_parser = field_name)]
    unset: Vec<String>,
}

/// The values of a boundary, as the API names them.
pub(super) const FIELDS: [&str; 13] = [
    "headroom_ratio",
    "headroom_bytes",
    "floor_bytes",
    "max_harvest_ratio",
    "upper_usage_bytes",
    "lower_usage_bytes",
    "target_violation_rate",
    "fairness",
    "horizon",
    "signal",
    "excluded",
    "host_basis",
    "error_budget_per_1000_vm_days",
];

fn field_name(text: &str) -> Result<String, String> {
    let name = text.replace('-', "_");
    if FIELDS.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(format!("the fields are {}", FIELDS.join(", ")))
    }
}

impl Values {
    fn given(&self) -> Map<String, Value> {
        let all = json!({
            "headroom_ratio": self.headroom_ratio,
            "headroom_bytes": self.headroom_bytes,
            "floor_bytes": self.floor_bytes,
            "max_harvest_ratio": self.max_harvest_ratio,
            "upper_usage_bytes": self.upper_usage_bytes,
            "lower_usage_bytes": self.lower_usage_bytes,
            "target_violation_rate": self.target_violation_rate,
            "fairness": self.fairness,
            "horizon": self.horizon,
            "signal": self.signal,
            "excluded": self.excluded,
            "host_basis": self.host_basis,
            "error_budget_per_1000_vm_days": self.error_budget_per_1000_vm_days,
        });
        let Value::Object(all) = all else { return Map::new() };
        all.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// The values of a scope as they are, with these in their place; `None` where nothing is asked for.
    pub(super) fn in_place_of(&self, before: &Value) -> Option<Map<String, Value>> {
        let given = self.given();
        (!(given.is_empty() && self.unset.is_empty())).then(|| merged(before, given, &self.unset))
    }
}

/// The values as they are, with what was given in their place and without what was unset.
fn merged(before: &Value, given: Map<String, Value>, unset: &[String]) -> Map<String, Value> {
    let mut values: Map<String, Value> = FIELDS
        .iter()
        .filter_map(|field| {
            Some(((*field).to_owned(), before.get(field).filter(|value| !value.is_null())?.clone()))
        })
        .collect();
    for field in unset {
        values.remove(field);
    }
    values.extend(given);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_one_field_keeps_the_others_and_unset_drops_one() {
        let before = json!({"scope": "fleet", "etag": "\"3\"", "version": 3, "headroom_ratio": 0.05, "horizon": "15m",
            "floor_bytes": null});
        let given = json!({"headroom_ratio": 0.2}).as_object().unwrap().clone();
        let after = merged(&before, given, &["horizon".to_owned()]);
        assert_eq!(Value::Object(after), json!({"headroom_ratio": 0.2}));
        let kept = merged(&before, Map::new(), &[]);
        assert_eq!(Value::Object(kept), json!({"headroom_ratio": 0.05, "horizon": "15m"}));
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_known_ones() {
        assert_eq!(field_name("floor-bytes"), Ok("floor_bytes".to_owned()));
        assert!(field_name("floor").unwrap_err().contains("floor_bytes"));
    }
}
