//! Readings of a trace through the very state that runs live.

use std::ops::Range;

use super::{Case, Series, series::Row};
use crate::boundary::{Boundary, Effective, Fairness, Source};
use crate::breaker;
use crate::cold_start::ColdStart;
use crate::domain::{Quality, Reading, Signal};
use crate::model::{Model, Prices, Terms};
use crate::violation::{Change, Kind};
use crate::vm::{HostContext, Outcome, VmState};

/// What came of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Index of the machine.
    pub(super) vm: usize,
    /// Index of the row.
    pub(super) row: usize,
    /// The raw forecast.
    pub(super) predicted: u64,
    /// What was left to harvest after every guard; `None` where nothing was guarded.
    pub(super) guarded: Option<Guarded>,
}

/// What the guards made of a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Guarded {
    /// What was left to harvest.
    pub(super) harvestable: u64,
    /// Whether a backoff ran.
    pub(super) backed_off: bool,
    /// Whether a promise was found broken that was not before.
    pub(super) promise_broken: bool,
}

/// Steps the machines `vms` through their readings and shows each to `see`. Machines that share a price are stepped
/// together in the order of time; the others one after the other, each with its own state in the processor's cache.
pub(super) fn replay<M: Model>(
    case: &Case<'_, M>,
    vms: Range<usize>,
    cold_start: ColdStart,
    mut see: impl FnMut(&Seen),
) {
    let effective = effective(&case.terms);
    let host =
        HostContext { swapping: false, breaker: breaker::State::default(), budget_spent: false, cold_start };
    let mut prices = Prices::default();
    let fresh = |vm| match case.terms.signal {
        Signal::Rss => VmState::of((case.make)(Some(vm)), (case.make)(None)),
        Signal::Demand => VmState::of((case.make)(None), (case.make)(Some(vm))),
    };
    each_row(case, vms, fresh, |vm, row, state| {
        let reading = reading(case.series, &case.series.rows()[row]);
        if let Ok(outcome) = state.observe(&reading, &effective, &host, &mut prices)
            && let Some(seen) = seen(&outcome, case.terms.signal, vm, row)
        {
            see(&seen);
        }
    });
}

/// Calls `step` with machine, row and the machine's state for every row of the machines `vms`.
pub(super) fn each_row<M, S>(
    case: &Case<'_, M>,
    vms: Range<usize>,
    fresh: impl Fn(usize) -> S,
    mut step: impl FnMut(usize, usize, &mut S),
) {
    let series = case.series;
    if case.terms.fairness == Fairness::PerVm {
        for vm in vms {
            let mut state = fresh(vm);
            for row in series.vms()[vm].rows.clone() {
                step(vm, row, &mut state);
            }
        }
    } else {
        let machines = series.machines();
        let mut states: Vec<S> = (0..series.vms().len()).map(fresh).collect();
        for row in series.in_time() {
            let vm = machines[row] as usize;
            step(vm, row, &mut states[vm]);
        }
    }
}

/// What operators would have set.
fn effective(terms: &Terms) -> Effective {
    let boundary = Boundary {
        target_violation_rate: Some(terms.target),
        fairness: Some(terms.fairness),
        horizon: Some(terms.horizon),
        signal: Some(terms.signal),
        ..Boundary::default()
    };
    Effective::merged([(Source::Fleet, &boundary)])
}

/// A reading in which only the signal under test is known. For `demand` the whole allocation is taken to be resident, so
/// that what is harvested is measured against the allocation, as it is for `rss`: a trace says nothing of how much of
/// its `used_bytes` the host has backed.
fn reading(series: &Series, row: &Row) -> Reading {
    let (rss, demand, quality) = match series.signal() {
        Signal::Rss => (row.usage, None, Quality::NoBalloon),
        Signal::Demand => (row.allocated, Some(row.usage), Quality::Live),
    };
    Reading {
        at: row.at,
        interval: series.interval(),
        allocated: Some(row.allocated),
        rss: Some(rss),
        swap: None,
        demand,
        stats_updated_at: None,
        stats_period: None,
        quality,
        pinned: false,
        generation: None,
        uptime: None,
        guest_counter: None,
    }
}

fn seen(outcome: &Outcome, signal: Signal, vm: usize, row: usize) -> Option<Seen> {
    let part = outcome.signal(signal);
    let broken = |change: &Change| matches!(change, Change::Opened(episode) if episode.kind == Kind::Promise && episode.signal == signal);
    Some(Seen {
        vm,
        row,
        predicted: part.forecast?.predicted_bytes,
        guarded: Some(Guarded {
            harvestable: part.waterfall.result,
            backed_off: part.waterfall.inputs.backoff.is_some(),
            promise_broken: outcome.violations.iter().any(broken),
        }),
    })
}
