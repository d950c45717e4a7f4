//! What a version of a boundary changed.

use std::collections::BTreeSet;

use memharvest_proto::registry::v1::{BoundaryDiff, BoundaryValues};
use serde_json::{Map, Value};

use super::{SECOND_NS, to_json};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::duration_from_ns;

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
}
