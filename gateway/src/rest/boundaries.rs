//! `/boundaries`: what operators allow, with versions, preconditions and simulation.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use memharvest_proto::predictor::v1 as predictor;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::{duration_to_proto, to_proto};
use memharvest_services::settings::duration;
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::author::author_of;
use super::body::JsonBody;
use super::boundary_values::{BoundaryChange, BoundaryValues, Simulation};
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::words::Span;
use super::{App, Problems};
use crate::wire::time;

/// Months of history of a large fleet take longer than other calls; a predictor gives a call no more than this.
pub(crate) const SIMULATION: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_boundaries))
        .routes(routes!(get_boundary, set_boundary, delete_boundary))
        .routes(routes!(list_versions))
        .routes(routes!(get_effective))
        .routes(routes!(simulate))
}

/// A boundary as it was set. A null value says nothing at this scope.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Boundary {
    /// `vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`.
    scope: String,
    /// Text to give back in `If-Match`, quotes included.
    etag: String,
    /// Counts the changes of this scope from 1.
    version: u64,
    #[serde(flatten)]
    values: BoundaryValues,
    /// Who set it.
    author: String,
    /// Why.
    reason: Option<String>,
    /// When.
    updated_at: Option<Timestamp>,
    /// True for a version that removed the boundary.
    deleted: bool,
    /// What this version changed; in lists of versions only.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Vec<BoundaryDiff>>,
}

/// One value that a version changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundaryDiff {
    /// Name of the value.
    field: String,
    /// What it was; null: nothing was said.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What it became; null: nothing is said any more.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

impl From<wire::BoundaryDiff> for BoundaryDiff {
    fn from(diff: wire::BoundaryDiff) -> Self {
        let value = |json: &str| match serde_json::from_str(&text(json)?).ok()? {
            // Lengths of time come as messages have them, such as 900s.
            Value::String(length) if diff.field == "horizon" => {
                let length = duration(&length).map_or(length, |length| Span(length).to_string());
                Some(Value::String(length))
            }
            value => Some(value),
        };
        Self { before: value(&diff.before_json), after: value(&diff.after_json), field: diff.field }
    }
}

impl From<wire::Boundary> for Boundary {
    fn from(boundary: wire::Boundary) -> Self {
        Self {
            scope: boundary.scope,
            etag: boundary.etag,
            version: boundary.version,
            values: boundary.values.unwrap_or_default().into(),
            author: boundary.author,
            reason: text(&boundary.reason),
            updated_at: time(boundary.updated_at.as_ref()),
            deleted: boundary.deleted,
            diff: None,
        }
    }
}

/// A page of boundaries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundaryList {
    /// The boundaries, ordered by scope.
    boundaries: Vec<Boundary>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// A page of versions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundaryVersionList {
    /// The versions, newest first.
    versions: Vec<Boundary>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// What holds at a scope, and where each value comes from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EffectiveBoundary {
    /// The scope that was resolved.
    scope: String,
    #[serde(flatten)]
    values: BoundaryValues,
    /// Where each value comes from.
    sources: Vec<BoundarySource>,
}

/// Where an effective value comes from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundarySource {
    /// Name of the value.
    field: String,
    /// The scope that set it; null: the program's default.
    scope: Option<String>,
    /// Version of that scope; null: the program's default.
    version: Option<u64>,
}

/// What a boundary would have gained and cost on stored history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimulationResult {
    /// Of all machines together.
    total: SimulatedEffect,
    /// By machine, those first for which most changes.
    vms: Vec<SimulatedEffect>,
    /// The course of the harvest of all machines together, oldest first.
    points: Vec<SimulatedPoint>,
    /// Where the history begins that was simulated.
    from: Option<Timestamp>,
    /// Where it ends.
    to: Option<Timestamp>,
    /// Machines at the scope that have history.
    vms_simulated: u32,
    /// Windows of history that were replayed, those that warm machines up included.
    windows: u64,
    /// Horizon, target or fairness changes for some machine: its forecasts were made anew from its windows, for both
    /// sides. Otherwise they are those that were recorded.
    forecasts_made_anew: bool,
}

