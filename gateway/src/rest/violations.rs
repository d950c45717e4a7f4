//! `/violations`: the ledger of broken forecasts, promises and boundaries.

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::to_proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::author::author_of;
use super::body::JsonBody;
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::words::{Signal, Span, ViolationKind, ViolationState};
use super::{App, Problems};
use crate::wire::{span, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_violations))
        .routes(routes!(get_violation))
        .routes(routes!(acknowledge_violation))
        .routes(routes!(explain_violation))
}

/// One episode, however many readings it spans.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Violation {
    /// Its identity, stable under every retry.
    id: String,
    /// The machine.
    vm: String,
    /// The machine's name.
    vm_name: Option<String>,
    /// Its host.
    host: String,
    /// What was broken.
    kind: Option<ViolationKind>,
    signal: Option<Signal>,
    /// Where it stands.
    state: Option<ViolationState>,
    /// When usage first exceeded.
    opened_at: Option<Timestamp>,
    /// When it was over; null while open.
    closed_at: Option<Timestamp>,
    /// What was predicted or promised at the time.
    predicted_bytes: u64,
    /// Peak usage of the episode.
    actual_bytes: u64,
    /// Peak usage above what was predicted.
    overshoot_bytes: u64,
    /// The same as a share of the allocation.
    overshoot_ratio: f64,
    /// Allocation at the time.
    allocated_bytes: u64,
    /// Horizon of the forecast.
    horizon: Option<Span>,
    /// Its target violation rate.
    target_violation_rate: f64,
    /// The model that made it.
    model_version: Option<String>,
    /// Versions of the boundaries that held, such as `fleet@3`.
    boundary_version: Option<String>,
    /// Who acknowledged it; null: nobody.
    acknowledged_by: Option<String>,
    acknowledged_at: Option<Timestamp>,
    /// Note of the acknowledgement.
    note: Option<String>,
    /// Who explained it; null: nobody.
    explained_by: Option<String>,
    explained_at: Option<Timestamp>,
    /// Why it happened.
    explanation: Option<String>,
    /// Why it closed: `clean`, `vm_gone` or `voided`; null while open.
    close_reason: Option<String>,
}

impl From<&wire::Violation> for Violation {
    fn from(violation: &wire::Violation) -> Self {
        Self {
            id: violation.violation_id.clone(),
            vm: violation.vm_id.clone(),
            vm_name: text(&violation.vm_name),
            host: violation.host_id.clone(),
            kind: ViolationKind::of(violation.kind),
            signal: Signal::of(violation.signal),
            state: ViolationState::of(violation.state),
            opened_at: time(violation.opened_at.as_ref()),
            closed_at: time(violation.closed_at.as_ref()),
            predicted_bytes: violation.predicted_bytes,
            actual_bytes: violation.actual_bytes,
            overshoot_bytes: violation.overshoot_bytes,
            overshoot_ratio: violation.overshoot_ratio,
            allocated_bytes: violation.allocated_bytes,
            horizon: span(violation.horizon.as_ref()).map(Span),
            target_violation_rate: violation.target_violation_rate,
            model_version: text(&violation.model_version),
            boundary_version: text(&violation.boundary_version),
            acknowledged_by: text(&violation.acknowledged_by),
            acknowledged_at: time(violation.acknowledged_at.as_ref()),
            note: text(&violation.note),
            explained_by: text(&violation.explained_by),
            explained_at: time(violation.explained_at.as_ref()),
            explanation: text(&violation.explanation),
            close_reason: text(&violation.close_reason),
        }
    }
}

/// A violation with the series around it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViolationDetail {
    #[serde(flatten)]
    violation: Violation,
    /// The series around it, oldest first.
    series: Vec<ViolationPoint>,
}

/// One point of the series around a violation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViolationPoint {
    at: Option<Timestamp>,
    /// Usage.
    actual_bytes: u64,
    /// What it was judged against; null: nothing was open.
    predicted_bytes: Option<u64>,
}

/// A page of violations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViolationList {
    /// The violations, newest first.
    violations: Vec<Violation>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// Says that a person has seen a violation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledgement {
    /// Who; by default the header `x-memharvest-author`, or `anonymous`.
    author: Option<String>,
    /// At most 4,096 bytes.
    note: Option<String>,
}

