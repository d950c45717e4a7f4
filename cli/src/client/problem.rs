//! RFC 9457 problem details, as the gateway refuses.

use std::fmt;

use serde::Deserialize;

/// Why the gateway refused.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Problem {
    /// HTTP status.
    #[serde(default)]
    pub(crate) status: u16,
    /// What kind of problem it is.
    #[serde(default)]
    pub(crate) title: String,
    /// What was wrong this time.
    #[serde(default)]
    pub(crate) detail: Option<String>,
    /// Which fields were wrong.
    #[serde(default)]
    pub(crate) errors: Vec<FieldError>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FieldError {
    /// The field.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.as_deref().filter(|text| !text.is_empty());
        let text = detail.unwrap_or(&self.title).trim_end_matches('.');
        // A detail that names every field already is not said twice.
        let told = |error: &&FieldError| !text.contains(&error.message);
        let fields: Vec<String> = self
            .errors
            .iter()
            .filter(told)
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect();
        write!(f, "{} ({})", if text.is_empty() { "refused" } else { text }, self.status)?;
        if !fields.is_empty() {
            write!(f, ": {}", fields.join("; "))?;
        }
        if self.status == 401 {
            write!(f, "; pass --token or set MEMHARVEST_TOKEN")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_after_the_detail() {
        let json = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"the body is not valid.",
            "errors":[{"field":"headroom_ratio","message":"must be 0 to 10"},{"field":"x","message":"unknown"}]}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        let said = problem.to_string();
        assert_eq!(said, "the body is not valid (400): headroom_ratio: must be 0 to 10; x: unknown");
    }

    #[test]
    fn fields_that_the_detail_names_are_not_told_twice() {
        let errors = vec![FieldError { field: "step".into(), message: "is negative".into() }];
        let problem =
            Problem { status: 400, detail: Some("step: is negative".into()), errors, ..Problem::default() };
        assert_eq!(problem.to_string(), "step: is negative (400)");
    }

    #[test]
    fn without_a_detail_the_title_is_told_and_a_missing_token_has_a_cure() {
        let problem = Problem { status: 401, title: "Unauthorized".into(), ..Problem::default() };
        assert_eq!(problem.to_string(), "Unauthorized (401); pass --token or set MEMHARVEST_TOKEN");
    }
}
