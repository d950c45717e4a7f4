//! One VM from reading to harvest: both signals, what interrupts them, and what follows for the outside.

use serde::{Deserialize, Serialize};

use crate::{
    boundary::Effective,
    breaker,
    cold_start::ColdStart,
    coverage::Judged,
    domain::{Quality, Reading, Refused, Seconds, Signal},
    guard::{Closed, VALID_INTERVALS, Waterfall},
    model::{Current, Forecast, Model, Prices},
    violation::{Change, Closing, Episode},
};

pub mod change_point;
#[cfg(test)]
mod tests;
pub mod track;

use change_point::{ChangePoint, Identity};
use track::{Moment, Track};

/// What a VM's harvest depends on besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostContext {
    /// Whether the host has moved memory into or out of swap of late: then a VM whose swap is not known is not harvested.
    pub swapping: bool,
    /// The host's breaker.
    pub breaker: breaker::State,
    /// Whether the error budget that covers this VM is spent.
    pub budget_spent: bool,
    /// How much history a VM needs.
    pub cold_start: ColdStart,
}

/// One signal after a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalOutcome {
    /// Usage as it is judged, `None` where it was not read.
    pub usage: Option<u64>,
    /// The raw forecast in force, `None` before the first.
    pub forecast: Option<Forecast>,
    /// What was judged at this reading.
    pub judged: Judged,
    /// What may be harvested, and why no more.
    pub waterfall: Waterfall,
}

/// A VM after a reading, or after none came.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The resident set.
    pub rss: SignalOutcome,
    /// What the guest needs.
    pub demand: SignalOutcome,
    /// How far the figures can be trusted.
    pub quality: Quality,
    /// Memory not touched and not expected to be.
    pub harvestable: u64,
    /// What a balloon could add.
    pub reclaimable: u64,
    /// Past it both are 0.
    pub valid_until: Seconds,
    /// When something can be harvested at the earliest; `None` where history is no hindrance.
    pub warm_at: Option<Seconds>,
    /// What interrupted the VM just now.
    pub change_point: Option<ChangePoint>,
    /// What happened to violations.
    pub violations: Vec<Change>,
}

impl Outcome {
    /// One signal's part.
    #[must_use]
    pub const fn signal(&self, signal: Signal) -> &SignalOutcome {
        match signal {
            Signal::Rss => &self.rss,
            Signal::Demand => &self.demand,
        }
    }
}

/// Everything that is remembered of one VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState<M = Current> {
    rss: Track<M>,
    demand: Track<M>,
    latest: Option<Reading>,
    stats_seen: Option<Seconds>,
}

impl<M: Model + Default> Default for VmState<M> {
    fn default() -> Self {
        Self::of(M::default(), M::default())
    }
}

impl<M: Model> VmState<M> {
    /// A VM without history, with a model of each signal.
    #[must_use]
    pub fn of(rss: M, demand: M) -> Self {
        Self {
            rss: Track::of(Signal::Rss, rss),
            demand: Track::of(Signal::Demand, demand),
            latest: None,
            stats_seen: None,
        }
    }

    /// Takes the next reading.
    ///
    /// # Errors
    /// Refuses a reading that is a duplicate, out of order or without an allocation; the state is then unchanged.
    /// Whether a time lies in the future is the caller's to say: only it knows the clock.
    pub fn observe(
        &mut self,
        reading: &Reading,
        effective: &Effective,
        host: &HostContext,
        prices: &mut Prices,
    ) -> Result<Outcome, Refused> {
        let allocated = self.check(reading)?;
        let mut violations = Vec::new();
        let change_point = self.latest.as_ref().and_then(|before| Identity::of(before).changed(reading));
        if let Some(change) = change_point {
            for track in [&mut self.rss, &mut self.demand] {
                track.interrupt(change, reading.at, &mut violations);
            }
        }
        let moment = Moment { at: reading.at, interval: reading.interval, allocated, effective, host };
        let fresh = self.is_fresh(reading);
        let rss = reading.usage(Signal::Rss).filter(|_| reading.quality.allows(Signal::Rss));
        let demand = reading.usage(Signal::Demand).filter(|_| reading.quality.allows(Signal::Demand));
        let judged_rss = self.rss.take(&moment, rss, prices, &mut violations);
        let demand_interval = reading.stats_period.unwrap_or(0.0).max(reading.interval);
        let demand_moment = Moment { interval: demand_interval, ..moment };
        let judged_demand =
            self.demand.take(&demand_moment, demand.filter(|_| fresh), prices, &mut violations);

        let closed_rss = closed_rss(reading, host);
        let closed_demand = self.closed_demand(reading, closed_rss, demand);
        let start_demand = reading.usage_now().map_or(0, |rss| rss.min(allocated));
        let rss = SignalOutcome {
            usage: reading.usage(Signal::Rss),
            forecast: self.rss.forecast(),
            judged: judged_rss,
            waterfall: self.rss.publish(&moment, allocated, closed_rss),
        };
        let demand = SignalOutcome {
            usage: reading.usage(Signal::Demand),
            forecast: self.demand.forecast(),
            judged: judged_demand,
            waterfall: self.demand.publish(&moment, start_demand, closed_demand),
        };
        self.latest = Some(reading.clone());
        Ok(outcome(rss, demand, reading.quality, reading, change_point, violations))
    }

