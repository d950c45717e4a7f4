//! `/metrics` of the port: series of the whole fleet and nothing else. Hosts and machines are exported by collectors, processes on
//! their admin ports: each series has one home.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use memharvest_proto::predictor::v1::{Coverage, ErrorBudget};
use memharvest_services::page_writer::{MetricType, PageWriter, Value};

use crate::live::{Snapshot, held_ratio};
use crate::rest::App;
use crate::rest::words::{AgentState, HostState, Signal, Span, ViolationKind};
use crate::wire::{span, time};

/// Type of every page for Prometheus.
pub(crate) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where series are written: a whole page, or one of which only a part is wanted.
pub(crate) trait SeriesPage {
    /// Starts a metric.
    fn metric(&mut self, name: &str, help: &str, kind: MetricType);
    /// Writes a sample of the metric that was started last.
    fn sample(&mut self, labels: &[(&str, &str)], value: Value);
}

impl SeriesPage for PageWriter {
    fn metric(&mut self, name: &str, help: &str, kind: MetricType) {
        self.header(name, help, kind);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: Value) {
        PageWriter::sample(self, labels, value);
    }
}

pub(crate) async fn page(State(app): State<App>) -> impl IntoResponse {
    let mut page = PageWriter::default();
    write(&mut page, &app.live.snapshot());
    ([(CONTENT_TYPE, TEXT_FORMAT)], page.finish())
}

/// Writes the fleet's series; what is not known has none.
pub(crate) fn write(page: &mut impl SeriesPage, snapshot: &Snapshot) {
    let fleet = &snapshot.fleet;
    let sums = [
        ("allocated", "Memory that the machines hold", fleet.allocated_bytes),
        ("rss", "Resident sets of the machines", fleet.rss_bytes),
        ("predicted_rss", "Raw forecasts of the resident sets' peaks", fleet.predicted_rss_bytes),
        ("harvestable", "Memory not touched and not expected to be", fleet.harvestable_bytes),
        ("reclaimable", "Memory that balloons could add", fleet.reclaimable_bytes),
    ];
    for (name, help, bytes) in sums {
        let name = format!("memharvest_fleet_memory_{name}_bytes");
        let help = format!("{help}, summed over all hosts.");
        gauge(page, &name, &help, bytes.map(|bytes| (Vec::new(), Value::Whole(bytes))));
    }
    let hosts_in = |state: HostState| {
        let count = snapshot.hosts.iter().filter(|view| view.host.state == i32::from(state.wire())).count();
        (vec![("state", state.as_str().to_owned())], count.into())
    };
    let states = [HostState::Live, HostState::Stale, HostState::Lost];
    gauge(page, "memharvest_fleet_hosts", "Hosts, by whether their figures are fresh.", states.map(hosts_in));
    gauge(page, "memharvest_fleet_vms", "Machines that run.", [(Vec::new(), fleet.vms.into())]);
    violations(page, snapshot);
    coverage(page, snapshot);
    budgets(page, snapshot);
    agents(page, snapshot);
}

/// A predictor tells what it counted with each of its hosts: the newest word of each counts, and those of several predictors
/// are added up.
fn budgets(page: &mut impl SeriesPage, snapshot: &Snapshot) {
    let mut told: BTreeMap<(&str, usize), (Option<Timestamp>, &ErrorBudget)> = BTreeMap::new();
    for view in &snapshot.hosts {
        let Some(predictor) = view.predictor else { continue };
        let read_at = time(view.host.read_at.as_ref());
        for budget in &view.host.error_budgets {
            let newest = told.entry((&budget.scope, predictor)).or_insert((read_at, budget));
            if newest.0 < read_at {
                *newest = (read_at, budget);
            }
        }
    }
    let mut scopes: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for ((scope, _), (_, budget)) in told {
        let sum = scopes.entry(scope).or_default();
        sum.0 += budget.violations;
        sum.1 += budget.allowed;
    }
    gauge(
        page,
        "memharvest_error_budget_remaining_ratio",
        "Share of the promise violations that a boundary allows within 30 days which is left; at 0 harvest pauses under it.",
        scopes.into_iter().map(|(scope, (spent, allowed))| {
            (vec![("scope", scope.to_owned())], remaining_ratio(spent, allowed).into())
        }),
    );
}

