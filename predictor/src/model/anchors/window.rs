//! What was seen in the steps of a window: all of it, its maximum, or its ranks. The step that runs is part of the
//! window, but its value is kept by whoever asks.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The values of the last `length` steps, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    length: i64,
    values: VecDeque<(i64, f64)>,
}

impl Window {
    pub(super) const fn of(length: i64) -> Self {
        Self { length, values: VecDeque::new() }
    }

    pub(super) fn push(&mut self, step: i64, value: f64) {
        self.values.push_back((step, value));
    }

    /// Takes out the oldest value that is no longer in the window when `step` runs.
    pub(super) fn leave(&mut self, step: i64) -> Option<f64> {
        let (oldest, _) = self.values.front()?;
        if step.saturating_sub(*oldest) < self.length {
            return None;
        }
        self.values.pop_front().map(|(_, value)| value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = f64> + Clone {
        self.values.iter().map(|(_, value)| *value)
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
    }
}

/// The largest value of the last `length` steps. Keeps only those that can still become the largest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Largest {
    falling: Window,
}

impl Largest {
    pub(super) const fn of(length: i64) -> Self {
        Self { falling: Window::of(length) }
    }

    pub(super) fn push(&mut self, step: i64, value: f64) {
        while self.falling.values.pop_back_if(|(_, last)| *last <= value).is_some() {}
        self.falling.push(step, value);
    }

    pub(super) fn enter(&mut self, step: i64) {
        while self.falling.leave(step).is_some() {}
    }

    /// 0 where nothing was seen.
    pub(super) fn max(&self) -> f64 {
        self.falling.values().next().unwrap_or(0.0)
    }

    pub(super) fn clear(&mut self) {
        self.falling.clear();
    }
}

/// The values of the last `length` steps by rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ranked {
    window: Window,
    sorted: Vec<f64>,
}

impl Ranked {
    pub(super) const fn of(length: i64) -> Self {
        Self { window: Window::of(length), sorted: Vec::new() }
    }

    pub(super) fn push(&mut self, step: i64, value: f64) {
        self.window.push(step, value);
        self.sorted.insert(self.below(value), value);
    }

    pub(super) fn enter(&mut self, step: i64) {
        while let Some(old) = self.window.leave(step) {
            self.sorted.remove(self.below(old));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The value with `below` smaller ones before it, `None` where there are no more than that.
    pub(super) fn at(&self, below: usize) -> Option<f64> {
        self.sorted.get(below).copied()
    }

    /// The smallest value that at least `share` of all values do not exceed, with `running` as one of them.
    pub(super) fn percentile_with(&self, share: f64, running: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a window has few steps")]
        let rank = (share * (self.len() + 1) as f64).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 0 to the count"
        )]
        let index = (rank as usize).clamp(1, self.len() + 1) - 1;
        let own = self.below(running);
        match index.cmp(&own) {
            std::cmp::Ordering::Less => self.sorted[index],
            std::cmp::Ordering::Equal => running,
            std::cmp::Ordering::Greater => self.sorted[index - 1],
        }
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
        self.sorted.clear();
    }

    fn below(&self, value: f64) -> usize {
        self.sorted.partition_point(|other| *other < value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn maxima_and_ranks_are_those_of_the_steps_in_the_window(
            steps in prop::collection::vec((1..4i64, 0..50u32), 1..80),
            share in 0.0..=1.0f64,
        ) {
            let (mut largest, mut ranked) = (Largest::of(10), Ranked::of(10));
            let (mut now, mut seen) = (0, Vec::new());
            for (passed, value) in steps {
                now += passed;
                let value = f64::from(value);
                largest.enter(now);
                ranked.enter(now);
                let mut all: Vec<f64> =
                    seen.iter().filter(|(step, _)| now - step < 10).map(|(_, value)| *value).collect();
                prop_assert!((largest.max() - all.iter().copied().fold(0.0, f64::max)).abs() < 1e-9);
                all.push(value);
                all.sort_by(f64::total_cmp);
                let percentile = ranked.percentile_with(share, value);
                let within = all.iter().filter(|other| **other <= percentile).count();
                let under = all.iter().filter(|other| **other < percentile).count();
                #[expect(clippy::cast_precision_loss, reason = "ten steps")]
                let (within, under, wanted) = (within as f64, under as f64, share * all.len() as f64);
                prop_assert!(all.contains(&percentile) && within >= wanted && (under < wanted || under < 0.5));
                largest.push(now, value);
                ranked.push(now, value);
                seen.push((now, value));
            }
        }
    }
}
