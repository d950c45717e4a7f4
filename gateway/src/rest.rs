//! The REST API under `/api/v1`, and the other HTTP paths of the port. Handlers are thin: they read the live state, or ask the
//! registry or a predictor, and write JSON as the contract names it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use http::StatusCode;
use memharvest_services::admin_server::AdminServer;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as OpenApiResponse, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use crate::live::Live;
use crate::upstream::Upstream;
use crate::{access, discovery, docs, federation, fleet_metrics, ui};

mod agents;
mod author;
pub(crate) mod body;
mod boundaries;
mod boundary_values;
mod fleet;
mod history;
mod hosts;
mod leases;
mod observed;
pub(crate) mod paging;
pub mod problem;
pub(crate) mod query;
mod tokens;
mod violations;
mod vms;
pub mod words;

pub(crate) use observed::HttpMetrics;
use problem::{PROBLEM_JSON, Problem};

/// How long a request may take, its body included: nobody holds a handler by sending a byte now and then.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);

/// What every handler can reach.
#[derive(Clone, Debug)]
pub struct App {
    /// The fleet as it is now.
    pub live: Live,
    /// The services behind the gateway.
    pub upstream: Upstream,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "memharvest",
        description = "The memory that virtual machines hold and do not use: how much can be harvested, why, and whether the promise held. Times are RFC 3339, spans like 15m, sizes in bytes; null means not known. Every error is a problem by RFC 9457.",
        license(name = "MIT", identifier = "MIT")
    ),
    servers((url = "/", description = "This gateway")),
    components(schemas(Problem)),
    tags(
        (name = "fleet", description = "Sums over all hosts"),
        (name = "hosts", description = "Hosts and what runs on them"),
        (name = "vms", description = "Virtual machines and why their harvest is what it is"),
        (name = "boundaries", description = "What operators allow"),
        (name = "violations", description = "Broken forecasts, promises and boundaries"),
        (name = "leases", description = "Harvested memory that is spent"),
        (name = "agents", description = "Processes of the mesh"),
        (name = "audit", description = "Who changed what"),
        (name = "tokens", description = "Static secrets of callers"),
    )
)]
struct ApiDescription;

/// The answer of every operation when it fails.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<OpenApiResponse>> {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description("What went wrong, by RFC 9457").content(PROBLEM_JSON, content);
        BTreeMap::from([("default".to_owned(), response.build().into())])
    }
}

fn api() -> OpenApiRouter<App> {
    let version_1 = OpenApiRouter::new()
        .merge(fleet::routes())
        .merge(hosts::routes())
        .merge(vms::routes())
        .merge(history::routes())
        .merge(boundaries::routes())
        .merge(violations::routes())
        .merge(leases::routes())
        .merge(tokens::routes())
        .merge(agents::routes());
    OpenApiRouter::with_openapi(ApiDescription::openapi()).nest("/api/v1", version_1)
}

/// The OpenAPI document of the handlers, as JSON.
#[must_use]
pub fn openapi_json() -> String {
    let mut document = serde_json::to_string_pretty(&api().into_openapi()).unwrap_or_default();
    document.push('\n');
    document
}

/// Everything on the port that is not gRPC. `probes` answers `/livez` and `/readyz` like the admin server.
pub(crate) fn router(app: App, metrics: HttpMetrics, probes: AdminServer) -> Router {
    let probes = probes.router();
    let (api, _) = api().split_for_parts();
    api.route("/metrics", get(fleet_metrics::page))
        .route("/sd/prometheus", get(discovery::targets))
        .route("/federate", get(federation::page))
        .route("/oidc/token", post(access::redeem))
        .merge(docs::routes())
        .merge(ui::routes())
        .route_service("/livez", probes.clone())
        .route_service("/readyz", probes)
        .with_state(app)
        .layer(axum::middleware::from_fn(access::authorize))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, LONGEST_REQUEST))
        .layer(DefaultBodyLimit::max(body::LONGEST_BODY))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(axum::middleware::from_fn(problem::name_every_error))
        .layer(axum::middleware::from_fn_with_state(metrics, observed::observe))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
}

/// A text that says something.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