    /// What holds at `at` when the host was read but this VM was not: after three intervals the VM is stale and
    /// nothing may be harvested. `None` while its last outcome is still valid, or before its first reading.
    pub fn absent(&mut self, at: Seconds, effective: &Effective, host: &HostContext) -> Option<Outcome> {
        let latest = self.latest.as_ref()?;
        if at <= latest.at + VALID_INTERVALS * latest.interval {
            return None;
        }
        let moment = Moment { at, interval: latest.interval, allocated: latest.allocated?, effective, host };
        let closed = Some(Closed::Quality(Quality::Stale));
        let start_demand = latest.usage_now()?;
        let signal = |track: &mut Track<M>, start| SignalOutcome {
            usage: None,
            forecast: track.forecast(),
            judged: Judged::default(),
            waterfall: track.publish(&moment, start, closed),
        };
        let rss = signal(&mut self.rss, moment.allocated);
        let demand = signal(&mut self.demand, start_demand);
        let gone = Reading { at, ..latest.clone() };
        Some(outcome(rss, demand, Quality::Stale, &gone, None, Vec::new()))
    }

    /// Closes every open violation of a VM that is gone.
    pub fn vanish(&mut self, at: Seconds) -> Vec<Change> {
        let mut violations = Vec::new();
        for track in [&mut self.rss, &mut self.demand] {
            track.close_all(at, Closing::VmGone, &mut violations);
        }
        violations
    }

    /// One signal's state, for what is told of it: coverage, open violations.
    #[must_use]
    pub const fn track(&self, signal: Signal) -> &Track<M> {
        match signal {
            Signal::Rss => &self.rss,
            Signal::Demand => &self.demand,
        }
    }

    /// Violations that are open, of both signals.
    #[must_use]
    pub fn open_violations(&self) -> usize {
        self.rss.open_violations().count() + self.demand.open_violations().count()
    }

    /// Lets go of open violations, untold, unless `keep` says so: for a state that comes back and a ledger that went on.
    pub fn retain_open(&mut self, mut keep: impl FnMut(&mut Episode) -> bool) {
        self.rss.retain_open(&mut keep);
        self.demand.retain_open(&mut keep);
    }

    fn check(&self, reading: &Reading) -> Result<u64, Refused> {
        if !(reading.at.is_finite() && reading.interval.is_finite() && reading.interval > 0.0) {
            return Err(Refused::NotATime);
        }
        if let Some(before) = &self.latest {
            if reading.at < before.at {
                return Err(Refused::OutOfOrder);
            }
            if reading.at <= before.at {
                return Err(Refused::Duplicate);
            }
        }
        match reading.allocated {
            None => Err(Refused::AbsentAllocation),
            Some(0) => Err(Refused::ZeroAllocation),
            Some(allocated) => Ok(allocated),
        }
    }

    /// Whether the guest's statistics are new. A source that gives no time for them gives new ones with each reading.
    fn is_fresh(&mut self, reading: &Reading) -> bool {
        let fresh = reading.stats_updated_at.is_none() || reading.stats_updated_at != self.stats_seen;
        self.stats_seen = reading.stats_updated_at;
        fresh
    }

    fn closed_demand(
        &self,
        reading: &Reading,
        closed_rss: Option<Closed>,
        demand: Option<u64>,
    ) -> Option<Closed> {
        let age = reading.stats_updated_at.map(|updated| reading.at - updated);
        let period = reading.stats_period.unwrap_or(0.0).max(reading.interval);
        if !reading.quality.allows(Signal::Demand) {
            Some(Closed::Quality(reading.quality))
        } else if closed_rss.is_some() {
            closed_rss
        } else if reading.pinned {
            Some(Closed::Pinned)
        } else if age.is_some_and(|age| age > VALID_INTERVALS * period) {
            Some(Closed::StaleStatistics)
        } else if demand.is_none() || self.demand.forecast().is_none() {
            Some(Closed::NoReading)
        } else {
            None
        }
    }
}

impl Reading {
    /// Resident set with swap, at most the allocation.
    fn usage_now(&self) -> Option<u64> {
        self.usage(Signal::Rss)
    }
}

fn closed_rss(reading: &Reading, host: &HostContext) -> Option<Closed> {
    if !reading.quality.allows(Signal::Rss) {
        Some(Closed::Quality(reading.quality))
    } else if reading.rss.is_none() {
        Some(Closed::NoReading)
    } else if host.swapping && reading.swap.is_none() {
        Some(Closed::SwapUnknown)
    } else {
        None
    }
}

fn outcome(
    rss: SignalOutcome,
    demand: SignalOutcome,
    quality: Quality,
    reading: &Reading,
    change_point: Option<ChangePoint>,
    violations: Vec<Change>,
) -> Outcome {
    Outcome {
        harvestable: rss.waterfall.result,
        reclaimable: demand.waterfall.result,
        warm_at: rss.waterfall.warm_at(),
        valid_until: reading.at + VALID_INTERVALS * reading.interval,
        rss,
        demand,
        quality,
        change_point,
        violations,
    }
}
