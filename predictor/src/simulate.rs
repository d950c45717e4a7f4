//! What a boundary would have gained and cost: stored windows through the very state that runs live, once under the
//! boundaries as they are and once as they would be.
//!
//! A window is a reading at its end: the allocation then, and the highest usage in it. What is harvested then is held to
//! account by the windows after it. Where horizon, target and fairness stay, so do the raw forecasts: those that were
//! recorded are played back, the highest of each window. Where one of them changes, the model forecasts anew for both
//! sides, so that like is compared with like. The core is pure; [`run`] brings it its windows.

use memharvest_proto::registry::v1::VmRollup;

use crate::boundary::{Effective, Fairness};
use crate::breaker;
use crate::cold_start::ColdStart;
use crate::convert;
use crate::domain::{Quality, Reading, Seconds, Signal};
use crate::model::{Model, Prices, choice::Choice};
use crate::vm::{HostContext, VmState};

pub mod asked;
mod effect;
mod recorded;
pub mod run;
#[cfg(test)]
mod tests;

use effect::Tally;
pub use effect::{Course, Effect};
use recorded::Recorded;

/// One machine over one window of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// When it ends.
    pub end: Seconds,
    /// How long it is, above 0.
    pub length: Seconds,
    /// The worst quality in it.
    pub quality: Quality,
    /// What the machine held at its end.
    pub allocated: Option<u64>,
    /// The highest resident set in it.
    pub rss: Option<u64>,
    /// The highest demand in it.
    pub demand: Option<u64>,
    /// The highest raw forecast of the resident set in it.
    pub predicted_rss: Option<u64>,
    /// The highest raw forecast of demand in it.
    pub predicted_demand: Option<u64>,
}

impl Window {
    /// The window of a roll-up; `None` for one that has no time.
    #[must_use]
    pub fn of(rollup: &VmRollup) -> Option<Self> {
        let length = convert::span(rollup.window.as_ref()?);
        let end = convert::seconds(rollup.window_start.as_ref()?) + length;
        (length > 0.0).then(|| Self {
            end,
            length,
            quality: convert::quality(rollup.quality()),
            allocated: rollup.allocated_bytes,
            rss: rollup.rss_max_bytes,
            demand: rollup.demand_max_bytes,
            predicted_rss: rollup.predicted_rss_bytes,
            predicted_demand: rollup.predicted_demand_bytes,
        })
    }

    const fn reading(&self) -> Reading {
        Reading {
            at: self.end,
            interval: self.length,
            allocated: self.allocated,
            rss: self.rss,
            swap: None,
            demand: self.demand,
            stats_updated_at: None,
            stats_period: None,
            quality: self.quality,
            pinned: false,
            generation: None,
            uptime: None,
            guest_counter: None,
        }
    }
}

/// A machine, its history, and what holds for it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its UUID.
    pub vm_id: String,
    /// Its name.
    pub name: String,
    /// The host that it was on last.
    pub host_id: String,
    /// Its windows in the order of time.
    pub windows: Vec<Window>,
    /// What holds for it now.
    pub before: Effective,
    /// What would hold.
    pub after: Effective,
}

impl Machine {
    /// Whether its raw forecasts have to be made: they would be others, or there are none.
    #[must_use]
    pub fn is_forecast_anew(&self, terms: &Terms) -> bool {
        terms.unforecast || self.forecasts_change()
    }

    fn forecasts_change(&self) -> bool {
        let terms = |effective: &Effective| {
            let (horizon, target) = (effective.horizon.value, effective.target_violation_rate.value);
            (horizon.to_bits(), target.to_bits(), effective.fairness.value)
        };
        terms(&self.before) != terms(&self.after)
    }

    /// Whether its forecasts hang on those of others.
    fn shares_a_price(&self) -> bool {
        let alone = |effective: &Effective| effective.fairness.value == Fairness::PerVm;
        !(alone(&self.before) && alone(&self.after))
    }
}

/// What all machines of a simulation share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Windows count that end after this time; those before warm the machines up.
    pub from: Seconds,
    /// And until this time.
    pub to: Seconds,
    /// History that a machine needs before anything is harvested from it.
    pub cold_start: Seconds,
    /// What forecasts anew where that is needed.
    pub model: Choice,
    /// No forecast was recorded: all are made anew.
    pub unforecast: bool,
}

