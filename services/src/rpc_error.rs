//! Errors that cross a process's border: a restricted set of codes, and which fields of a request are wrong.

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The errors that services answer with, each the same thing over gRPC and over HTTP. Kept small on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is wrong and stays wrong: 400.
    InvalidArgument,
    /// Nobody has said who is asking: 401.
    Unauthenticated,
    /// Who asks may not: 403.
    PermissionDenied,
    /// No such thing: 404.
    NotFound,
    /// There is one already: 409.
    AlreadyExists,
    /// Somebody else changed it in between, such as a stale etag: 412.
    Aborted,
    /// The state does not allow it now, such as a missing precondition: 412.
    FailedPrecondition,
    /// A limit is reached: 429.
    ResourceExhausted,
    /// A fault of ours: 500.
    Internal,
    /// Not built: 501.
    Unimplemented,
    /// Cannot be reached now, try again: 503.
    Unavailable,
    /// Took too long: 504.
    DeadlineExceeded,
}

impl ErrorCode {
    /// The gRPC code.
    #[must_use]
    pub fn grpc(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Aborted => Code::Aborted,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Internal => Code::Internal,
            Self::Unimplemented => Code::Unimplemented,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Aborted | Self::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A status with this code.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::new(self.grpc(), message)
    }
}

impl From<Code> for ErrorCode {
    /// Codes that services do not use are faults of ours, or (cancelled) of the connection.
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::Aborted => Self::Aborted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable | Code::Cancelled => Self::Unavailable,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Self::Internal,
        }
    }
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `boundary.headroom_ratio`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Collects what is wrong with a request, to tell all of it at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldViolations(Vec<FieldViolation>);

impl FieldViolations {
    /// Notes a wrong field.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), message: message.into() });
    }

    /// What was noted.
    #[must_use]
    pub fn as_slice(&self) -> &[FieldViolation] {
        &self.0
    }

    /// Nothing, or the status that tells all of it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with `google.rpc.BadRequest`, when something was noted.
    pub fn into_result(self) -> Result<(), Status> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_status()) }
    }

    /// `INVALID_ARGUMENT` with `google.rpc.BadRequest`; the message names every field.
    #[must_use]
    pub fn into_status(self) -> Status {
        let message: Vec<String> =
            self.0.iter().map(|found| format!("{}: {}", found.field, found.message)).collect();
        let mut details = ErrorDetails::new();
        for violation in self.0 {
            details.add_bad_request_violation(violation.field, violation.message);
        }
        Status::with_error_details(Code::InvalidArgument, message.join("; "), details)
    }

    /// What a status tells about fields; empty when it tells nothing.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let found = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        Self(
            found
                .into_iter()
                .map(|one| FieldViolation { field: one.field, message: one.description })
                .collect(),
        )
    }
}

/// A status about one field.
#[must_use]
pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Status {
    let mut violations = FieldViolations::default();
    violations.add(field, message);
    violations.into_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_the_wire() {
        let mut violations = FieldViolations::default();
        assert_eq!(violations.clone().into_result().ok(), Some(()));
        violations.add("headroom_ratio", "must be within 0 and 1");
        violations.add("scope", "is empty");
        let headers = violations.clone().into_status().into_http::<()>().headers().clone();
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "headroom_ratio: must be within 0 and 1; scope: is empty");
        assert_eq!(FieldViolations::of(&status), violations);
        assert!(FieldViolations::of(&Status::not_found("x")).as_slice().is_empty());
    }

    #[test]
    fn every_code_comes_back_as_itself() {
        let all = [
            ErrorCode::InvalidArgument,
            ErrorCode::Unauthenticated,
            ErrorCode::PermissionDenied,
            ErrorCode::NotFound,
            ErrorCode::AlreadyExists,
            ErrorCode::Aborted,
            ErrorCode::FailedPrecondition,
            ErrorCode::ResourceExhausted,
            ErrorCode::Internal,
            ErrorCode::Unimplemented,
            ErrorCode::Unavailable,
            ErrorCode::DeadlineExceeded,
        ];
        for code in all {
            assert_eq!(ErrorCode::from(code.grpc()), code);
            assert!(code.http().is_client_error() || code.http().is_server_error());
        }
    }
}