/// An untouched budget is whole, however small.
#[expect(clippy::cast_precision_loss, reason = "counts of violations stay far below 2^53")]
fn remaining_ratio(spent: u64, allowed: f64) -> f64 {
    if spent == 0 { 1.0 } else { (1.0 - spent as f64 / allowed.max(f64::MIN_POSITIVE)).max(0.0) }
}

fn violations(page: &mut impl SeriesPage, snapshot: &Snapshot) {
    let open = snapshot.records.violations_open();
    gauge(
        page,
        "memharvest_violations_open",
        "Violations that are open.",
        open.map(|count| (Vec::new(), count.into())),
    );
    let Some(counts) = &snapshot.records.violations else { return };
    page.metric(
        "memharvest_violations_total",
        "Violations since the registry's history begins, by what was broken.",
        MetricType::Counter,
    );
    for kind in [ViolationKind::Forecast, ViolationKind::Promise, ViolationKind::Boundary] {
        let of_kind = counts.iter().filter(|count| count.kind == i32::from(kind.wire()));
        page.sample(&[("kind", kind.as_str())], Value::Whole(of_kind.map(|count| count.count).sum()));
    }
}

fn coverage(page: &mut impl SeriesPage, snapshot: &Snapshot) {
    let mut by_forecast: BTreeMap<(&str, String), Vec<_>> = BTreeMap::new();
    for part in &snapshot.fleet.coverage {
        if let (Some(signal), Some(horizon)) = (Signal::of(part.signal), span(part.horizon.as_ref())) {
            by_forecast.entry((signal.as_str(), Span(horizon).to_string())).or_default().push(*part);
        }
    }
    let ratios = by_forecast.iter().filter_map(|((signal, horizon), parts)| {
        Some((
            vec![("signal", (*signal).to_owned()), ("horizon", horizon.clone())],
            held_ratio(parts)?.into(),
        ))
    });
    gauge(
        page,
        "memharvest_prediction_coverage_ratio",
        "Share of the raw forecasts judged in the last 24 hours that held.",
        ratios,
    );
    let promised = by_forecast.iter().filter_map(|((signal, horizon), parts)| {
        Some((
            vec![("signal", (*signal).to_owned()), ("horizon", horizon.clone())],
            promised_ratio(parts)?.into(),
        ))
    });
    gauge(
        page,
        "memharvest_prediction_promised_ratio",
        "Share of the same forecasts that was promised to hold: 1 minus their target violation rates.",
        promised,
    );
}

/// The share that was promised to hold, of forecasts with one target or several; `None` where none was judged.
#[expect(clippy::cast_precision_loss, reason = "counts of forecasts stay far below 2^53")]
fn promised_ratio(coverage: &[Coverage]) -> Option<f64> {
    let judged: u64 = coverage.iter().map(|part| part.judged).sum();
    let missed: f64 = coverage.iter().map(|part| part.target_violation_rate * part.judged as f64).sum();
    (judged > 0).then(|| 1.0 - missed / judged as f64)
}

fn agents(page: &mut impl SeriesPage, snapshot: &Snapshot) {
    let Some(agents) = &snapshot.records.agents else { return };
    let states = [AgentState::Live, AgentState::Late, AgentState::Lost, AgentState::Decommissioned];
    let count = |state: AgentState| {
        let count = agents.values().filter(|agent| agent.state == i32::from(state.wire())).count();
        (vec![("state", state.as_str().to_owned())], count.into())
    };
    gauge(page, "memharvest_agents", "Processes of the mesh, by whether they are heard.", states.map(count));
}

fn gauge(
    page: &mut impl SeriesPage,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, Value)>,
) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    page.metric(name, help, MetricType::Gauge);
    for (labels, value) in samples {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
        page.sample(&labels, value);
    }
}
