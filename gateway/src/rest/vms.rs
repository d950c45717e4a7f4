//! `/vms`: machines, and why their harvest is what it is.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;
use memharvest_proto::collector::v1 as collector;
use memharvest_proto::predictor::v1 as wire;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::paging::slice_after;
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::words::{LimitedBy, Quality, Signal, Span, TermName, VmState};
use super::{App, Problems};
use crate::live::Snapshot;
use crate::wire::{span, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_vms)).routes(routes!(get_vm)).routes(routes!(explain_vm))
}

/// A machine as it is now. Null: not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Vm {
    /// UUID.
    #[expect(clippy::struct_field_names, reason = "the contract's name")]
    vm: String,
    /// Its name.
    name: Option<String>,
    /// Its host.
    host: String,
    /// What it is doing.
    state: Option<VmState>,
    /// How far its figures can be trusted.
    quality: Option<Quality>,
    /// What the guest holds now.
    allocated_bytes: Option<u64>,
    /// What it was defined with.
    maximum_bytes: Option<u64>,
    /// Resident set of its process, raw.
    rss_bytes: Option<u64>,
    /// What the guest itself needs.
    demand_bytes: Option<u64>,
    /// Raw forecast of the resident set's peak.
    predicted_rss_bytes: Option<u64>,
    /// Raw forecast of demand's peak.
    predicted_demand_bytes: Option<u64>,
    /// Memory not touched and not expected to be.
    harvestable_bytes: Option<u64>,
    /// Memory that a balloon could add.
    reclaimable_bytes: Option<u64>,
    /// When it was read.
    read_at: Option<Timestamp>,
    /// Past it harvestable and reclaimable are 0.
    valid_until: Option<Timestamp>,
    /// Age of the guest's own figures.
    stats_age_seconds: Option<f64>,
    /// When something can be harvested at the earliest; null: it is not cold.
    warm_at: Option<Timestamp>,
    /// What takes most off its harvestable memory besides the prediction.
    limited_by: Option<LimitedBy>,
    /// Its violations that are open.
    violations_open: u32,
}

impl From<&wire::Vm> for Vm {
    fn from(vm: &wire::Vm) -> Self {
        Self {
            vm: vm.vm_id.clone(),
            name: text(&vm.name),
            host: vm.host_id.clone(),
            state: VmState::of(vm.state),
            quality: Quality::of(vm.quality),
            allocated_bytes: vm.allocated_bytes,
            maximum_bytes: vm.maximum_bytes,
            rss_bytes: vm.rss_bytes,
            demand_bytes: vm.demand_bytes,
            predicted_rss_bytes: vm.predicted_rss_bytes,
            predicted_demand_bytes: vm.predicted_demand_bytes,
            harvestable_bytes: vm.harvestable_bytes,
            reclaimable_bytes: vm.reclaimable_bytes,
            read_at: time(vm.read_at.as_ref()),
            valid_until: time(vm.valid_until.as_ref()),
            stats_age_seconds: vm.stats_age_seconds,
            warm_at: time(vm.warm_at.as_ref()),
            limited_by: LimitedBy::of(vm.limited_by),
            violations_open: vm.violations_open,
        }
    }
}

/// A machine with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VmDetail {
    #[serde(flatten)]
    vm: Vm,
    /// Raw forecasts by signal, horizon and target.
    forecasts: Vec<Forecast>,
    /// The guest's own view; null: no balloon driver answers.
    guest: Option<Guest>,
}

impl From<&wire::Vm> for VmDetail {
    fn from(vm: &wire::Vm) -> Self {
        Self {
            vm: vm.into(),
            forecasts: vm.forecasts.iter().map(Forecast::from).collect(),
            guest: vm.guest.as_ref().map(Guest::from),
        }
    }
}

/// An upper bound for the peak of a signal over a horizon, before any guard.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Forecast {
    signal: Option<Signal>,
    /// Upper bound of the peak.
    predicted_bytes: u64,
    /// How far it reaches.
    horizon: Option<Span>,
    /// Share of such forecasts that may be exceeded.
    target_violation_rate: f64,
    /// Share of this machine's judged forecasts that held in the last 24 hours; null: none was judged.
    coverage_ratio: Option<f64>,
    /// Judged forecasts that this share rests on.
    judged: u64,
    /// What usage may not exceed while the forecast is open.
    promised_bytes: Option<u64>,
}

impl From<&wire::Forecast> for Forecast {
    fn from(forecast: &wire::Forecast) -> Self {
        Self {
            signal: Signal::of(forecast.signal),
            predicted_bytes: forecast.predicted_bytes,
            horizon: span(forecast.horizon.as_ref()).map(Span),
            target_violation_rate: forecast.target_violation_rate,
            coverage_ratio: forecast.coverage_ratio,
            judged: forecast.judged,
            promised_bytes: forecast.promised_bytes,
        }
    }
}

/// The guest's own view of its memory. Null: the guest does not say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Guest {
    /// Memory that the guest's kernel manages.
    total_bytes: Option<u64>,
    /// Memory that holds nothing, page cache not included.
    free_bytes: Option<u64>,
    /// Memory that new work could get without swapping.
    available_bytes: Option<u64>,
    /// Page cache and buffers.
    disk_cache_bytes: Option<u64>,
    /// When the guest last reported.
    last_update: Option<Timestamp>,
}

impl From<&collector::GuestMemory> for Guest {
    fn from(guest: &collector::GuestMemory) -> Self {
        Self {
            total_bytes: guest.total_bytes,
            free_bytes: guest.free_bytes,
            available_bytes: guest.available_bytes,
            disk_cache_bytes: guest.disk_cache_bytes,
            last_update: time(guest.last_update.as_ref()),
        }
    }
}

