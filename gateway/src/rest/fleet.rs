//! `/fleet`: sums over all hosts.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use memharvest_proto::gateway::v1 as wire;
use memharvest_proto::predictor::v1 as predictor;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::query::Query;
use super::words::{Signal, Span};
use super::{App, Problems};
use crate::live::held_ratio;
use crate::wire::{span, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_fleet))
}

/// Sums over the fleet. Absent: not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fleet {
    /// Hosts that are known.
    hosts: u32,
    /// Hosts whose figures are stale or lost.
    hosts_stale: u32,
    /// Machines that run.
    vms: u32,
    /// Machines whose figures are live.
    vms_live: u32,
    /// Sum of allocations.
    allocated_bytes: Option<u64>,
    /// Sum of resident sets.
    rss_bytes: Option<u64>,
    /// Sum of raw forecasts of the resident set.
    predicted_rss_bytes: Option<u64>,
    /// Memory not touched and not expected to be.
    harvestable_bytes: Option<u64>,
    /// Memory that balloons could add.
    reclaimable_bytes: Option<u64>,
    /// Violations that are open; null: the registry is away.
    violations_open: Option<u64>,
    /// Share of judged raw forecasts that held in the last 24 hours; null: none was judged.
    coverage: Option<f64>,
    /// The same by signal, horizon and target.
    coverage_by_forecast: Vec<Coverage>,
    /// The newest reading.
    read_at: Option<Timestamp>,
    /// When the next cold machine is warm; null: none is cold.
    warm_at: Option<Timestamp>,
}

/// How many raw forecasts were judged, and how many of them held.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Coverage {
    signal: Option<Signal>,
    horizon: Option<Span>,
    target_violation_rate: f64,
    /// Forecasts judged.
    judged: u64,
    /// Of these, those that held.
    held: u64,
    /// The share that held; null: none was judged.
    ratio: Option<f64>,
}

impl From<&predictor::Coverage> for Coverage {
    fn from(coverage: &predictor::Coverage) -> Self {
        Self {
            signal: Signal::of(coverage.signal),
            horizon: span(coverage.horizon.as_ref()).map(Span),
            target_violation_rate: coverage.target_violation_rate,
            judged: coverage.judged,
            held: coverage.held,
            ratio: held_ratio(std::slice::from_ref(coverage)),
        }
    }
}

impl From<&wire::Fleet> for Fleet {
    fn from(fleet: &wire::Fleet) -> Self {
        Self {
            hosts: fleet.hosts,
            hosts_stale: fleet.hosts_stale,
            vms: fleet.vms,
            vms_live: fleet.vms_live,
            allocated_bytes: fleet.allocated_bytes,
            rss_bytes: fleet.rss_bytes,
            predicted_rss_bytes: fleet.predicted_rss_bytes,
            harvestable_bytes: fleet.harvestable_bytes,
            reclaimable_bytes: fleet.reclaimable_bytes,
            violations_open: fleet.violations_open,
            coverage: fleet.coverage_ratio,
            coverage_by_forecast: fleet.coverage.iter().map(Coverage::from).collect(),
            read_at: time(fleet.read_at.as_ref()),
            warm_at: time(fleet.warm_at.as_ref()),
        }
    }
}

/// Sums over the fleet
#[utoipa::path(get, path = "/fleet", tag = "fleet", responses((status = 200, description = "As asked", body = Fleet), Problems))]
async fn get_fleet(State(app): State<App>, query: Query) -> Result<Json<Fleet>, Problem> {
    query.finish()?;
    Ok(Json((&app.live.snapshot().fleet).into()))
}
