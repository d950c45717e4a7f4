//! `/hosts`: hosts, their machines, history and findings.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use memharvest_proto::collector::v1 as collector;
use memharvest_proto::predictor::v1 as wire;
use memharvest_proto::registry::v1::DecommissionAgentRequest;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::author::author_of;
use super::fleet::Coverage;
use super::paging::slice_after;
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::vms::{Vm, VmList};
use super::words::{BreakerState, HostState, LimitedBy, Severity, Span};
use super::{App, Problems};
use crate::live::HostView;
use crate::wire::{span, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_hosts))
        .routes(routes!(get_host, decommission_host))
        .routes(routes!(list_vms_of_host))
        .routes(routes!(diagnose_host))
}

/// A host as it is now. Null: not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Host {
    /// Its identity.
    #[expect(clippy::struct_field_names, reason = "the contract's name")]
    host: String,
    /// Its name.
    name: Option<String>,
    /// Whether its figures are fresh; `lost`: the registry alone knows it.
    state: Option<HostState>,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Machines that run.
    vms_running: u32,
    /// Physical memory.
    total_bytes: Option<u64>,
    /// Memory that new work could get without swapping.
    available_bytes: Option<u64>,
    /// Sum of allocations.
    allocated_bytes: Option<u64>,
    /// Sum of resident sets.
    rss_bytes: Option<u64>,
    /// Sum of raw forecasts of the resident set.
    predicted_rss_bytes: Option<u64>,
    /// Sum of what its machines yield.
    harvestable_bytes: Option<u64>,
    /// What the forecast of the summed usage yields.
    pooled_harvestable_bytes: Option<u64>,
    /// Sum of what balloons could add.
    reclaimable_bytes: Option<u64>,
    /// Bytes under lease.
    leased_bytes: Option<u64>,
    /// When it was read.
    read_at: Option<Timestamp>,
    /// Past it harvestable is 0.
    valid_until: Option<Timestamp>,
    /// How often it is read.
    interval: Option<Span>,
    /// Where the circuit breaker stands.
    breaker: Option<BreakerState>,
    /// Why it is not closed.
    breaker_reason: Option<LimitedBy>,
    /// Share of the last ten seconds in which some task waited for memory.
    pressure_some_ratio: Option<f64>,
    /// Share of the last ten seconds in which all tasks waited for memory.
    pressure_full_ratio: Option<f64>,
    /// Raw forecasts judged in the last 24 hours.
    coverage: Vec<Coverage>,
}

impl From<&wire::Host> for Host {
    fn from(host: &wire::Host) -> Self {
        let memory = host.memory.as_ref();
        Self {
            host: host.host_id.clone(),
            name: text(&host.name),
            state: HostState::of(host.state),
            labels: host.labels.clone(),
            vms_running: host.vms_running,
            total_bytes: host.total_bytes,
            available_bytes: host.available_bytes,
            allocated_bytes: host.allocated_bytes,
            rss_bytes: host.rss_bytes,
            predicted_rss_bytes: host.predicted_rss_bytes,
            harvestable_bytes: host.harvestable_bytes,
            pooled_harvestable_bytes: host.pooled_harvestable_bytes,
            reclaimable_bytes: host.reclaimable_bytes,
            leased_bytes: host.leased_bytes,
            read_at: time(host.read_at.as_ref()),
            valid_until: time(host.valid_until.as_ref()),
            interval: span(host.interval.as_ref()).map(Span),
            breaker: BreakerState::of(host.breaker),
            breaker_reason: LimitedBy::of(host.breaker_reason),
            pressure_some_ratio: memory.and_then(|memory| memory.pressure_some_ratio),
            pressure_full_ratio: memory.and_then(|memory| memory.pressure_full_ratio),
            coverage: host.coverage.iter().map(Coverage::from).collect(),
        }
    }
}

/// A page of hosts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HostList {
    /// The hosts, ordered by identity.
    hosts: Vec<Host>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// What keeps a host's machines from being measured well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Diagnosis {
    /// The host.
    host: String,
    /// What was found, worst first; empty: nothing to mend.
    findings: Vec<Finding>,
}

/// One thing that keeps a machine or a host from being measured well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Finding {
    /// The host.
    host: Option<String>,
    /// The machine; null: the host itself.
    vm: Option<String>,
    /// Name of the machine.
    vm_name: Option<String>,
    /// Short stable word for the cause, such as `no_period`.
    code: String,
    /// How much it costs.
    severity: Option<Severity>,
    /// The cause, in one sentence.
    cause: String,
    /// The cure: a command or a step.
    cure: String,
    /// When it was first seen.
    since: Option<Timestamp>,
}

