//! From a raw forecast to what may be harvested: a waterfall whose terms add up to the byte.

use serde::{Deserialize, Serialize};

use crate::{
    backoff,
    boundary::Effective,
    breaker,
    domain::{MIB, Quality, Seconds, Signal, real, whole},
};

mod detail;
#[cfg(test)]
mod tests;

/// What is published is a multiple of this.
pub const QUANTUM: u64 = 64 * MIB;

/// A harvest rises by at most this share of the allocation a minute.
pub const RAISE_PER_MINUTE: f64 = 0.05;

/// A raise counts at most this many intervals, so that a pause in the readings does not save up a leap.
pub const VALID_INTERVALS: f64 = 3.0;

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TermName {
    /// The raw forecast.
    Predicted,
    /// Kept above the forecast.
    Headroom,
    /// Kept because usage grows faster than the forecast knows.
    Growth,
    /// Never leave the VM less.
    Floor,
    /// Too little history.
    ColdStart,
    /// Figures that cannot be trusted.
    Quality,
    /// Broken trust.
    Backoff,
    /// The error budget is spent.
    Budget,
    /// The host's circuit breaker.
    Breaker,
    /// The largest share that may be harvested.
    Cap,
    /// An operator said no.
    Excluded,
    /// Harvest rises slowly.
    SlowRaise,
    /// Rounded down.
    Quantum,
}

impl TermName {
    /// All steps, in order.
    pub const ALL: [Self; 13] = [
        Self::Predicted,
        Self::Headroom,
        Self::Growth,
        Self::Floor,
        Self::ColdStart,
        Self::Quality,
        Self::Backoff,
        Self::Budget,
        Self::Breaker,
        Self::Cap,
        Self::Excluded,
        Self::SlowRaise,
        Self::Quantum,
    ];

    /// The word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predicted => "predicted",
            Self::Headroom => "headroom",
            Self::Growth => "growth",
            Self::Floor => "floor",
            Self::ColdStart => "cold_start",
            Self::Quality => "quality",
            Self::Backoff => "backoff",
            Self::Budget => "budget",
            Self::Breaker => "breaker",
            Self::Cap => "cap",
            Self::Excluded => "excluded",
            Self::SlowRaise => "slow_raise",
            Self::Quantum => "quantum",
        }
    }
}

/// What limits a harvest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitedBy {
    /// Usage that is expected.
    Prediction,
    /// The headroom's share of the prediction.
    HeadroomRatio,
    /// The headroom's least size.
    HeadroomBytes,
    /// Recent growth.
    Growth,
    /// The floor that an operator set.
    Floor,
    /// Not enough history: nothing is harvested.
    Cold,
    /// History grows: a part is harvested.
    Warming,
    /// The VM's figures cannot be trusted.
    Quality(Quality),
    /// Pinned memory, out of a balloon's reach.
    Pinned,
    /// The host swaps and the VM's swap is not known.
    SwapUnknown,
    /// Its violation rate is above twice the target.
    ViolationRate,
    /// A promise was broken badly again.
    BrokenPromise,
    /// The error budget is spent.
    ErrorBudget,
    /// The host's breaker.
    Host(breaker::Trip),
    /// The largest share that an operator allows.
    MaxHarvestRatio,
    /// Excluded by an operator.
    Excluded,
    /// An operator harvests the other signal only.
    Signal,
    /// The speed of raising.
    SlowRaise,
    /// Rounding.
    Quantum,
}

impl LimitedBy {
    /// The word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prediction => "prediction",
            Self::HeadroomRatio => "headroom_ratio",
            Self::HeadroomBytes => "headroom_bytes",
            Self::Growth => "growth",
            Self::Floor => "floor",
            Self::Cold => "cold",
            Self::Warming => "warming",
            Self::Quality(quality) => quality.name(),
            Self::Pinned => "pinned",
            Self::SwapUnknown => "swap_unknown",
            Self::ViolationRate => "violation_rate",
            Self::BrokenPromise => "broken_promise",
            Self::ErrorBudget => "error_budget",
            Self::Host(breaker::Trip::ViolationRate) => "host_violation_rate",
            Self::Host(breaker::Trip::Pressure) => "host_pressure",
            Self::Host(breaker::Trip::SwapIn) => "host_swap_in",
            Self::Host(breaker::Trip::Reserve) => "host_reserve",
            Self::MaxHarvestRatio => "max_harvest_ratio",
            Self::Excluded => "excluded",
            Self::Signal => "signal",
            Self::SlowRaise => "slow_raise",
            Self::Quantum => "quantum",
        }
    }
}

