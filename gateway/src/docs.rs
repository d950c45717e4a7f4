//! What the port tells about itself: the front page, `/openapi.json`, and `/docs`, a page that draws it. Nothing is asked of
//! another host, so that all of it works where there is no internet.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};

use crate::rest::{App, openapi_json};

/// Scripts, styles and requests of this gateway alone, and in nobody's frame.
const OWN_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";

/// The pages.
pub(crate) fn routes() -> Router<App> {
    let page = |kind: &'static str, content: String| {
        let page = Page::new(kind, content);
        get(move |headers: HeaderMap| async move { page.answer(&headers) })
    };
    Router::new()
        .route("/", page(HTML, include_str!("docs/front.html").into()))
        .route("/openapi.json", page("application/json", openapi_json()))
        .route("/docs", page(HTML, include_str!("docs/docs.html").into()))
        .route("/docs/docs.js", page("text/javascript; charset=utf-8", include_str!("docs/docs.js").into()))
        .route("/docs/docs.css", page("text/css; charset=utf-8", include_str!("docs/docs.css").into()))
}

/// A page that stays as it is until the program is replaced.
#[derive(Clone)]
struct Page {
    kind: &'static str,
    content: axum::body::Bytes,
    etag: String,
}

impl Page {
    fn new(kind: &'static str, content: String) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        // Weak: it is the same page, compressed or not.
        Self { kind, etag: format!("W/\"{:016x}\"", hasher.finish()), content: content.into() }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let own = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, OWN_ALONE),
            // Kept, but asked for anew: a new version shows at once.
            (CACHE_CONTROL, "no-cache"),
            (ETAG, &self.etag),
        ];
        let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|known| {
            known.split(',').any(|tag| {
                matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == &self.etag[2..]
            })
        });
        if known {
            return (StatusCode::NOT_MODIFIED, own).into_response();
        }
        (own, self.content.clone()).into_response()
    }
}
