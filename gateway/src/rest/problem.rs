//! Errors as RFC 9457 writes them: one shape for everything that goes wrong on this port outside of gRPC.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use memharvest_services::rpc_error::{ErrorCode, FieldViolations};
use serde::Serialize;
use tonic::Status;
use utoipa::ToSchema;

/// Media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest text of the framework that becomes a detail.
const LONGEST_TEXT: usize = 4096;

/// What went wrong, by RFC 9457.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Cause and cure, in one sentence.
    pub detail: String,
    /// What is wrong with single fields or parameters.
    pub errors: Vec<FieldError>,
}

/// What is wrong with one field of a body, or with one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// A problem without fields.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 400 with everything that is wrong.
    #[must_use]
    pub fn bad_fields(errors: Vec<FieldError>) -> Self {
        let told: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, told.join("; ")) }
    }

    /// 400 for one field.
    pub fn bad_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::bad_fields(vec![error])
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let found = FieldViolations::of(&status);
        let errors = found
            .as_slice()
            .iter()
            .map(|one| FieldError { field: json_name(&one.field).to_owned(), message: one.message.clone() });
        let errors: Vec<FieldError> = errors.collect();
        if !errors.is_empty() {
            return Self::bad_fields(errors);
        }
        let detail = if status.message().is_empty() { status.code().description() } else { status.message() };
        Self::new(ErrorCode::from(status.code()).http(), detail)
    }
}

/// The name that a message's field has in JSON.
fn json_name(field: &str) -> &str {
    match field.rsplit('.').next().unwrap_or(field) {
        "vm_id" => "vm",
        "host_id" => "host",
        "consumer_vm_id" => "consumer_vm",
        "violation_id" | "lease_id" | "token_id" | "agent_id" => "id",
        other => other,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Gives errors that the framework answers by itself (unknown path, wrong method, a path that is no text) the shape of
/// all others.
pub(crate) async fn name_every_error(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let content_type =
        response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or_default());
    let bare = content_type.is_empty() || content_type.starts_with("text/plain");
    if !bare || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, LONGEST_TEXT).await.unwrap_or_default();
    let detail = match status {
        _ if !said.is_empty() => String::from_utf8_lossy(&said).trim().to_owned(),
        StatusCode::NOT_FOUND => format!("there is nothing at {path}; /openapi.json lists all paths"),
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{path} does not take {method}; the Allow header lists what it takes")
        }
        _ => format!("{method} {path} failed"),
    };
    let (problem, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    for (name, value) in &problem.headers {
        parts.headers.insert(name, value.clone());
    }
    Response::from_parts(parts, body)
}

/// The answer in place of a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
pub(crate) fn panicked(cause: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    let text =
        cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler panicked; the gateway's log tells why")
        .into_response()
}

#[cfg(test)]
mod tests {
    use memharvest_services::rpc_error::invalid_field;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn fields_of_messages_get_their_names_in_json() {
        let problem = Problem::from(invalid_field("values.headroom_ratio", "must be within 0 and 10"));
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            problem.errors,
            [FieldError { field: "headroom_ratio".into(), message: "must be within 0 and 10".into() }]
        );
        assert_eq!(Problem::from(invalid_field("vm_id", "x")).errors[0].field, "vm");
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem() {
        async fn clumsy() -> &'static str {
            panic!("dropped it")
        }
        let router = axum::Router::new()
            .route("/", axum::routing::get(clumsy))
            .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn every_status_of_the_mesh_has_one_of_http() {
        let http = |status: Status| Problem::from(status).status().as_u16();
        assert_eq!(http(Status::unimplemented("x")), 501);
        assert_eq!(http(Status::unavailable("x")), 503);
        assert_eq!(http(Status::deadline_exceeded("x")), 504);
        assert_eq!(http(Status::not_found("x")), 404);
        assert_eq!(http(Status::resource_exhausted("x")), 429);
        assert_eq!(http(Status::internal("x")), 500);
    }
}
