//! How much of a figure is the choice of machines: machines are drawn anew, with replacement, and the figure worked out
//! again (Efron 1979, "Bootstrap methods: another look at the jackknife"). Machines, not readings: those of one machine
//! resemble each other.

use serde::Serialize;

use super::{Figures, Tally, figures::percentile};
use crate::domain::{Seconds, real};

/// Draws that an interval rests on.
pub const DRAWS: usize = 1000;

/// The bounds within which 95 % of the draws lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Of a figure's values over the draws; `None` where fewer than half of the draws have one.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        (values.len() * 2 >= DRAWS)
            .then(|| Self { low: percentile(&mut values, 0.025), high: percentile(&mut values, 0.975) })
    }
}

/// The intervals of [`Figures`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Intervals {
    /// Of the machines' mean violation rate.
    pub violation_rate_mean: Option<Interval>,
    /// Of their 95th percentile.
    pub violation_rate_p95_vm: Option<Interval>,
    /// Of what is reserved for what is needed.
    pub reserved_to_needed: Option<Interval>,
    /// Of the harvest before any guard.
    pub harvested_ratio: Option<Interval>,
    /// Of the harvest after every guard, as a share of that before; `None` where nothing was guarded.
    pub guarded_share_of_raw: Option<Interval>,
    /// Of the share of the time in backoff; `None` where nothing was guarded.
    pub backoff_share: Option<Interval>,
}

impl Intervals {
    /// Draws the machines of `tallies` anew [`DRAWS`] times; `interval` as for [`Figures::of`].
    #[must_use]
    pub fn of(tallies: &[Tally], target: f64, interval: Option<Seconds>, seed: u64) -> Self {
        let mut values: [Vec<f64>; 6] = Default::default();
        for picks in draws(tallies.len(), seed) {
            let Some(figures) = Figures::of(picks.iter().map(|vm| &tallies[*vm]), target, interval) else {
                continue;
            };
            values[0].push(figures.violation_rate.mean);
            values[1].push(figures.violation_rate.p95_vm);
            values[2].extend(figures.reserved_to_needed);
            values[3].push(figures.harvested_ratio);
            values[4].extend(figures.guarded.and_then(|guarded| guarded.share_of_raw));
            values[5].extend(figures.guarded.map(|guarded| guarded.backoff_share));
        }
        let [mean, p95_vm, reserved, harvested, guarded, backoff] = values.map(Interval::of);
        Self {
            violation_rate_mean: mean,
            violation_rate_p95_vm: p95_vm,
            reserved_to_needed: reserved,
            harvested_ratio: harvested,
            guarded_share_of_raw: guarded,
            backoff_share: backoff,
        }
    }
}

/// [`DRAWS`] draws of as many machines as there are. The same seed draws the same.
pub(super) fn draws(machines: usize, seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let mut random = SplitMix(seed);
    (0..DRAWS).map(move |_| (0..machines).map(|_| random.below(machines)).collect())
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 to below `bound`, but for a bias of `bound` in 2⁵³.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below `bound`")]
    fn below(&mut self, bound: usize) -> usize {
        let share = real(self.next() >> 11) / real(1 << 53);
        (share * real(bound as u64)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(spread: u64) -> Vec<Tally> {
        let vm = |n: u64| Tally {
            judged: 1000,
            missed: 10 + (n % 5) * spread,
            allocated: 100.0,
            predicted: 40.0 + real(n % 3),
            needed: 30.0,
            ..Tally::default()
        };
        (0..40).map(vm).collect()
    }

    #[test]
    fn the_interval_holds_the_figure_and_the_same_seed_gives_the_same() {
        let tallies = tallies(3);
        let intervals = Intervals::of(&tallies, 0.01, None, 7);
        let figures = Figures::of(&tallies, 0.01, None).unwrap();
        let mean = intervals.violation_rate_mean.unwrap();
        assert!(
            mean.low < figures.violation_rate.mean && figures.violation_rate.mean < mean.high,
            "{mean:?}"
        );
        assert!(mean.high - mean.low < 0.004, "{mean:?}");
        assert_eq!(intervals, Intervals::of(&tallies, 0.01, None, 7));
        assert_ne!(intervals, Intervals::of(&tallies, 0.01, None, 8));
    }

    #[test]
    fn machines_that_are_all_alike_leave_no_doubt() {
        let mean = Intervals::of(&tallies(0), 0.01, Some(300.0), 1).violation_rate_mean.unwrap();
        assert!((mean.high - mean.low).abs() < 1e-12, "{mean:?}");
    }

    #[test]
    fn machines_are_drawn_evenly() {
        let mut counts = [0u32; 10];
        for vm in draws(10, 3).flatten() {
            counts[vm] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
