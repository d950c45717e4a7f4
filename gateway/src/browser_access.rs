//! What browsers are told: which pages of other origins may call, and how little they may do with an answer.

use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::access::{Access, authenticate};
use crate::host_guard::{HostGuard, Origin, refuse_strangers};

/// Puts the guard around a whole port, inside of it CORS for the listed origins, if there are any, and innermost the
/// question who asks.
pub(crate) fn protect(routes: Router, access: Access, guard: HostGuard, origins: &[Origin]) -> Router {
    // A browser asks without a token whether it may ask with one: CORS comes first.
    let mut routes = routes.layer(axum::middleware::from_fn_with_state(access, authenticate));
    if !origins.is_empty() {
        routes = routes.layer(cors(origins));
    }
    routes
        .layer(axum::middleware::from_fn_with_state(guard, refuse_strangers))
        .layer(axum::middleware::map_response(secured))
}

/// No guessing of types, no frames, nothing told to other sites, and nothing kept unless an answer allows it.
async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn cors(origins: &[Origin]) -> CorsLayer {
    let named = HeaderName::from_static;
    let origins = origins.iter().filter_map(|origin| HeaderValue::try_from(origin.as_str()).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
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
