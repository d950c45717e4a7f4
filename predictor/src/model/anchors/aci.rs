//! Adaptive conformal inference, on nothing but usage now.

use serde::{Deserialize, Serialize};

use super::{DAY, Rule, Step, step_of, window::Ranked};
use crate::{
    labels::Label,
    model::{Terms, prices::STEP},
};

/// How far one judged step moves the level.
const GAMMA: f64 = 0.005;

/// `usage now + quantile of the rises of the last day`, at a level that adapts so that the target is kept in the long
/// run.
///
/// Source: Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift" (NeurIPS):
/// α ← α + γ·(target − missed), with γ = 0.005 (published default), and the (1 − α) quantile of the scores seen, which
/// is infinite where no score is large enough: then the allocation is the forecast. A score is how far usage rose
/// within the horizon; of forecasts made in one step the largest counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aci {
    level: Option<f64>,
    scores: Ranked,
    newest: Option<Step>,
}

impl Default for Aci {
    fn default() -> Self {
        Self { level: None, scores: Ranked::of(DAY), newest: None }
    }
}

impl Rule for Aci {
    fn learn(&mut self, label: &Label, terms: &Terms) {
        let missed = if label.missed() { 1.0 } else { 0.0 };
        let steps = label.weight * terms.horizon / STEP;
        let level = self.level.get_or_insert(terms.target);
        *level += GAMMA * steps * (terms.target - missed);
        let score = super::real(label.peak_bytes) - super::real(label.level_bytes);
        let index = step_of(label.made_at);
        match &mut self.newest {
            Some(newest) if newest.index >= index => newest.peak = newest.peak.max(score),
            newest => {
                if let Some(before) = newest.replace(Step { index, peak: score }) {
                    self.scores.enter(index);
                    self.scores.push(before.index, before.peak);
                }
            }
        }
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        let level = self.level.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a day has few steps")]
        let rank = ((1.0 - level) * (self.scores.len() + 1) as f64).ceil();
        if rank < 1.0 {
            return 0.0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least 1, and the cast saturates"
        )]
        let below = rank as usize - 1;
        self.scores.at(below).map_or(f64::INFINITY, |rise| now.peak + rise)
    }

    fn forget(&mut self) {
        self.scores.clear();
        self.newest = None;
    }
}
