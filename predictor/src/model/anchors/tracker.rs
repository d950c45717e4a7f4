//! The plain quantile tracker of online conformal prediction, on the largest usage of an hour.

use serde::{Deserialize, Serialize};

use super::{DAY, HOUR, Rule, Step, step_of, window::Largest};
use crate::{
    labels::Label,
    model::{Terms, prices::STEP},
};

/// Share of the range of recent scores by which a miss lifts the offset.
const RATE: f64 = 0.1;

/// `largest usage of the last hour + offset`; the offset moves by `η·(missed − target)` a judged step.
///
/// Source: Angelopoulos, Candès and Tibshirani 2023, "Conformal PID control for time series prediction" (NeurIPS), the
/// proportional part alone, with η = 0.1 · the range of recent scores (published default); the range is taken as the
/// largest rise within a horizon that was seen in a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracker {
    hour: Largest,
    rises: Largest,
    offset: f64,
}

impl Default for Tracker {
    fn default() -> Self {
        Self { hour: Largest::of(HOUR), rises: Largest::of(DAY), offset: 0.0 }
    }
}

impl Rule for Tracker {
    fn close(&mut self, closed: Step) {
        self.hour.push(closed.index, closed.peak);
    }

    fn enter(&mut self, step: i64) {
        self.hour.enter(step);
    }

    fn learn(&mut self, label: &Label, terms: &Terms) {
        let made = step_of(label.made_at);
        self.rises.enter(made);
        self.rises.push(made, super::real(label.peak_bytes.saturating_sub(label.level_bytes)));
        let missed = if label.missed() { 1.0 } else { 0.0 };
        let steps = label.weight * terms.horizon / STEP;
        self.offset += RATE * self.rises.max() * steps * (missed - terms.target);
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        self.hour.max().max(now.peak) + self.offset
    }

    fn forget(&mut self) {
        self.hour.clear();
        self.rises.clear();
        self.offset = self.offset.max(0.0);
    }
}