/// Gain and cost of one machine or of all. The error budgets and the hosts' breakers are taken to allow everything.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimulatedEffect {
    /// The machine; null: all.
    vm: Option<String>,
    /// Its name; null for all.
    name: Option<String>,
    /// The host that it was on last; null for all.
    host: Option<String>,
    /// Mean harvest under the boundaries as they are: of a machine while it was observed, of all together over the whole
    /// time.
    harvest_before_bytes: u64,
    /// Mean harvest under the simulated boundary.
    harvest_after_bytes: u64,
    /// Promise violations under the boundaries as they are.
    violations_before: u64,
    /// Promise violations under the simulated boundary.
    violations_after: u64,
    /// Mean of what a balloon could add, under the boundaries as they are.
    reclaimable_before_bytes: u64,
    /// The same under the simulated boundary.
    reclaimable_after_bytes: u64,
    /// How often usage left the band that operators set, under the boundaries as they are.
    boundary_violations_before: u64,
    /// The same under the simulated boundary.
    boundary_violations_after: u64,
    /// Days of machines that were observed.
    vm_days: f64,
    /// Of these, days in windows that are short enough to hold a promise to account: no longer than the horizon. History
    /// that was merged to hours is not.
    judged_vm_days: f64,
}

/// The harvest of all machines in one of the equal spans that the time is cut into.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimulatedPoint {
    /// When the span begins.
    at: Option<Timestamp>,
    /// Mean harvest under the boundaries as they are.
    harvest_before_bytes: u64,
    /// Mean harvest under the simulated boundary.
    harvest_after_bytes: u64,
}

impl From<predictor::SimulateBoundaryResponse> for SimulationResult {
    fn from(result: predictor::SimulateBoundaryResponse) -> Self {
        let point = |point: predictor::SimulatedPoint| SimulatedPoint {
            at: time(point.at.as_ref()),
            harvest_before_bytes: point.harvest_before_bytes,
            harvest_after_bytes: point.harvest_after_bytes,
        };
        Self {
            total: result.total.unwrap_or_default().into(),
            vms: result.vms.into_iter().map(SimulatedEffect::from).collect(),
            points: result.points.into_iter().map(point).collect(),
            from: time(result.from.as_ref()),
            to: time(result.to.as_ref()),
            vms_simulated: result.vms_simulated,
            windows: result.windows,
            forecasts_made_anew: result.forecasts_made_anew,
        }
    }
}

impl From<predictor::SimulatedEffect> for SimulatedEffect {
    fn from(effect: predictor::SimulatedEffect) -> Self {
        Self {
            vm: text(&effect.vm_id),
            name: text(&effect.vm_name),
            host: text(&effect.host_id),
            harvest_before_bytes: effect.harvest_before_bytes,
            harvest_after_bytes: effect.harvest_after_bytes,
            violations_before: effect.violations_before,
            violations_after: effect.violations_after,
            reclaimable_before_bytes: effect.reclaimable_before_bytes,
            reclaimable_after_bytes: effect.reclaimable_after_bytes,
            boundary_violations_before: effect.boundary_violations_before,
            boundary_violations_after: effect.boundary_violations_after,
            vm_days: effect.vm_days,
            judged_vm_days: effect.judged_vm_days,
        }
    }
}

/// Boundaries, ordered by scope
#[utoipa::path(get, path = "/boundaries", tag = "boundaries", params(Page),
    responses((status = 200, description = "As asked", body = BoundaryList), Problems))]
async fn list_boundaries(State(app): State<App>, mut query: Query) -> Result<Json<BoundaryList>, Problem> {
    let page = query.page();
    query.finish()?;
    let request = wire::ListBoundariesRequest { page_size: page.wire_size(), page_token: page.token };
    let found = app.upstream.boundaries().list_boundaries(request).await?.into_inner();
    let boundaries = found.boundaries.into_iter().map(Boundary::from).collect();
    Ok(Json(BoundaryList { boundaries, next_page_token: found.next_page_token }))
}

/// The boundary set at a scope
#[utoipa::path(get, path = "/boundaries/{scope}", tag = "boundaries",
    params(("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded")),
    responses((status = 200, description = "As asked", body = Boundary, headers(("etag" = String, description = "Text for `If-Match`"))), Problems))]
async fn get_boundary(
    State(app): State<App>,
    Path(scope): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    query.finish()?;
    let request = wire::GetBoundaryRequest { scope };
    let found = app.upstream.boundaries().get_boundary(request).await?.into_inner();
    answer(StatusCode::OK, found.boundary)
}

