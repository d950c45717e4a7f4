//! The share of judged raw forecasts that were exceeded, over the last 24 hours and in total.

use crate::{domain::Seconds, labels::Label};

const HOURS: usize = 24;

/// What was judged in some span. Weights are in horizons, see [`Label::weight`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judged {
    /// Forecasts judged.
    pub forecasts: u64,
    /// Those of them that held.
    pub held: u64,
    /// Horizons judged.
    pub weight: f64,
    /// Horizons missed.
    pub missed_weight: f64,
}

impl Judged {
    /// Counts a label.
    pub fn add(&mut self, label: &Label) {
        self.forecasts += 1;
        self.weight += label.weight;
        if label.missed() {
            self.missed_weight += label.weight;
        } else {
            self.held += 1;
        }
    }

    /// Counts everything that another counted.
    pub fn merge(&mut self, other: &Self) {
        self.forecasts += other.forecasts;
        self.held += other.held;
        self.weight += other.weight;
        self.missed_weight += other.missed_weight;
    }

    /// Whether anything was missed.
    #[must_use]
    pub const fn any_missed(&self) -> bool {
        self.held < self.forecasts
    }

    /// The share missed; `None` where nothing was judged.
    #[must_use]
    pub fn violation_rate(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.missed_weight / self.weight)
    }
}

/// [`Judged`] over the last 24 hours (hourly buckets, the current hour included) and since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    hours: [Judged; HOURS],
    hour: i64,
    day: Judged,
    total: Judged,
}

impl Coverage {
    /// Counts what was judged at `at`. Call it without anything judged, too: that lets old hours go.
    pub fn observe(&mut self, at: Seconds, judged: &Judged) {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        let hour = (at / 3600.0).floor() as i64;
        if hour > self.hour {
            let entered = hour.saturating_sub(self.hour).min(24);
            for step in 0..entered {
                self.hours[index(hour - step)] = Judged::default();
            }
            self.hour = hour;
            self.sum();
        }
        if judged.forecasts > 0 {
            self.hours[index(self.hour)].merge(judged);
            self.total.merge(judged);
            self.sum();
        }
    }

    /// The last 24 hours.
    #[must_use]
    pub const fn day(&self) -> &Judged {
        &self.day
    }

    /// Since the beginning.
    #[must_use]
    pub const fn total(&self) -> &Judged {
        &self.total
    }

    /// Whether the last 24 hours' violation rate exceeds `times` the target, by evidence of at least as many missed
    /// horizons: that is what such a rate comes to in a day of 15-minute horizons at 1 %, so a VM judged for an hour
    /// is not condemned by one miss.
    #[must_use]
    pub fn exceeds(&self, times: f64, target: f64) -> bool {
        self.day.missed_weight >= times * 0.999 && self.day.missed_weight > times * target * self.day.weight
    }

    /// Summed anew rather than updated, so that rounding cannot build up.
    fn sum(&mut self) {
        self.day = Judged::default();
        for hour in &self.hours {
            self.day.merge(hour);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is in 0..24")]
const fn index(hour: i64) -> usize {
    hour.rem_euclid(24) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(held: u64, missed: u64) -> Judged {
        let real = |count: u64| crate::domain::real(count) / 3.0;
        Judged { forecasts: held + missed, held, weight: real(held + missed), missed_weight: real(missed) }
    }

    #[test]
    fn a_day_rolls_off_and_the_total_stays() {
        let mut coverage = Coverage::default();
        coverage.observe(0.0, &judged(2, 2));
        coverage.observe(3600.0 * 12.0, &judged(4, 0));
        assert!((coverage.day().violation_rate().unwrap() - 0.25).abs() < 1e-9);
        coverage.observe(3600.0 * 24.5, &Judged::default());
        assert!(coverage.day().violation_rate().unwrap() < 1e-9);
        coverage.observe(3600.0 * 80.0, &Judged::default());
        assert_eq!(coverage.day().violation_rate(), None);
        assert_eq!((coverage.total().forecasts, coverage.total().held), (8, 6));
    }

    #[test]
    fn one_miss_condemns_nobody_and_a_bad_day_does() {
        let mut coverage = Coverage::default();
        coverage.observe(0.0, &judged(0, 3));
        assert!(!coverage.exceeds(2.0, 0.01), "one missed horizon is no evidence");
        coverage.observe(1.0, &judged(90, 3));
        assert!(coverage.exceeds(2.0, 0.01));
        assert!(!coverage.exceeds(2.0, 0.1));
    }
}
