//! JSON bodies: their type, size and every field are checked before anything else is looked at.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::problem::Problem;

/// Longest body that is read.
pub(crate) const LONGEST_BODY: usize = 256 * 1024;

/// A body that was read whole and fits `T`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|text| text.split(';').next()).map_or("", str::trim);
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = "the body must be JSON: send content-type application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // Said at once: whoever announces too much is not listened to until he has sent it.
        if announced.is_some_and(|length: u64| length > LONGEST_BODY as u64) {
            return Err(too_long());
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => too_long(),
                status => Problem::new(status, rejection.body_text()),
            })?;
        parse(&bytes).map(Self)
    }
}

fn too_long() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {LONGEST_BODY} bytes"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A list would be taken for the fields in their order.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    if !is_object && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body must be a JSON object, such as {}"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            let message = without_place(&error.to_string());
            Problem::bad_field(named_field(&message).map_or(path, str::to_owned), message)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))
        }
    })?;
    json.end().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))
    })?;
    Ok(value)
}

/// The field that a message about a field's name is about: these are told with the path of what they are in.
fn named_field(message: &str) -> Option<&str> {
    let about_a_name = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = about_a_name.iter().find_map(|start| message.strip_prefix(start))?;
    rest.split('`').next()
}

fn without_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "only its parsing is of interest")]
        size: Option<u64>,
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let field = |text: &str| parse::<Thing>(text.as_bytes()).unwrap_err().errors[0].clone();
        assert_eq!(field(r#"{"sise": 1}"#).field, "sise");
        assert_eq!(field(r#"{"size": "big"}"#).field, "size");
        assert_eq!(field(r#"{"size": -1}"#).message, "invalid value: integer `-1`, expected u64");
        assert_eq!(field(r#"{"size": 1, "size": 2}"#).field, "size");
    }

    #[test]
    fn what_is_no_json_says_where() {
        for text in ["", "{", "{\"size\": 1} x", "[1"] {
            let problem = parse::<Thing>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
            assert!(problem.detail.contains("line 1"), "{}", problem.detail);
        }
        assert!(parse::<Thing>(b"{\"size\": null}").is_ok());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "[1]", "\"size\"", "1", " null"] {
            let problem = parse::<Thing>(text.as_bytes()).unwrap_err();
            assert!(problem.detail.contains("must be a JSON object"), "{text}: {}", problem.detail);
        }
    }
}