/// Sets all values of a scope
///
/// A new scope needs no `If-Match`; an existing one needs the etag that the change rests on.
#[utoipa::path(put, path = "/boundaries/{scope}", tag = "boundaries",
    params(
        ("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded"),
        ("if-match" = Option<String>, Header, description = "The etag that the change rests on"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who makes the change, unless the body says"),
    ),
    request_body = BoundaryChange,
    responses(
        (status = 200, description = "As asked", body = Boundary, headers(("etag" = String, description = "Text for `If-Match`"))),
        (status = 201, body = Boundary, description = "The scope is new", headers(("etag" = String, description = "Text for `If-Match`"))),
        Problems))]
async fn set_boundary(
    State(app): State<App>,
    Path(scope): Path<String>,
    query: Query,
    headers: HeaderMap,
    JsonBody(change): JsonBody<BoundaryChange>,
) -> Result<Response, Problem> {
    query.finish()?;
    if change.scope.as_ref().is_some_and(|own| *own != scope) {
        return Err(Problem::bad_field("scope", format!("is not the scope of the path, `{scope}`")));
    }
    let values = Some(change.values());
    let author = author_of(&headers, change.author)?;
    let etag = if_match(&app, &headers, &scope).await?;
    let is_new = etag.is_empty();
    let reason = change.reason.unwrap_or_default();
    let request = wire::SetBoundaryRequest { scope, values, etag, author, reason };
    let set = app.upstream.boundaries().set_boundary(request).await.map_err(precondition)?;
    answer(if is_new { StatusCode::CREATED } else { StatusCode::OK }, set.into_inner().boundary)
}

/// Removes what was set at a scope; its versions stay
#[utoipa::path(delete, path = "/boundaries/{scope}", tag = "boundaries",
    params(
        ("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded"),
        ("reason" = Option<String>, Query, description = "Why"),
        ("if-match" = String, Header, description = "The etag that the change rests on"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who asks; `anonymous` by default"),
    ),
    responses((status = 204, description = "Nothing is set at the scope any more"), Problems))]
async fn delete_boundary(
    State(app): State<App>,
    Path(scope): Path<String>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let reason = query.one("reason").unwrap_or_default();
    query.finish()?;
    let author = author_of(&headers, None)?;
    let etag = if_match(&app, &headers, &scope).await?;
    let request = wire::DeleteBoundaryRequest { scope, etag, author, reason };
    app.upstream.boundaries().delete_boundary(request).await.map_err(precondition)?;
    Ok(StatusCode::NO_CONTENT)
}

/// All versions of a scope, newest first
#[utoipa::path(get, path = "/boundaries/{scope}/versions", tag = "boundaries",
    params(("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded"), Page),
    responses((status = 200, description = "As asked", body = BoundaryVersionList), Problems))]
async fn list_versions(
    State(app): State<App>,
    Path(scope): Path<String>,
    mut query: Query,
) -> Result<Json<BoundaryVersionList>, Problem> {
    let page = query.page();
    query.finish()?;
    let request =
        wire::ListBoundaryVersionsRequest { scope, page_size: page.wire_size(), page_token: page.token };
    let found = app.upstream.boundaries().list_boundary_versions(request).await?.into_inner();
    let version = |mut boundary: wire::Boundary| {
        let diff = std::mem::take(&mut boundary.diff).into_iter().map(BoundaryDiff::from).collect();
        Boundary { diff: Some(diff), ..Boundary::from(boundary) }
    };
    let versions = found.boundaries.into_iter().map(version).collect();
    Ok(Json(BoundaryVersionList { versions, next_page_token: found.next_page_token }))
}

/// What holds for a scope, value by value
#[utoipa::path(get, path = "/boundaries/{scope}/effective", tag = "boundaries",
    params(
        ("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded"),
        ("host" = Option<String>, Query, description = "For a machine: the host that it runs on; by default where it is now"),
    ),
    responses((status = 200, description = "As asked", body = EffectiveBoundary), Problems))]
