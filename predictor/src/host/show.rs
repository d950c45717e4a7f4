//! What the core has worked out, as the mesh tells it.

use memharvest_proto::collector::v1 as collector;
use memharvest_proto::predictor::v1 as pb;
use memharvest_proto::registry::v1::{Violation, ViolationKind, ViolationPoint, ViolationState};
use uuid::Uuid;

use crate::boundary::Effective;
use crate::breaker::{State, Trip};
use crate::convert::{duration, signal_to_proto, timestamp};
use crate::domain::{Quality, Signal};
use crate::guard::{LimitedBy, TermName, Waterfall};
use crate::model::Model;
use crate::rollup::Whose;
use crate::violation::{Episode, Kind};
use crate::vm::{Outcome, VmState};

/// Namespace of violation ids (UUID v5 of machine, kind, signal and opening time): the same episode always has the
/// same id.
const VIOLATIONS: Uuid = Uuid::from_u128(0x8a1d_27c4_5b0e_4f6b_9a53_2f1f_6c3e_7d90);

/// Adds to a machine's figures what was worked out from them.
pub(super) fn outcome<M: Model>(
    vm: &mut pb::Vm,
    outcome: &Outcome,
    state: &VmState<M>,
    effective: &Effective,
) {
    vm.quality = quality(outcome.quality).into();
    let predicted = |signal: Signal| outcome.signal(signal).forecast.map(|forecast| forecast.predicted_bytes);
    vm.predicted_rss_bytes = predicted(Signal::Rss);
    vm.predicted_demand_bytes = predicted(Signal::Demand);
    vm.harvestable_bytes = Some(outcome.harvestable);
    vm.reclaimable_bytes = Some(outcome.reclaimable);
    vm.valid_until = Some(timestamp(outcome.valid_until));
    vm.warm_at = outcome.warm_at.map(timestamp);
    vm.violations_open = u32::try_from(state.open_violations()).unwrap_or(u32::MAX);
    vm.limited_by = outcome.rss.waterfall.limited_by().map_or(pb::LimitedBy::Unspecified, limited_by).into();
    vm.forecasts = Signal::ALL
        .into_iter()
        .filter_map(|signal| {
            let forecast = outcome.signal(signal).forecast?;
            let day = state.track(signal).coverage().day();
            Some(pb::Forecast {
                signal: signal_to_proto(signal).into(),
                predicted_bytes: forecast.predicted_bytes,
                horizon: Some(duration(forecast.horizon)),
                target_violation_rate: effective.target_violation_rate.value,
                coverage_ratio: day.violation_rate().map(|rate| 1.0 - rate),
                judged: day.forecasts,
                promised_bytes: outcome.signal(signal).waterfall.promise(),
            })
        })
        .collect();
}

/// A waterfall in words. `boundaries_known` is false before the registry was ever heard.
pub(super) fn waterfall(
    vm_id: &str,
    signal: Signal,
    waterfall: &Waterfall,
    boundaries_known: bool,
) -> pb::Waterfall {
    let terms = waterfall.terms.iter().map(|term| {
        let detail = match term.limited_by {
            Some(LimitedBy::Excluded) if !boundaries_known => {
                "the boundaries are not known yet: the registry has not been heard".to_owned()
            }
            _ => waterfall.detail(term.name),
        };
        pb::Term {
            name: term_name(term.name).into(),
            bytes: term.bytes,
            limited_by: term.limited_by.map_or(pb::LimitedBy::Unspecified, limited_by).into(),
            detail,
        }
    });
    pb::Waterfall {
        vm_id: vm_id.to_owned(),
        signal: signal_to_proto(signal).into(),
        start_bytes: waterfall.start,
        terms: terms.collect(),
        result_bytes: waterfall.result,
        warm_at: waterfall.warm_at().map(timestamp),
        read_at: Some(timestamp(waterfall.inputs.at)),
    }
}

/// The identity of an episode.
pub(super) fn violation_id(vm_id: &str, episode: &Episode) -> String {
    let key = format!("{vm_id}/{:?}/{}/{:.6}", episode.kind, episode.signal.name(), episode.opened_at);
    Uuid::new_v5(&VIOLATIONS, key.as_bytes()).to_string()
}

/// An episode for the ledger.
pub(super) fn violation(
    vm: Whose<'_>,
    episode: &Episode,
    boundary_version: &str,
    traceparent: &str,
) -> Violation {
    let state = if episode.closed.is_some() { ViolationState::Closed } else { ViolationState::Open };
    Violation {
        violation_id: violation_id(vm.vm_id, episode),
        vm_id: vm.vm_id.to_owned(),
        vm_name: vm.name.to_owned(),
        host_id: vm.host_id.to_owned(),
        kind: kind(episode.kind).into(),
        signal: signal_to_proto(episode.signal).into(),
        state: state.into(),
        opened_at: Some(timestamp(episode.opened_at)),
        closed_at: episode.closed.map(|(at, _)| timestamp(at)),
        predicted_bytes: episode.predicted_bytes,
        actual_bytes: episode.actual_bytes,
        overshoot_bytes: episode.overshoot_bytes,
        overshoot_ratio: episode.overshoot_ratio(),
        allocated_bytes: episode.allocated_bytes,
        horizon: Some(duration(episode.horizon)),
        target_violation_rate: episode.target,
        model_version: episode.model_version.to_string(),
        boundary_version: boundary_version.to_owned(),
        series: episode
            .series
            .iter()
            .map(|point| ViolationPoint {
                at: Some(timestamp(point.at)),
                actual_bytes: point.actual_bytes,
                predicted_bytes: point.limit_bytes,
            })
            .collect(),
        close_reason: episode.closed.map_or_else(String::new, |(_, closing)| closing.name().to_owned()),
        traceparent: traceparent.to_owned(),
        revision: episode.revision,
        ..Violation::default()
    }
}

