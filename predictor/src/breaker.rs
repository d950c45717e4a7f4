//! The host's circuit breaker: when the host is in trouble, no harvest on it may rise and no new lease is given.

use serde::{Deserialize, Serialize};

use crate::{
    coverage::{Coverage, Judged},
    domain::{Seconds, real},
};

/// Share of time in which some task may wait for memory.
pub const SOME_PRESSURE: f64 = 0.01;

/// Share of time in which all tasks may wait for memory.
pub const FULL_PRESSURE: f64 = 0.001;

/// Share of the host's memory that stays available, unless set otherwise.
pub const RESERVE: f64 = 0.05;

/// Swapping in is sustained after this long and three readings in a row.
const SUSTAINED: Seconds = 30.0;

/// What opened the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Trip {
    /// The host's rolling violation rate is above three times the target, and there was a new miss.
    ViolationRate,
    /// Tasks wait for memory.
    Pressure,
    /// The host keeps swapping in.
    SwapIn,
    /// Less memory is available than the reserve.
    Reserve,
}

/// Where the breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Harvest may rise.
    #[default]
    Closed,
    /// Harvest may not rise; no new lease.
    Open(Trip),
    /// One clean horizon has passed: harvest may rise at half the usual speed; another clean horizon closes it.
    HalfOpen(Trip),
}

/// One sample of a host's own memory. Absent figures trip nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostSample {
    /// When it was taken.
    pub at: Seconds,
    /// Physical memory.
    pub total: Option<u64>,
    /// Memory that new work could get without swapping.
    pub available: Option<u64>,
    /// Bytes or pages swapped in since boot.
    pub swap_in: Option<u64>,
    /// Unused swap space.
    pub swap_free: Option<u64>,
    /// Share of the last ten seconds in which some task waited for memory, 0..=1.
    pub pressure_some: Option<f64>,
    /// Share of the last ten seconds in which all tasks waited for memory, 0..=1.
    pub pressure_full: Option<f64>,
}

/// The breaker of one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    state: State,
    tripped_at: Seconds,
    coverage: Coverage,
    swap_in: Option<u64>,
    swap_free: Option<u64>,
    swapping_in: Option<(Seconds, u32)>,
    swapped_at: Option<Seconds>,
    latest: Seconds,
}

impl Breaker {
    /// Takes the host's sample and what was judged of all its VMs at this reading; `reserve` is a share of the total.
    pub fn observe(&mut self, sample: &HostSample, judged: &Judged, terms: &BreakerTerms) -> State {
        self.latest = sample.at;
        self.coverage.observe(sample.at, judged);
        self.watch_swap(sample);
        if let Some(trip) = self.trip(sample, judged, terms) {
            self.state = State::Open(trip);
            self.tripped_at = sample.at;
            return self.state;
        }
        let clean = sample.at - self.tripped_at;
        self.state = match self.state {
            State::Open(trip) if clean >= terms.horizon => State::HalfOpen(trip),
            State::HalfOpen(_) if clean >= 2.0 * terms.horizon => State::Closed,
            state => state,
        };
        self.state
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How the forecasts of the host's VMs fared.
    #[must_use]
    pub const fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Whether the host has moved anything into or out of swap within the last `horizon`.
    #[must_use]
    pub fn swapping(&self, horizon: Seconds) -> bool {
        self.swapped_at.is_some_and(|at| self.latest - at <= horizon)
    }

    fn trip(&self, sample: &HostSample, judged: &Judged, terms: &BreakerTerms) -> Option<Trip> {
        let above = |ratio: Option<f64>, most: f64| ratio.is_some_and(|ratio| ratio > most);
        if spendable(sample.total, sample.available, terms.reserve) == Some(0) {
            Some(Trip::Reserve)
        } else if above(sample.pressure_some, SOME_PRESSURE) || above(sample.pressure_full, FULL_PRESSURE) {
            Some(Trip::Pressure)
        } else if self.swapping_in.is_some_and(|(since, times)| times >= 3 && sample.at - since >= SUSTAINED)
        {
            Some(Trip::SwapIn)
        } else if judged.any_missed() && self.coverage.exceeds(3.0, terms.target) {
            Some(Trip::ViolationRate)
        } else {
            None
        }
    }

    fn watch_swap(&mut self, sample: &HostSample) {
        let grew = matches!((self.swap_in, sample.swap_in), (Some(before), Some(now)) if now > before);
        let shrank = matches!((self.swap_free, sample.swap_free), (Some(before), Some(now)) if now < before);
        self.swapping_in = match (grew, self.swapping_in) {
            (true, Some((since, times))) => Some((since, times.saturating_add(1))),
            (true, None) => Some((sample.at, 1)),
            (false, _) => None,
        };
        if grew || shrank {
            self.swapped_at = Some(sample.at);
        }
        self.swap_in = sample.swap_in;
        self.swap_free = sample.swap_free;
    }
}

/// What the breaker is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerTerms {
    /// A clean horizon half-opens it.
    pub horizon: Seconds,
    /// The host's target violation rate.
    pub target: f64,
    /// Share of the host's memory that stays available.
    pub reserve: f64,
}