/// A page of machines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VmList {
    /// The machines, ordered by UUID.
    pub(super) vms: Vec<Vm>,
    /// Empty: this was the last page.
    pub(super) next_page_token: String,
}

/// Why a harvest is what it is: start minus every term is exactly the result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// The machine.
    vm: String,
    /// `rss` explains harvestable, `demand` explains reclaimable.
    signal: Option<Signal>,
    /// Allocation for `rss`; the smaller of resident set and allocation for `demand`.
    start_bytes: u64,
    /// The steps, in order, all of them.
    terms: Vec<Term>,
    /// Harvestable or reclaimable.
    result_bytes: u64,
    /// When something can be harvested at the earliest; null: it is not cold.
    warm_at: Option<Timestamp>,
    /// The reading it rests on.
    read_at: Option<Timestamp>,
}

/// One step of a waterfall.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Term {
    name: Option<TermName>,
    /// What it takes off.
    bytes: u64,
    /// Why; null where it takes nothing.
    limited_by: Option<LimitedBy>,
    /// Why, in one sentence.
    detail: String,
}

impl From<&wire::Waterfall> for Explanation {
    fn from(waterfall: &wire::Waterfall) -> Self {
        let term = |term: &wire::Term| Term {
            name: TermName::of(term.name),
            bytes: term.bytes,
            limited_by: LimitedBy::of(term.limited_by).filter(|_| term.bytes > 0),
            detail: term.detail.clone(),
        };
        Self {
            vm: waterfall.vm_id.clone(),
            signal: Signal::of(waterfall.signal),
            start_bytes: waterfall.start_bytes,
            terms: waterfall.terms.iter().map(term).collect(),
            result_bytes: waterfall.result_bytes,
            warm_at: time(waterfall.warm_at.as_ref()),
            read_at: time(waterfall.read_at.as_ref()),
        }
    }
}

/// Machines, ordered by UUID
#[utoipa::path(get, path = "/vms", tag = "vms",
    params(
        Page,
        ("host" = Option<String>, Query, description = "Only machines of this host"),
        ("quality" = Option<Quality>, Query, description = "Only machines of this quality"),
        ("state" = Option<VmState>, Query, description = "Only machines in this state"),
    ),
    responses((status = 200, description = "As asked", body = VmList), Problems))]
async fn list_vms(State(app): State<App>, mut query: Query) -> Result<Json<VmList>, Problem> {
    let page = query.page();
    let host: Option<String> = query.one("host");
    let quality: Option<Quality> = query.one("quality");
    let state: Option<VmState> = query.one("state");
    query.finish()?;
    let snapshot = app.live.snapshot();
    let vms = match &host {
        Some(host) => snapshot.host(host).map_or(&[][..], |view| &view.vms),
        None => &snapshot.vms,
    };
    let fits = |vm: &wire::Vm| {
        quality.is_none_or(|quality| vm.quality == i32::from(quality.wire()))
            && state.is_none_or(|state| vm.state == i32::from(state.wire()))
    };
    let (vms, next_page_token) = slice_after(vms, |vm| &vm.vm_id, |vm| fits(vm), &page)?;
    Ok(Json(VmList { vms: vms.into_iter().map(|vm| Vm::from(vm.as_ref())).collect(), next_page_token }))
}

/// One machine
#[utoipa::path(get, path = "/vms/{vm}", tag = "vms", params(("vm" = String, Path, description = "UUID of the machine")),
    responses((status = 200, description = "As asked", body = VmDetail), Problems))]
async fn get_vm(
    State(app): State<App>,
    Path(vm): Path<String>,
    query: Query,
) -> Result<Json<VmDetail>, Problem> {
    query.finish()?;
    let snapshot = app.live.snapshot();
    Ok(Json(find(&snapshot, &vm)?.into()))
}

/// Why a machine's harvest is what it is
#[utoipa::path(get, path = "/vms/{vm}/explain", tag = "vms",
    params(
        ("vm" = String, Path, description = "UUID of the machine"),
        ("signal" = Option<Signal>, Query, description = "`rss` (default) explains harvestable, `demand` explains reclaimable"),
    ),
    responses((status = 200, description = "As asked", body = Explanation), Problems))]
async fn explain_vm(
    State(app): State<App>,
    Path(vm): Path<String>,
    mut query: Query,
) -> Result<Json<Explanation>, Problem> {
    let signal = query.one("signal").unwrap_or(Signal::Rss);
    query.finish()?;
    let snapshot = app.live.snapshot();
    let vm = find(&snapshot, &vm)?;
    let mut predictor =
        snapshot.predictor_of(vm).and_then(|place| app.upstream.predictor(place)).ok_or_else(|| {
            let detail =
                format!("no predictor has machine `{}` now; it is known from the registry alone", vm.vm_id);
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
    let request = wire::ExplainVmRequest { vm_id: vm.vm_id.clone(), signal: signal.wire().into() };
    let waterfall = predictor.explain_vm(request).await?.into_inner().waterfall;
    let waterfall = waterfall.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the predictor answered without a waterfall")
    })?;
    Ok(Json((&waterfall).into()))
}

fn find<'a>(snapshot: &'a Snapshot, vm: &str) -> Result<&'a wire::Vm, Problem> {
    let found = snapshot.vm(&vm.to_ascii_lowercase()).map(AsRef::as_ref);
    found.ok_or_else(|| Problem::not_found(format!("there is no machine `{vm}`; GET /api/v1/vms lists them")))
}