/// Where the breaker stands, and why.
pub(super) const fn breaker(state: State) -> (pb::BreakerState, pb::LimitedBy) {
    match state {
        State::Closed => (pb::BreakerState::Closed, pb::LimitedBy::Unspecified),
        State::Open(trip) => (pb::BreakerState::Open, tripped(trip)),
        State::HalfOpen(trip) => (pb::BreakerState::HalfOpen, tripped(trip)),
    }
}

const fn tripped(trip: Trip) -> pb::LimitedBy {
    match trip {
        Trip::ViolationRate => pb::LimitedBy::HostViolationRate,
        Trip::Pressure => pb::LimitedBy::HostPressure,
        Trip::SwapIn => pb::LimitedBy::HostSwapIn,
        Trip::Reserve => pb::LimitedBy::HostReserve,
    }
}

const fn kind(kind: Kind) -> ViolationKind {
    match kind {
        Kind::Forecast => ViolationKind::Forecast,
        Kind::Promise => ViolationKind::Promise,
        Kind::BoundaryUpper | Kind::BoundaryLower => ViolationKind::Boundary,
    }
}

const fn quality(quality: Quality) -> collector::Quality {
    match quality {
        Quality::Stuck => collector::Quality::Stuck,
        Quality::Unknown => collector::Quality::Unknown,
        Quality::Paused => collector::Quality::Paused,
        Quality::Migrating => collector::Quality::Migrating,
        Quality::Stale => collector::Quality::Stale,
        Quality::Hugepages => collector::Quality::Hugepages,
        Quality::PrivateMemory => collector::Quality::PrivateMemory,
        Quality::NoBalloon => collector::Quality::NoBalloon,
        Quality::NoPeriod => collector::Quality::NoPeriod,
        Quality::Live => collector::Quality::Live,
    }
}

const fn term_name(name: TermName) -> pb::TermName {
    match name {
        TermName::Predicted => pb::TermName::Predicted,
        TermName::Headroom => pb::TermName::Headroom,
        TermName::Growth => pb::TermName::Growth,
        TermName::Floor => pb::TermName::Floor,
        TermName::ColdStart => pb::TermName::ColdStart,
        TermName::Quality => pb::TermName::Quality,
        TermName::Backoff => pb::TermName::Backoff,
        TermName::Budget => pb::TermName::Budget,
        TermName::Breaker => pb::TermName::Breaker,
        TermName::Cap => pb::TermName::Cap,
        TermName::Excluded => pb::TermName::Excluded,
        TermName::SlowRaise => pb::TermName::SlowRaise,
        TermName::Quantum => pb::TermName::Quantum,
    }
}

const fn limited_by(limit: LimitedBy) -> pb::LimitedBy {
    match limit {
        LimitedBy::Prediction => pb::LimitedBy::Prediction,
        LimitedBy::HeadroomRatio => pb::LimitedBy::HeadroomRatio,
        LimitedBy::HeadroomBytes => pb::LimitedBy::HeadroomBytes,
        LimitedBy::Growth => pb::LimitedBy::Growth,
        LimitedBy::Floor => pb::LimitedBy::Floor,
        LimitedBy::Cold => pb::LimitedBy::Cold,
        LimitedBy::Warming => pb::LimitedBy::Warming,
        LimitedBy::Quality(Quality::Stuck) => pb::LimitedBy::Stuck,
        LimitedBy::Quality(Quality::Unknown | Quality::Live) => pb::LimitedBy::Unknown,
        LimitedBy::Quality(Quality::Paused) => pb::LimitedBy::Paused,
        LimitedBy::Quality(Quality::Migrating) => pb::LimitedBy::Migrating,
        LimitedBy::Quality(Quality::Stale) => pb::LimitedBy::Stale,
        LimitedBy::Quality(Quality::Hugepages) => pb::LimitedBy::Hugepages,
        LimitedBy::Quality(Quality::PrivateMemory) => pb::LimitedBy::PrivateMemory,
        LimitedBy::Quality(Quality::NoBalloon) => pb::LimitedBy::NoBalloon,
        LimitedBy::Quality(Quality::NoPeriod) => pb::LimitedBy::NoPeriod,
        LimitedBy::Pinned => pb::LimitedBy::Pinned,
        LimitedBy::SwapUnknown => pb::LimitedBy::SwapUnknown,
        LimitedBy::ViolationRate => pb::LimitedBy::ViolationRate,
        LimitedBy::BrokenPromise => pb::LimitedBy::BrokenPromise,
        LimitedBy::ErrorBudget => pb::LimitedBy::ErrorBudget,
        LimitedBy::Host(trip) => tripped(trip),
        LimitedBy::MaxHarvestRatio => pb::LimitedBy::MaxHarvestRatio,
        LimitedBy::Excluded => pb::LimitedBy::Excluded,
        LimitedBy::Signal => pb::LimitedBy::Signal,
        LimitedBy::SlowRaise => pb::LimitedBy::SlowRaise,
        LimitedBy::Quantum => pb::LimitedBy::Quantum,
    }
}