/// Simulates machines. Those whose price is shared by fairness share it among these.
#[must_use]
pub fn simulate(machines: &[Machine], terms: &Terms) -> (Vec<Effect>, Course) {
    let mut course = Course::over(terms);
    let mut tallies: Vec<[Tally; 2]> = vec![[Tally::default(); 2]; machines.len()];
    let mut together = Vec::new();
    for (at, machine) in machines.iter().enumerate() {
        if machine.is_forecast_anew(terms) && machine.shares_a_price() {
            together.push(at);
        } else {
            tallies[at] = alone(machine, terms, &mut course);
        }
    }
    for side in [0, 1] {
        let prices = &mut Prices::default();
        let members: Vec<&Machine> = together.iter().map(|at| &machines[*at]).collect();
        let found = in_time(&members, side, terms, prices, &mut course);
        for (at, tally) in together.iter().zip(found) {
            tallies[*at][side] = tally;
        }
    }
    let effects = machines.iter().zip(tallies).map(|(machine, sides)| Effect::of(machine, sides)).collect();
    (effects, course)
}

/// Both sides of a machine that shares no price.
fn alone(machine: &Machine, terms: &Terms, course: &mut Course) -> [Tally; 2] {
    let anew = machine.is_forecast_anew(terms);
    [0, 1].map(|side| {
        if anew {
            let fresh = VmState::of(terms.model.build(), terms.model.build());
            Run::new(machine, side, fresh).replay(terms, course)
        } else {
            let played = |signal| Recorded::of(&machine.windows, signal);
            let state = VmState::of(played(Signal::Rss), played(Signal::Demand));
            Run::new(machine, side, state).replay(terms, course)
        }
    })
}

/// One side of machines that share a price: all of them step by step through time.
fn in_time(
    machines: &[&Machine],
    side: usize,
    terms: &Terms,
    prices: &mut Prices,
    course: &mut Course,
) -> Vec<Tally> {
    let mut runs: Vec<_> = machines
        .iter()
        .map(|machine| Run::new(machine, side, VmState::of(terms.model.build(), terms.model.build())))
        .collect();
    let mut order: Vec<(Seconds, usize, usize)> = machines
        .iter()
        .enumerate()
        .flat_map(|(at, machine)| {
            machine.windows.iter().enumerate().map(move |(row, window)| (window.end, at, row))
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (_, at, row) in order {
        let window = &machines[at].windows[row];
        runs[at].step(window, terms, prices, course);
    }
    runs.into_iter().map(|run| run.tally).collect()
}

/// One side of one machine.
struct Run<'a, M> {
    machine: &'a Machine,
    effective: &'a Effective,
    side: usize,
    state: VmState<M>,
    tally: Tally,
}

impl<'a, M: Model> Run<'a, M> {
    const fn new(machine: &'a Machine, side: usize, state: VmState<M>) -> Self {
        let effective = if side == 0 { &machine.before } else { &machine.after };
        Self { machine, effective, side, state, tally: Tally::ZERO }
    }

    fn replay(mut self, terms: &Terms, course: &mut Course) -> Tally {
        let mut prices = Prices::default();
        for window in &self.machine.windows {
            self.step(window, terms, &mut prices, course);
        }
        self.tally
    }

    fn step(&mut self, window: &Window, terms: &Terms, prices: &mut Prices, course: &mut Course) {
        let host = HostContext {
            swapping: false,
            breaker: breaker::State::default(),
            budget_spent: false,
            cold_start: ColdStart::first_harvest_after(terms.cold_start, window.length),
        };
        let seen = self.state.observe(&window.reading(), self.effective, &host, prices);
        if window.end <= terms.from || window.end > terms.to {
            return;
        }
        // A window that the state refuses, such as one without an allocation, promises nothing.
        let harvest = seen.as_ref().map_or(0, |outcome| outcome.harvestable);
        self.tally.add(window, self.effective, seen.as_ref().ok());
        course.add(window, self.side, harvest);
    }
}
