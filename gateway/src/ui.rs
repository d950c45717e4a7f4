//! The dashboard: what `make ui` built from `gateway/ui`. A release carries it; a debug build reads it from the folder, so that it can be
//! built anew while the gateway runs. Where nobody has built it, its pages say how.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use rust_embed::RustEmbed;

use crate::page::{HTML, Keep, Page};
use crate::rest::App;
use crate::rest::problem::Problem;

/// The dashboard's own addresses. All are the same page, which reads the address itself.
const VIEWS: [&str; 12] = [
    "/",
    "/hosts",
    "/hosts/{host}",
    "/vms",
    "/vms/{vm}",
    "/violations",
    "/violations/{id}",
    "/boundaries",
    "/leases",
    "/agents",
    "/audit",
    "/sign-in",
];

const NOT_BUILT: &str = include_str!("docs/front.html");

#[derive(RustEmbed)]
#[folder = "ui/dist"]
struct Built;

/// The dashboard.
pub(crate) fn routes() -> Router<App> {
    VIEWS
        .iter()
        .fold(Router::new(), |routes, view| routes.route(view, get(index)))
        .route("/favicon.svg", get(async |headers: HeaderMap| file("favicon.svg", Keep::AskAnew, &headers)))
        .route("/assets/{file}", get(asset))
}

async fn index(headers: HeaderMap) -> Response {
    let built = Built::get("index.html").map(|file| file.data.into_owned());
    Page::new(HTML, built.unwrap_or_else(|| NOT_BUILT.into()), Keep::AskAnew).answer(&headers)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    // Their names carry their hashes.
    file(&format!("assets/{name}"), Keep::ForEver, &headers)
}

fn file(path: &str, keep: Keep, headers: &HeaderMap) -> Response {
    let kind = path.rsplit_once('.').and_then(|(_, extension)| kind_of(extension));
    let built = Built::get(path).map(|file| file.data.into_owned());
    match (kind, built) {
        (Some(kind), Some(content)) => Page::new(kind, content, keep).answer(headers),
        _ => Problem::new(StatusCode::NOT_FOUND, format!("the dashboard has no file {path}")).into_response(),
    }
}

/// What a build consists of, and nothing else.
fn kind_of(extension: &str) -> Option<&'static str> {
    match extension {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}