/// Says why a violation happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Who; by default the header `x-memharvest-author`, or `anonymous`.
    author: Option<String>,
    /// Why it happened: 1 to 4,096 bytes. The name `explanation` is accepted too.
    #[serde(alias = "explanation")]
    note: String,
}

/// Violations, newest first
#[utoipa::path(get, path = "/violations", tag = "violations",
    params(
        Page,
        ("state" = Option<ViolationState>, Query, description = "Only in this state"),
        ("kind" = Option<ViolationKind>, Query, description = "Only of this kind"),
        ("host" = Option<String>, Query, description = "Only on this host"),
        ("vm" = Option<String>, Query, description = "Only of this machine"),
        ("since" = Option<Timestamp>, Query, description = "Only those that opened at or after this time"),
        ("acknowledged" = Option<bool>, Query, description = "Only acknowledged ones, or only those that are not"),
    ),
    responses((status = 200, description = "As asked", body = ViolationList), Problems))]
async fn list_violations(State(app): State<App>, mut query: Query) -> Result<Json<ViolationList>, Problem> {
    let page = query.page();
    let state: Option<ViolationState> = query.one("state");
    let kind: Option<ViolationKind> = query.one("kind");
    let request = wire::ListViolationsRequest {
        page_size: page.wire_size(),
        page_token: page.token,
        state: state.map_or(0, |state| state.wire().into()),
        kind: kind.map_or(0, |kind| kind.wire().into()),
        host_id: query.one("host").unwrap_or_default(),
        vm_id: query.one::<String>("vm").unwrap_or_default().to_ascii_lowercase(),
        since: query.time("since").map(to_proto),
        acknowledged: query.one("acknowledged"),
    };
    query.finish()?;
    let found = app.upstream.violations().list_violations(request).await?.into_inner();
    let violations = found.violations.iter().map(Violation::from).collect();
    Ok(Json(ViolationList { violations, next_page_token: found.next_page_token }))
}

/// One violation with the series around it
#[utoipa::path(get, path = "/violations/{id}", tag = "violations", params(("id" = String, Path, description = "Identity of the violation")),
    responses((status = 200, description = "As asked", body = ViolationDetail), Problems))]
async fn get_violation(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<ViolationDetail>, Problem> {
    query.finish()?;
    let request = wire::GetViolationRequest { violation_id: id };
    detail(app.upstream.violations().get_violation(request).await?.into_inner().violation)
}

/// Says that a person has seen it
#[utoipa::path(post, path = "/violations/{id}/acknowledge", tag = "violations",
    params(
        ("id" = String, Path, description = "Identity of the violation"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who, unless the body says"),
    ),
    request_body = Acknowledgement,
    responses((status = 200, description = "As asked", body = ViolationDetail), Problems))]
async fn acknowledge_violation(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Acknowledgement>,
) -> Result<Json<ViolationDetail>, Problem> {
    query.finish()?;
    let request = wire::AcknowledgeViolationRequest {
        violation_id: id,
        author: author_of(&headers, body.author)?,
        note: body.note.unwrap_or_default(),
    };
    detail(app.upstream.violations().acknowledge_violation(request).await?.into_inner().violation)
}

/// Adds why it happened
#[utoipa::path(post, path = "/violations/{id}/explain", tag = "violations",
    params(
        ("id" = String, Path, description = "Identity of the violation"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who, unless the body says"),
    ),
    request_body = Reason,
    responses((status = 200, description = "As asked", body = ViolationDetail), Problems))]
async fn explain_violation(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Reason>,
) -> Result<Json<ViolationDetail>, Problem> {
    query.finish()?;
    let author = author_of(&headers, body.author)?;
    let request = wire::ExplainViolationRequest { violation_id: id, author, explanation: body.note };
    detail(app.upstream.violations().explain_violation(request).await?.into_inner().violation)
}

fn detail(violation: Option<wire::Violation>) -> Result<Json<ViolationDetail>, Problem> {
    let violation = violation.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the registry answered without a violation")
    })?;
    let point = |point: &wire::ViolationPoint| ViolationPoint {
        at: time(point.at.as_ref()),
        actual_bytes: point.actual_bytes,
        predicted_bytes: point.predicted_bytes,
    };
    Ok(Json(ViolationDetail {
        violation: (&violation).into(),
        series: violation.series.iter().map(point).collect(),
    }))
}
