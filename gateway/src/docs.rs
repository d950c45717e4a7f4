//! What the port tells about its REST interface: `/openapi.json`, and `/docs`, a page that draws it. Nothing is asked of another host,
//! so that all of it works where there is no internet.

use axum::Router;
use axum::routing::get;
use http::HeaderMap;

use crate::page::{HTML, Keep, Page};
use crate::rest::{App, openapi_json};

/// The pages.
pub(crate) fn routes() -> Router<App> {
    let page = |kind: &'static str, content: String| {
        let page = Page::new(kind, content, Keep::AskAnew);
        get(move |headers: HeaderMap| async move { page.answer(&headers) })
    };
    Router::new()
        .route("/openapi.json", page("application/json", openapi_json()))
        .route("/docs", page(HTML, include_str!("docs/docs.html").into()))
        .route("/docs/docs.js", page("text/javascript; charset=utf-8", include_str!("docs/docs.js").into()))
        .route("/docs/docs.css", page("text/css; charset=utf-8", include_str!("docs/docs.css").into()))
}