/// Why nothing may be harvested, whatever the forecast says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The VM's quality does not allow it.
    Quality(Quality),
    /// The guest has not refreshed its statistics for three periods.
    StaleStatistics,
    /// The signal has not been read yet, or not now.
    NoReading,
    /// The memory is out of a balloon's reach.
    Pinned,
    /// The host swaps and the VM's swap is not known.
    SwapUnknown,
}

/// How much history there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    /// Seconds of history.
    pub age: Seconds,
    /// Readings in it.
    pub readings: u32,
    /// The share of the harvest that this allows, 0..=1.
    pub allowance: f64,
    /// Until something may be harvested; 0 where it may be already.
    pub wait: Seconds,
}

/// What was harvested before, unrounded: it bounds what may be harvested now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// When; `None` before the first time.
    pub at: Option<Seconds>,
    /// How much.
    pub bytes: u64,
}

/// Everything that a harvest follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Which harvest: `rss` gives harvestable, `demand` reclaimable.
    pub signal: Signal,
    /// Now.
    pub at: Seconds,
    /// The sampling interval.
    pub interval: Seconds,
    /// What the VM holds.
    pub allocated: u64,
    /// The allocation for `rss`, min(rss, allocated) for `demand`; 0 where that is not known.
    pub start: u64,
    /// The raw forecast.
    pub predicted: Option<u64>,
    /// Usage now, continued as it grew of late to the end of the horizon.
    pub growing_to: u64,
    /// What operators set.
    pub effective: Effective,
    /// How much history there is.
    pub history: History,
    /// Why nothing may be harvested.
    pub closed: Option<Closed>,
    /// The backoff that runs, and until when.
    pub backoff: Option<(backoff::Cause, Seconds)>,
    /// Whether the error budget is spent.
    pub budget_spent: bool,
    /// The host's breaker.
    pub breaker: breaker::State,
    /// What was harvested before.
    pub raised: Raised,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Which.
    pub name: TermName,
    /// What it takes off.
    pub bytes: u64,
    /// Why; `None` where it takes nothing.
    pub limited_by: Option<LimitedBy>,
}

/// Start minus every term is exactly the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Waterfall {
    /// What it starts from.
    pub start: u64,
    /// All steps, in order.
    pub terms: [Term; 13],
    /// What may be harvested.
    pub result: u64,
    /// What it was worked out from.
    pub inputs: Inputs,
}

impl Waterfall {
    /// Works out what may be harvested.
    #[must_use]
    pub fn of(inputs: Inputs) -> Self {
        let mut left = inputs.start;
        let terms = TermName::ALL.map(|name| {
            let (wanted, reason) = wanted(name, left, &inputs);
            let bytes = wanted.min(left);
            left -= bytes;
            Term { name, bytes, limited_by: (bytes > 0).then_some(reason) }
        });
        Self { start: inputs.start, terms, result: left, inputs }
    }

    /// One step by its name.
    #[must_use]
    pub const fn term(&self, name: TermName) -> &Term {
        &self.terms[name as usize]
    }

    /// What usage may not exceed while this harvest is open; `None` where nothing is harvested, hence promised.
    #[must_use]
    pub fn promise(&self) -> Option<u64> {
        (self.result > 0).then(|| self.start - self.result)
    }

    /// The result before rounding: what the next raise starts from.
    #[must_use]
    pub fn raised(&self) -> Raised {
        Raised { at: Some(self.inputs.at), bytes: self.result + self.term(TermName::Quantum).bytes }
    }

    /// What takes most off besides the prediction.
    #[must_use]
    pub fn limited_by(&self) -> Option<LimitedBy> {
        self.terms[1..].iter().max_by_key(|term| term.bytes).and_then(|term| term.limited_by)
    }

    /// When something may be harvested; `None` where history is no hindrance, and where none has begun: without a
    /// reading nobody knows when there will be enough.
    #[must_use]
    pub fn warm_at(&self) -> Option<Seconds> {
        let History { wait, readings, .. } = self.inputs.history;
        (wait > 0.0 && readings > 0).then_some(self.inputs.at + wait)
    }

