//! What browsers are told: which pages of other origins may call, and that answers are what they say they are.

use std::time::Duration;

use axum::Router;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::host_guard::{HostGuard, Origin, refuse_strangers};

/// Puts the guard around a whole port, and inside of it CORS for the listed origins, if there are any.
pub(crate) fn protect(mut routes: Router, guard: HostGuard, origins: &[Origin]) -> Router {
    if !origins.is_empty() {
        routes = routes.layer(cors(origins));
    }
    routes.layer(axum::middleware::from_fn_with_state(guard, refuse_strangers)).layer(
        SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    )
}

fn cors(origins: &[Origin]) -> CorsLayer {
    let named = HeaderName::from_static;
    let origins = origins.iter().filter_map(|origin| HeaderValue::try_from(origin.as_str()).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            CONTENT_TYPE,
            IF_MATCH,
            named("grpc-timeout"),
            named("traceparent"),
            named("x-grpc-web"),
            named("x-memharvest-author"),
            named("x-user-agent"),
        ])
        .expose_headers([
            ETAG,
            RETRY_AFTER,
            named("grpc-message"),
            named("grpc-status"),
            named("grpc-status-details-bin"),
        ])
        .max_age(Duration::from_hours(1))
}
