//! `/vms/{vm}/history` and `/hosts/{host}/history`: what the registry keeps.

use axum::Json;
use axum::extract::{Path, State};
use jiff::{SignedDuration, Timestamp};
use memharvest_proto::registry::v1 as wire;
use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_services::proto_time::{duration_to_proto, to_proto};
use serde::Serialize;
use tonic::Code;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::query::Query;
use super::words::{Quality, Span};
use super::{App, Problems};
use crate::wire::{span, time};

/// How far back without a `from`.
const DEFAULT_LOOKBACK: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(vm_history)).routes(routes!(host_history))
}

/// A machine's history, oldest first. Windows without a reading are absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VmHistory {
    vm: String,
    from: Timestamp,
    points: Vec<VmPoint>,
}

/// A machine over one window of time. Null: not known in this window.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VmPoint {
    /// When the window begins.
    at: Option<Timestamp>,
    /// How long it is.
    window: Option<Span>,
    /// Its host.
    host: String,
    /// Readings in it.
    readings: u32,
    /// The worst quality in it.
    quality: Option<Quality>,
    /// Allocation at its end.
    allocated_bytes: Option<u64>,
    /// Highest resident set.
    rss_max_bytes: Option<u64>,
    /// Mean resident set.
    rss_mean_bytes: Option<u64>,
    /// Highest demand.
    demand_max_bytes: Option<u64>,
    /// Mean demand.
    demand_mean_bytes: Option<u64>,
    /// Highest raw forecast of the resident set.
    predicted_rss_bytes: Option<u64>,
    /// Highest raw forecast of demand.
    predicted_demand_bytes: Option<u64>,
    /// Harvestable at its end.
    harvestable_bytes: Option<u64>,
    /// Reclaimable at its end.
    reclaimable_bytes: Option<u64>,
}

/// A host's history, oldest first. Windows without a reading are absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HostHistory {
    host: String,
    from: Timestamp,
    points: Vec<HostPoint>,
}

/// A host over one window of time. Null: not known in this window.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HostPoint {
    /// When the window begins.
    at: Option<Timestamp>,
    /// How long it is.
    window: Option<Span>,
    /// Readings in it.
    readings: u32,
    /// Running machines at its end.
    vms_running: u32,
    /// Physical memory.
    total_bytes: Option<u64>,
    /// Lowest available memory.
    available_min_bytes: Option<u64>,
    /// Sum of allocations at its end.
    allocated_bytes: Option<u64>,
    /// Highest sum of resident sets.
    rss_max_bytes: Option<u64>,
    /// Harvestable at its end: the sum of its machines.
    harvestable_bytes: Option<u64>,
    /// Harvestable at its end by the forecast of the summed usage.
    pooled_harvestable_bytes: Option<u64>,
    /// Reclaimable at its end.
    reclaimable_bytes: Option<u64>,
}

/// History of a machine
#[utoipa::path(get, path = "/vms/{vm}/history", tag = "vms",
    params(
        ("vm" = String, Path, description = "UUID of the machine"),
        ("from" = Option<Timestamp>, Query, description = "From this time; by default 24 hours ago"),
        ("to" = Option<Timestamp>, Query, description = "Until before this time; by default now"),
        ("step" = Option<Span>, Query, description = "Windows are merged to this length, such as 15m; by default as stored"),
    ),
    responses((status = 200, description = "As asked", body = VmHistory), Problems))]