impl Default for BreakerTerms {
    fn default() -> Self {
        Self { horizon: 900.0, target: 0.01, reserve: RESERVE }
    }
}

/// The host's available memory above its reserve: no more than this may ever be spent, whatever its VMs yield.
/// `None` where the host's memory is not known, which counts as nothing to spend.
#[must_use]
pub fn spendable(total: Option<u64>, available: Option<u64>, reserve: f64) -> Option<u64> {
    let kept = crate::domain::whole(real(total?) * reserve);
    Some(available?.saturating_sub(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn calm(at: Seconds) -> HostSample {
        HostSample { at, total: Some(100 * GIB), available: Some(50 * GIB), ..HostSample::default() }
    }

    fn states(samples: &[HostSample]) -> Vec<State> {
        let mut breaker = Breaker::default();
        let see = |sample| breaker.observe(sample, &Judged::default(), &BreakerTerms::default());
        samples.iter().map(see).collect()
    }

    #[test]
    fn pressure_opens_it_and_two_clean_horizons_close_it() {
        let pressed = HostSample { pressure_some: Some(0.02), ..calm(0.0) };
        let open = State::Open(Trip::Pressure);
        assert_eq!(
            states(&[pressed, calm(899.0), calm(900.0), calm(1799.0), calm(1800.0)]),
            [open, open, State::HalfOpen(Trip::Pressure), State::HalfOpen(Trip::Pressure), State::Closed]
        );
        let all_wait = HostSample { pressure_full: Some(0.002), ..calm(0.0) };
        assert_eq!(states(&[all_wait]), [open]);
    }

    #[test]
    fn little_available_memory_opens_it_and_unknown_memory_does_not() {
        let low = HostSample { available: Some(4 * GIB), ..calm(0.0) };
        assert_eq!(states(&[low]), [State::Open(Trip::Reserve)]);
        assert_eq!(states(&[HostSample::default()]), [State::Closed]);
        assert_eq!(spendable(Some(100), Some(50), 0.05), Some(45));
        assert_eq!(spendable(None, Some(50), 0.05), None);
    }

    #[test]
    fn only_sustained_swapping_in_opens_it() {
        let swaps = |at: u32, total| HostSample { swap_in: Some(total), ..calm(f64::from(at)) };
        let once = [swaps(0, 5), swaps(10, 6), swaps(20, 6), swaps(30, 7)];
        assert_eq!(states(&once), [State::Closed; 4]);
        let on = [swaps(0, 5), swaps(10, 6), swaps(20, 7), swaps(30, 8), swaps(40, 9)];
        assert_eq!(states(&on)[3..], [State::Closed, State::Open(Trip::SwapIn)]);
        let mut breaker = Breaker::default();
        for sample in &once[..2] {
            breaker.observe(sample, &Judged::default(), &BreakerTerms::default());
        }
        assert!(breaker.swapping(900.0));
    }

    #[test]
    fn misses_open_it_only_with_evidence() {
        let missed = |weight| Judged { forecasts: 3, held: 0, weight, missed_weight: weight };
        let mut breaker = Breaker::default();
        let terms = BreakerTerms::default();
        assert_eq!(breaker.observe(&calm(0.0), &missed(1.0), &terms), State::Closed);
        assert_eq!(breaker.observe(&calm(1.0), &missed(2.5), &terms), State::Open(Trip::ViolationRate));
        let held = Judged { forecasts: 1, held: 1, weight: 0.1, missed_weight: 0.0 };
        assert_eq!(breaker.observe(&calm(902.0), &held, &terms), State::HalfOpen(Trip::ViolationRate));
    }
}