impl From<&collector::Finding> for Finding {
    fn from(finding: &collector::Finding) -> Self {
        Self {
            host: text(&finding.host_id),
            vm: text(&finding.vm_id),
            vm_name: text(&finding.vm_name),
            code: finding.code.clone(),
            severity: Severity::of(finding.severity),
            cause: finding.cause.clone(),
            cure: finding.cure.clone(),
            since: time(finding.since.as_ref()),
        }
    }
}

/// Hosts, ordered by identity
#[utoipa::path(get, path = "/hosts", tag = "hosts",
    params(
        Page,
        ("label" = Option<Vec<String>>, Query, description = "Only hosts with this label, as `name=value`; repeat it for several, all of which must fit"),
        ("state" = Option<HostState>, Query, description = "Only hosts in this state"),
    ),
    responses((status = 200, description = "As asked", body = HostList), Problems))]
async fn list_hosts(State(app): State<App>, mut query: Query) -> Result<Json<HostList>, Problem> {
    let page = query.page();
    let state: Option<HostState> = query.one("state");
    let mut labels = Vec::new();
    for label in query.all("label") {
        match label.split_once('=') {
            Some((name, value)) if !name.is_empty() => labels.push((name.to_owned(), value.to_owned())),
            _ => query.refuse("label", format!("`{label}` is not written as name=value")),
        }
    }
    query.finish()?;
    let snapshot = app.live.snapshot();
    let fits = |view: &HostView| {
        state.is_none_or(|state| view.host.state == i32::from(state.wire()))
            && labels.iter().all(|(name, value)| view.host.labels.get(name) == Some(value))
    };
    let (hosts, next_page_token) =
        slice_after(&snapshot.hosts, |view| &view.host.host_id, |view| fits(view), &page)?;
    Ok(Json(HostList { hosts: hosts.into_iter().map(|view| (&view.host).into()).collect(), next_page_token }))
}

/// One host
#[utoipa::path(get, path = "/hosts/{host}", tag = "hosts", params(("host" = String, Path, description = "Identity of the host")),
    responses((status = 200, description = "As asked", body = Host), Problems))]
async fn get_host(
    State(app): State<App>,
    Path(host): Path<String>,
    query: Query,
) -> Result<Json<Host>, Problem> {
    query.finish()?;
    let snapshot = app.live.snapshot();
    let view = snapshot.host(&host).ok_or_else(|| no_host(&host))?;
    Ok(Json((&view.host).into()))
}

/// Takes a host out of service; its history stays
#[utoipa::path(delete, path = "/hosts/{host}", tag = "hosts",
    params(
        ("host" = String, Path, description = "Identity of the host"),
        ("reason" = Option<String>, Query, description = "Why"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who asks; `anonymous` by default"),
    ),
    responses((status = 204, description = "It is out of service"), Problems))]
async fn decommission_host(
    State(app): State<App>,
    Path(host): Path<String>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let reason = query.one("reason").unwrap_or_default();
    query.finish()?;
    let author = author_of(&headers, None)?;
    let request = DecommissionAgentRequest { agent_id: host, author, reason };
    app.upstream.agents().decommission_agent(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Machines of a host, ordered by UUID
#[utoipa::path(get, path = "/hosts/{host}/vms", tag = "hosts", params(("host" = String, Path, description = "Identity of the host"), Page),
    responses((status = 200, description = "As asked", body = VmList), Problems))]
async fn list_vms_of_host(
    State(app): State<App>,
    Path(host): Path<String>,
    mut query: Query,
) -> Result<Json<VmList>, Problem> {
    let page = query.page();
    query.finish()?;
    let snapshot = app.live.snapshot();
    let view = snapshot.host(&host).ok_or_else(|| no_host(&host))?;
    let (vms, next_page_token) = slice_after(&view.vms, |vm| &vm.vm_id, |_| true, &page)?;
    Ok(Json(VmList { vms: vms.into_iter().map(|vm| Vm::from(vm.as_ref())).collect(), next_page_token }))
}

/// What keeps a host's machines from being measured well, each with its cure
#[utoipa::path(get, path = "/hosts/{host}/diagnosis", tag = "hosts", params(("host" = String, Path, description = "Identity of the host")),
    responses((status = 200, description = "As asked", body = Diagnosis), Problems))]
async fn diagnose_host(
    State(app): State<App>,
    Path(host): Path<String>,
    query: Query,
) -> Result<Json<Diagnosis>, Problem> {
    query.finish()?;
    let snapshot = app.live.snapshot();
    if snapshot.host(&host).is_none() {
        return Err(no_host(&host));
    }
    let findings = snapshot.records.findings(&host).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the registry, which keeps the findings, was not reached yet",
        )
    })?;
    Ok(Json(Diagnosis { host, findings: findings.iter().map(Finding::from).collect() }))
}

fn no_host(host: &str) -> Problem {
    Problem::not_found(format!("there is no host `{host}`; GET /api/v1/hosts lists them"))
}