async fn vm_history(
    State(app): State<App>,
    Path(vm): Path<String>,
    query: Query,
) -> Result<Json<VmHistory>, Problem> {
    let vm = vm.to_ascii_lowercase();
    let (from, request) = request(&app, Subject::VmId(vm.clone()), query)?;
    let is_live = app.live.snapshot().vm(&vm).is_some();
    let history = recorded(&app, request, is_live).await?;
    if history.vms.is_empty() && !is_live {
        return Err(Problem::not_found(format!(
            "there is no machine `{vm}` now, and nothing is known of it from {from} on"
        )));
    }
    let point = |rollup: &wire::VmRollup| VmPoint {
        at: time(rollup.window_start.as_ref()),
        window: span(rollup.window.as_ref()).map(Span),
        host: rollup.host_id.clone(),
        readings: rollup.readings,
        quality: Quality::of(rollup.quality),
        allocated_bytes: rollup.allocated_bytes,
        rss_max_bytes: rollup.rss_max_bytes,
        rss_mean_bytes: rollup.rss_mean_bytes,
        demand_max_bytes: rollup.demand_max_bytes,
        demand_mean_bytes: rollup.demand_mean_bytes,
        predicted_rss_bytes: rollup.predicted_rss_bytes,
        predicted_demand_bytes: rollup.predicted_demand_bytes,
        harvestable_bytes: rollup.harvestable_bytes,
        reclaimable_bytes: rollup.reclaimable_bytes,
    };
    Ok(Json(VmHistory { vm, from, points: history.vms.iter().map(point).collect() }))
}

/// History of a host
#[utoipa::path(get, path = "/hosts/{host}/history", tag = "hosts",
    params(
        ("host" = String, Path, description = "Identity of the host"),
        ("from" = Option<Timestamp>, Query, description = "From this time; by default 24 hours ago"),
        ("to" = Option<Timestamp>, Query, description = "Until before this time; by default now"),
        ("step" = Option<Span>, Query, description = "Windows are merged to this length, such as 15m; by default as stored"),
    ),
    responses((status = 200, description = "As asked", body = HostHistory), Problems))]
async fn host_history(
    State(app): State<App>,
    Path(host): Path<String>,
    query: Query,
) -> Result<Json<HostHistory>, Problem> {
    let (from, request) = request(&app, Subject::HostId(host.clone()), query)?;
    let is_live = app.live.snapshot().host(&host).is_some();
    let history = recorded(&app, request, is_live).await?;
    if history.hosts.is_empty() && !is_live {
        return Err(Problem::not_found(format!(
            "there is no host `{host}` now, and nothing is known of it from {from} on"
        )));
    }
    let point = |rollup: &wire::HostRollup| HostPoint {
        at: time(rollup.window_start.as_ref()),
        window: span(rollup.window.as_ref()).map(Span),
        readings: rollup.readings,
        vms_running: rollup.vms_running,
        total_bytes: rollup.total_bytes,
        available_min_bytes: rollup.available_min_bytes,
        allocated_bytes: rollup.allocated_bytes,
        rss_max_bytes: rollup.rss_max_bytes,
        harvestable_bytes: rollup.harvestable_bytes,
        pooled_harvestable_bytes: rollup.pooled_harvestable_bytes,
        reclaimable_bytes: rollup.reclaimable_bytes,
    };
    Ok(Json(HostHistory { host, from, points: history.hosts.iter().map(point).collect() }))
}

/// What the registry keeps; nothing yet of what was seen for the first time a moment ago.
async fn recorded(
    app: &App,
    request: wire::QueryHistoryRequest,
    is_live: bool,
) -> Result<wire::QueryHistoryResponse, Problem> {
    match app.upstream.harvest().query_history(request).await {
        Ok(history) => Ok(history.into_inner()),
        Err(status) if is_live && status.code() == Code::NotFound => {
            Ok(wire::QueryHistoryResponse::default())
        }
        Err(status) => Err(status.into()),
    }
}

fn request(
    app: &App,
    subject: Subject,
    mut query: Query,
) -> Result<(Timestamp, wire::QueryHistoryRequest), Problem> {
    let now = app.live.now();
    let from = query.time("from");
    let to = query.time("to");
    let step = query.span("step");
    let from =
        from.unwrap_or_else(|| to.unwrap_or(now).saturating_sub(DEFAULT_LOOKBACK).unwrap_or(Timestamp::MIN));
    if to.is_some_and(|to| to <= from) {
        query.refuse("from", "must be before `to`");
    }
    if step.is_some_and(|step| step.is_zero()) {
        query.refuse("step", "must be longer than 0");
    }
    query.finish()?;
    let request = wire::QueryHistoryRequest {
        subject: Some(subject),
        from: Some(to_proto(from)),
        to: to.map(to_proto),
        step: step.map(duration_to_proto),
    };
    Ok((from, request))
}
