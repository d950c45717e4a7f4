//! What the machines of a predictor share where a target is kept over all of them: the price of a miss.
//!
//! Under `capped` and `fleet` fairness a forecast weighs reserved bytes against misses at a price, and the price moves
//! until the mean rate of misses is the target (dual ascent). One price for each signal, horizon, target and
//! fairness. It moves once a step of five minutes, by what was judged in that step: sums of counts, so the order in
//! which machines were judged does not matter.

use serde::{Deserialize, Serialize};

use crate::{boundary::Fairness, domain::Seconds, model::Terms};

/// Length of a step.
pub const STEP: Seconds = 300.0;

/// The prices of a predictor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    terms: Terms,
    /// How far the logarithm of the price has moved from where it started.
    moved: f64,
    step: i64,
    judged: f64,
    missed: f64,
}

impl Prices {
    /// How far the logarithm of the price has moved from where it started; 0 before anything was judged, and under
    /// `per_vm`, where nothing is shared.
    #[must_use]
    pub fn moved(&self, terms: &Terms) -> f64 {
        self.entries.iter().find(|entry| entry.terms == *terms).map_or(0.0, |entry| entry.moved)
    }

    /// Counts a judged forecast that stands for `steps` steps. Does nothing under `per_vm`.
    pub fn judged(&mut self, terms: &Terms, at: Seconds, steps: f64, missed: bool) {
        if terms.fairness == Fairness::PerVm {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        let step = (at / STEP).floor() as i64;
        let entry = match self.entries.iter().position(|entry| entry.terms == *terms) {
            Some(known) => &mut self.entries[known],
            None => {
                self.entries.push_mut(Entry { terms: *terms, moved: 0.0, step, judged: 0.0, missed: 0.0 })
            }
        };
        if step > entry.step {
            entry.settle(step);
        }
        entry.judged += steps;
        if missed {
            entry.missed += steps;
        }
    }

    /// Takes over what another has counted since it was cloned from this, `before`.
    pub fn absorb(&mut self, before: &Self, after: &Self) {
        for (at, new) in after.entries.iter().enumerate() {
            let old = before.entries.get(at);
            let (judged, missed) = match old.filter(|old| old.step == new.step) {
                Some(old) => (new.judged - old.judged, new.missed - old.missed),
                None => (new.judged, new.missed),
            };
            if judged <= 0.0 {
                continue;
            }
            let entry = match self.entries.iter().position(|entry| entry.terms == new.terms) {
                Some(known) => &mut self.entries[known],
                None => self.entries.push_mut(Entry { judged: 0.0, missed: 0.0, ..new.clone() }),
            };
            if new.step > entry.step {
                entry.settle(new.step);
            }
            entry.judged += judged;
            entry.missed += missed;
        }
    }
}

/// The most by which one machine moves the price in a step, and the most by which all do.
const EACH: f64 = 0.02;
/// See [`EACH`].
const ALL: f64 = 1.0;

impl Entry {
    fn settle(&mut self, step: i64) {
        if self.judged > 0.0 {
            let rate = self.missed / self.judged;
            self.moved += (EACH * self.judged).min(ALL) * (rate - self.terms.target);
        }
        (self.step, self.judged, self.missed) = (step, 0.0, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Signal;

    const TERMS: Terms =
        Terms { signal: Signal::Demand, horizon: 900.0, target: 0.01, fairness: Fairness::Capped };

    #[test]
    fn misses_raise_the_price_and_clean_steps_lower_it() {
        let mut prices = Prices::default();
        for machine in 0..10 {
            prices.judged(&TERMS, 0.0, 1.0, machine == 0);
        }
        assert!(prices.moved(&TERMS).abs() < 1e-12, "the step is not over");
        prices.judged(&TERMS, 300.0, 1.0, false);
        assert!((prices.moved(&TERMS) - 0.2 * (0.1 - 0.01)).abs() < 1e-12);
        prices.judged(&TERMS, 600.0, 1.0, false);
        assert!((prices.moved(&TERMS) - (0.018 - 0.0002)).abs() < 1e-12);
        let alone = Terms { fairness: Fairness::PerVm, ..TERMS };
        prices.judged(&alone, 0.0, 1.0, true);
        prices.judged(&alone, 300.0, 1.0, true);
        assert!(prices.moved(&alone).abs() < 1e-12, "nothing is shared under per_vm");
    }

    #[test]
    fn hosts_that_judge_side_by_side_come_to_the_same_price() {
        let (mut together, mut shared) = (Prices::default(), Prices::default());
        for step in 0..50u32 {
            let at = f64::from(step) * 300.0;
            let copies: Vec<Prices> = (0..3)
                .map(|host| {
                    let mut own = shared.clone();
                    for machine in 0..4 {
                        let missed = (step * 7 + host * 3 + machine) % 11 == 0;
                        own.judged(&TERMS, at, 1.0, missed);
                        together.judged(&TERMS, at, 1.0, missed);
                    }
                    own
                })
                .collect();
            let before = shared.clone();
            for own in &copies {
                shared.absorb(&before, own);
            }
        }
        assert!((together.moved(&TERMS) - shared.moved(&TERMS)).abs() < 1e-12);
        assert!(together.moved(&TERMS).abs() > 1e-3);
    }
}
