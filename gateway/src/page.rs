//! What browsers load: each with a tag of its content, under a policy that lets it ask nobody but this gateway.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};

/// Scripts, styles and requests of this gateway alone, and in nobody's frame.
const OWN_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The type of an HTML page.
pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// How long a browser may show a page without asking anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Not at all: a new version shows at once.
    AskAnew,
    /// For ever: another content has another name.
    ForEver,
}

/// A page that stays as it is until the program is replaced.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    kind: &'static str,
    content: Bytes,
    etag: String,
    keep: Keep,
}

impl Page {
    pub(crate) fn new(kind: &'static str, content: impl Into<Bytes>, keep: Keep) -> Self {
        let content = content.into();
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        // Weak: it is the same page, compressed or not.
        Self { kind, etag: format!("W/\"{:016x}\"", hasher.finish()), content, keep }
    }

    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response {
        let own = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, OWN_ALONE),
            (
                CACHE_CONTROL,
                match self.keep {
                    Keep::AskAnew => "no-cache",
                    Keep::ForEver => "public, max-age=31536000, immutable",
                },
            ),
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
