//! What every answer of the REST interface must look like, whatever it is about.

use jiff::Timestamp;
use serde_json::Value;

/// What is wrong with an answer: sizes that are no integers, times that are not RFC 3339, enums that are not lower-case
/// words. Empty: nothing.
#[must_use]
pub fn faults(answer: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    collect(answer, &mut faults);
    faults
}

fn collect(value: &Value, faults: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if !value.is_null() && !fits(name, value) {
                    faults.push(format!("{name}: {value}"));
                }
                collect(value, faults);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, faults)),
        _ => {}
    }
}

fn fits(name: &str, value: &Value) -> bool {
    let text = |rule: fn(&str) -> bool| value.as_str().is_some_and(rule);
    match name {
        _ if name.ends_with("_bytes") => value.is_u64(),
        _ if name.ends_with("_ratio") || name.ends_with("_seconds") || name.ends_with("_rate") => {
            value.is_number()
        }
        _ if name.ends_with("_at") => text(is_time),
        "valid_until" | "from" | "to" | "at" | "since" | "last_update" => text(is_time),
        "horizon" | "interval" | "window" => text(is_span),
        "state" | "quality" | "kind" | "signal" | "limited_by" | "severity" | "breaker" | "fairness"
        | "host_basis" => text(is_word),
        _ => true,
    }
}

fn is_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}

/// Such as 15m or 1h30m.
fn is_span(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && text.ends_with(['s', 'm', 'h', 'd'])
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let good = json!({"vms": [{"rss_bytes": 1, "read_at": "2026-01-01T00:00:00Z", "quality": null, "state": "live"}]});
        assert!(faults(&good).is_empty());
        let bad = json!({"vms": [{"rss_bytes": 1.5, "read_at": "now", "quality": "Live", "horizon": "900"}]});
        assert_eq!(faults(&bad).len(), 4);
    }
}