async fn get_effective(
    State(app): State<App>,
    Path(scope): Path<String>,
    mut query: Query,
) -> Result<Json<EffectiveBoundary>, Problem> {
    let host: Option<String> = query.one("host");
    query.finish()?;
    let host_id = host.or_else(|| host_now(&app, &scope)).unwrap_or_default();
    let request = wire::GetEffectiveBoundaryRequest { scope, host_id };
    let found = app.upstream.boundaries().get_effective_boundary(request).await?.into_inner();
    let source = |source: wire::BoundarySource| BoundarySource {
        field: source.field,
        version: (!source.scope.is_empty()).then_some(source.version),
        scope: text(&source.scope),
    };
    Ok(Json(EffectiveBoundary {
        scope: found.scope,
        values: found.values.unwrap_or_default().into(),
        sources: found.sources.into_iter().map(source).collect(),
    }))
}

/// What a boundary would have gained and cost on stored history
///
/// Nothing is changed. Each machine at the scope is replayed twice from its roll-ups: under the boundaries as they are, and
/// with these values in place of all that is set at the scope.
#[utoipa::path(post, path = "/boundaries/{scope}/simulate", tag = "boundaries",
    params(("scope" = String, Path, description = "`vm:<uuid>`, `host:<id>`, `group:<label>=<value>` or `fleet`, percent-encoded")),
    request_body = Simulation,
    responses((status = 200, description = "As asked", body = SimulationResult), Problems))]
async fn simulate(
    State(app): State<App>,
    Path(scope): Path<String>,
    query: Query,
    JsonBody(simulation): JsonBody<Simulation>,
) -> Result<Json<SimulationResult>, Problem> {
    query.finish()?;
    let mut request = tonic::Request::new(predictor::SimulateBoundaryRequest {
        scope,
        values: Some(simulation.values()),
        lookback: simulation.lookback.map(|Span(lookback)| duration_to_proto(lookback)),
        from: simulation.from.map(to_proto),
        to: simulation.to.map(to_proto),
        max_vms: simulation.max_vms.unwrap_or_default().into(),
        windows: Vec::new(),
    });
    request.set_timeout(SIMULATION);
    // Every predictor can: the history comes from the registry.
    let mut predictor = app.upstream.predictor(0).ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway knows no predictor that could simulate")
    })?;
    Ok(Json(predictor.simulate_boundary(request).await?.into_inner().into()))
}

/// The boundary with its etag as a header, the same text as in the body.
fn answer(status: StatusCode, boundary: Option<wire::Boundary>) -> Result<Response, Problem> {
    let boundary = boundary.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the registry answered without a boundary")
    })?;
    let etag = HeaderValue::try_from(&boundary.etag).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the registry answered with an etag that is no header",
        )
    })?;
    Ok((status, [(ETAG, etag)], Json(Boundary::from(boundary))).into_response())
}

/// The etag that a change rests on; empty where the request does not say. `*` and lists stand for the etag that holds
/// now if they cover it; if not, their text goes on as it is and is refused as stale, after the body was judged.
async fn if_match(app: &App, headers: &HeaderMap, scope: &str) -> Result<String, Problem> {
    let Some(given) = headers.get(IF_MATCH) else { return Ok(String::new()) };
    let given =
        given.to_str().map_err(|_| Problem::bad_field("if-match", "is no printable ASCII text"))?.trim();
    if given != "*" && !given.contains(',') {
        return Ok(given.to_owned());
    }
    let request = wire::GetBoundaryRequest { scope: scope.to_owned() };
    let current = match app.upstream.boundaries().get_boundary(request).await {
        Ok(found) => found.into_inner().boundary.unwrap_or_default().etag,
        Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => String::new(),
        Err(status) => return Err(status.into()),
    };
    let covered = !current.is_empty() && (given == "*" || given.split(',').any(|tag| tag.trim() == current));
    Ok(if covered { current } else { given.to_owned() })
}

/// A missing `If-Match` is 428, a stale one 412.
fn precondition(status: Status) -> Problem {
    let code = status.code();
    if code == Code::FailedPrecondition {
        let detail = format!("{}; send it in If-Match", status.message());
        return Problem::new(StatusCode::PRECONDITION_REQUIRED, detail);
    }
    status.into()
}

/// The host on which the machine of a `vm:` scope is now.
fn host_now(app: &App, scope: &str) -> Option<String> {
    let vm = scope.strip_prefix("vm:")?.to_ascii_lowercase();
    Some(app.live.snapshot().vm(&vm)?.host_id.clone())
}