    /// Why a step takes what it takes, in one sentence; empty where it takes nothing.
    #[must_use]
    pub fn detail(&self, name: TermName) -> String {
        self.term(name).limited_by.map_or_else(String::new, |reason| detail::sentence(reason, &self.inputs))
    }
}

/// What a step would take off `left`, before it is clamped to it, and why.
fn wanted(name: TermName, left: u64, inputs: &Inputs) -> (u64, LimitedBy) {
    let effective = &inputs.effective;
    let predicted = inputs.predicted.unwrap_or(0);
    let down_to = |most: u64| left.saturating_sub(most);
    let all_if = |condition: bool| if condition { left } else { 0 };
    match name {
        TermName::Predicted => (predicted, LimitedBy::Prediction),
        TermName::Headroom => headroom(predicted, effective),
        TermName::Growth => (inputs.growing_to.saturating_sub(predicted), LimitedBy::Growth),
        TermName::Floor => {
            (down_to(inputs.start.saturating_sub(effective.floor_bytes.value)), LimitedBy::Floor)
        }
        TermName::ColdStart => {
            let allowed = left - share(left, 1.0 - inputs.history.allowance);
            (down_to(allowed), if allowed == 0 { LimitedBy::Cold } else { LimitedBy::Warming })
        }
        TermName::Quality => match inputs.closed {
            Some(closed) => (left, closed_by(closed)),
            None => (all_if(inputs.predicted.is_none()), LimitedBy::Quality(Quality::Unknown)),
        },
        TermName::Backoff => match inputs.backoff {
            Some((backoff::Cause::BrokenPromise, _)) => (left, LimitedBy::BrokenPromise),
            running => (all_if(running.is_some()), LimitedBy::ViolationRate),
        },
        TermName::Budget => (all_if(inputs.budget_spent), LimitedBy::ErrorBudget),
        TermName::Breaker => match inputs.breaker {
            breaker::State::Open(trip) => (down_to(inputs.raised.bytes), LimitedBy::Host(trip)),
            breaker::State::HalfOpen(_) | breaker::State::Closed => (0, LimitedBy::Quantum),
        },
        TermName::Cap => {
            let most = inputs.allocated - share(inputs.allocated, 1.0 - effective.max_harvest_ratio.value);
            (down_to(most), LimitedBy::MaxHarvestRatio)
        }
        TermName::Excluded => {
            let other = effective.signal.value.is_some_and(|only| only != inputs.signal);
            let reason = if effective.excluded.value { LimitedBy::Excluded } else { LimitedBy::Signal };
            (all_if(effective.excluded.value || other), reason)
        }
        TermName::SlowRaise => (down_to(most_after_raise(inputs)), LimitedBy::SlowRaise),
        TermName::Quantum => (left % QUANTUM, LimitedBy::Quantum),
    }
}

fn headroom(predicted: u64, effective: &Effective) -> (u64, LimitedBy) {
    let by_ratio = whole(real(predicted) * effective.headroom_ratio.value);
    if by_ratio > effective.headroom_bytes.value {
        (by_ratio, LimitedBy::HeadroomRatio)
    } else {
        (effective.headroom_bytes.value, LimitedBy::HeadroomBytes)
    }
}

fn closed_by(closed: Closed) -> LimitedBy {
    match closed {
        Closed::Quality(quality) => LimitedBy::Quality(quality),
        Closed::StaleStatistics => LimitedBy::Quality(Quality::Stale),
        Closed::NoReading => LimitedBy::Quality(Quality::Unknown),
        Closed::Pinned => LimitedBy::Pinned,
        Closed::SwapUnknown => LimitedBy::SwapUnknown,
    }
}

/// The share of `bytes`, rounded up; a ratio that is no number takes everything.
fn share(bytes: u64, ratio: f64) -> u64 {
    if ratio.is_nan() { bytes } else { whole(real(bytes) * ratio.clamp(0.0, 1.0)).min(bytes) }
}

fn most_after_raise(inputs: &Inputs) -> u64 {
    let passed = inputs.raised.at.map_or(0.0, |at| inputs.at - at);
    let counted = passed.min(VALID_INTERVALS * inputs.interval).max(0.0);
    let pace = if matches!(inputs.breaker, breaker::State::HalfOpen(_)) { 0.5 } else { 1.0 };
    let raise = real(inputs.allocated) * RAISE_PER_MINUTE * pace * counted / 60.0;
    inputs.raised.bytes.saturating_add(whole(raise.floor()))
}
