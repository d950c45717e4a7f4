//! How dear a miss is to one machine. A tracker moves the price after each judged forecast, by a step that is larger
//! for rarer misses, so that the share of misses becomes the target: dual ascent, as in online conformal prediction
//! (Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift"), on the price instead of the
//! quantile.

use serde::{Deserialize, Serialize};

use super::math;
use crate::{
    boundary::Fairness,
    domain::real,
    labels::Label,
    model::{Prices, Terms, prices::STEP},
};

/// How many times its target one machine may reach where the fleet's mean is kept.
const CAP: f64 = 2.0;

/// Allocation at which a miss has the price of the table where machines share one.
const TYPICAL_BYTES: f64 = 8.0 * 1024.0 * 1024.0 * 1024.0;

/// Steps over which the share of horizons with growth is averaged.
const GROWTH_STEPS: f32 = 864.0;
/// Weight of what is assumed of that share before anything was seen.
const ASSUMED_STEPS: f32 = 3.0;
/// What is assumed.
const ASSUMED_GROWTH: f32 = 0.3;

/// Judged steps of a machine's first day, in which nothing has corrected its price yet.
const FIRST_DAY: f32 = 288.0;

/// By how much a clean step lowers the logarithm of the price where misses are rare: by one within seventeen days.
const CLEAN: f64 = 2e-4;

/// Usage counts as above a level when it is by more than this.
const TOLERANCE: f64 = 1e-6;

/// What was learnt about one machine's misses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Caution {
    /// By how much the logarithm of the price differs from the others'.
    raised: f64,
    /// Share of horizons whose peak was above the level before them.
    growth: f32,
    /// Steps that it was averaged over.
    seen: f32,
}

impl Default for Caution {
    fn default() -> Self {
        Self { raised: 0.0, growth: ASSUMED_GROWTH, seen: 0.0 }
    }
}

impl Caution {
    /// Takes how a forecast fared.
    pub(super) fn learn(&mut self, label: &Label, terms: &Terms, prices: &mut Prices) {
        let steps = label.weight * terms.horizon / STEP;
        prices.judged(terms, label.made_at + terms.horizon, steps, label.missed());
        let missed = if label.missed() { 1.0 } else { 0.0 };
        let pace = pace(terms) * steps;
        match terms.fairness {
            Fairness::PerVm => self.raised = (self.raised + pace * (missed - terms.target)).clamp(-6.0, 8.0),
            Fairness::Capped => {
                self.raised = (self.raised + pace * (missed - CAP * terms.target)).clamp(0.0, 8.0);
            }
            Fairness::Fleet => {}
        }
        let grew = real(label.peak_bytes) > real(label.level_bytes) * (1.0 + TOLERANCE);
        #[expect(clippy::cast_possible_truncation, reason = "a few steps")]
        let steps = steps as f32;
        self.seen = (self.seen + steps).min(GROWTH_STEPS);
        let share = (steps / (self.seen + ASSUMED_STEPS)).min(1.0);
        self.growth += share * (if grew { 1.0 } else { 0.0 } - self.growth);
    }

    /// The price of a miss in shares of the allocation; `start` is where prices start.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what single precision holds")]
    pub(crate) fn price(&self, terms: &Terms, start: f64, prices: &Prices, allocated: u64) -> f32 {
        let size = match terms.fairness {
            Fairness::PerVm => 0.0,
            Fairness::Capped => 0.5 * (TYPICAL_BYTES / real(allocated.max(1))).ln(),
            Fairness::Fleet => (TYPICAL_BYTES / real(allocated.max(1))).ln(),
        };
        math::exp((start + self.raised + prices.moved(terms) + size).clamp(-30.0, 30.0) as f32)
    }

    /// 1 until a day was judged, then falling to 0 within another.
    #[must_use]
    pub(super) fn newness(&self) -> f64 {
        f64::from((2.0 - self.seen / FIRST_DAY).clamp(0.0, 1.0))
    }

    /// Whether any forecast was judged yet.
    #[must_use]
    pub(super) const fn is_experienced(&self) -> bool {
        self.seen > 0.0
    }

    /// The share of horizons whose peak was above the level before them.
    #[must_use]
    pub(super) const fn growth(&self) -> f32 {
        self.growth
    }

    /// Starts anew for another target or fairness.
    pub(super) const fn reprice(&mut self) {
        self.raised = 0.0;
    }

    /// After a restart only what makes it more careful stays.
    pub(super) fn restart(&mut self) {
        let (raised, growth) = (self.raised.max(0.0), self.growth.max(ASSUMED_GROWTH));
        *self = Self { raised, growth, ..Self::default() };
    }
}

/// By how much one step's forecast moves the logarithm of the price: never so little that it could not follow a change. Rare
/// misses teach the more, the rarer they are: clean steps then lower the price equally fast whatever the target.
fn pace(terms: &Terms) -> f64 {
    let rare = terms.target < 0.005 - 1e-9;
    match terms.fairness {
        Fairness::PerVm if rare => (CLEAN / terms.target).min(1.0),
        Fairness::PerVm if terms.target < 0.02 - 1e-9 => 0.05,
        Fairness::Capped if rare => 0.05,
        _ => 0.02,
    }
}
