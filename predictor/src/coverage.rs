//! The share of judged raw forecasts that were exceeded, over the last 24 hours and in total.

use serde::{Deserialize, Serialize};

use crate::{domain::Seconds, labels::Label};

/// Buckets of a day.
const BUCKETS: usize = 8;

/// Length of a bucket.
const BUCKET: Seconds = 10_800.0;

/// What was judged in some span. Weights are in horizons, see [`Label::weight`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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

/// [`Judged`] over the last 24 hours (buckets of three hours, the current one included) and since the beginning. Kept
/// small, because every signal of every machine has one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Coverage {
    buckets: [Bucket; BUCKETS],
    current: i64,
    total: Judged,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Bucket {
    forecasts: u32,
    held: u32,
    weight: f32,
    missed_weight: f32,
}

impl Bucket {
    #[expect(clippy::cast_possible_truncation, reason = "weights of a bucket are small, counts are clamped")]
    fn add(&mut self, judged: &Judged) {
        let count = |count: u64| count.min(u64::from(u32::MAX)) as u32;
        self.forecasts = self.forecasts.saturating_add(count(judged.forecasts));
        self.held = self.held.saturating_add(count(judged.held));
        self.weight += judged.weight as f32;
        self.missed_weight += judged.missed_weight as f32;
    }
}

impl Coverage {
    /// Counts what was judged at `at`. Call it without anything judged, too: that lets old buckets go.
    pub fn observe(&mut self, at: Seconds, judged: &Judged) {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        let bucket = (at / BUCKET).floor() as i64;
        if bucket > self.current {
            let entered = bucket.saturating_sub(self.current).min(COUNT);
            for step in 0..entered {
                self.buckets[index(bucket - step)] = Bucket::default();
            }
            self.current = bucket;
        }
        if judged.forecasts > 0 {
            self.buckets[index(self.current)].add(judged);
            self.total.merge(judged);
        }
    }

    /// The last 24 hours.
    #[must_use]
    pub fn day(&self) -> Judged {
        self.buckets.iter().fold(Judged::default(), |day, bucket| Judged {
            forecasts: day.forecasts + u64::from(bucket.forecasts),
            held: day.held + u64::from(bucket.held),
            weight: day.weight + f64::from(bucket.weight),
            missed_weight: day.missed_weight + f64::from(bucket.missed_weight),
        })
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
        let day = self.day();
        day.missed_weight >= times * 0.999 && day.missed_weight > times * target * day.weight
    }
}

#[expect(clippy::cast_possible_wrap, reason = "eight")]
const COUNT: i64 = BUCKETS as i64;

#[expect(clippy::cast_possible_truncation, reason = "the remainder is in 0..8")]
const fn index(bucket: i64) -> usize {
    bucket.rem_euclid(COUNT) as usize
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
