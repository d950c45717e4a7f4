//! The predictors that people pick today, each behind [`Model`], so that they can be compared with ours on anyone's
//! data, and used instead of it.
//!
//! All live on one grid of five minutes: the usage of a step is the largest that was seen in it, and the step that is
//! running counts with what it has shown so far. So an anchor means the same whether a machine is sampled every second
//! or every five minutes. Windows are spans of time, not counts of samples, and amounts are bytes: after a resize what
//! a machine was seen to use is still what it was seen to use.
//!
//! Every anchor has one number to turn, its margin, whose default is the published one; [`super::choice`] names them
//! and knows the defaults.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    domain::{Seconds, real, whole},
    labels::Label,
    model::{Forecast, Model, Prices, Sample, Terms, choice::Choice, prices::STEP},
};

pub mod aci;
pub mod autopilot;
pub mod esx;
pub mod fixed;
pub mod google_max;
mod histogram;
pub mod koordinator;
pub mod last;
pub mod mom;
pub mod n_sigma;
pub mod oracle;
pub mod percentile;
pub mod recent_max;
#[cfg(test)]
mod tests;
pub mod tracker;
pub mod vpa;
mod window;

/// Steps in an hour.
const HOUR: i64 = 12;
/// Steps in a day.
const DAY: i64 = 24 * HOUR;

/// Usage in one step of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step: its start in seconds since the epoch, divided by 300.
    pub index: i64,
    /// The largest usage seen in it, in bytes.
    pub peak: f64,
}

/// What makes one anchor differ from another: what it remembers of the steps that are over, and the bound that follows.
pub trait Rule: Serialize + DeserializeOwned {
    /// Steps that must have been seen before the rule is asked; until then the allocation is the forecast.
    const COLD_STEPS: u32 = 0;

    /// Takes a step that is over. Steps come in order, those without a sample do not come.
    fn close(&mut self, _: Step) {}

    /// Learns which step runs now, before it is asked for a bound in it: what is too old can go.
    fn enter(&mut self, _: i64) {}

    /// Takes how an earlier forecast fared.
    fn learn(&mut self, _: &Label, _: &Terms) {}

    /// The bound in bytes, with the running step as it is so far; what exceeds `allocated` is cut off by the caller.
    fn bound(&self, now: Step, allocated: f64) -> f64;

    /// Forgets usage; the margin stays.
    fn forget(&mut self);
}

/// A [`Rule`] on the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchor<R> {
    choice: Choice,
    rule: R,
    closed: u32,
    running: Option<Step>,
    latest_at: Seconds,
    allocated: u64,
    /// As long as nothing has changed that it rests on.
    bound: Option<f64>,
}

impl<R: Rule> Anchor<R> {
    /// An anchor without history.
    #[must_use]
    pub const fn new(choice: Choice, rule: R) -> Self {
        Self { choice, rule, closed: 0, running: None, latest_at: 0.0, allocated: 0, bound: None }
    }

    fn close(&mut self, step: Step) {
        self.rule.close(step);
        self.closed = self.closed.saturating_add(1);
    }
}

impl<R: Rule> Model for Anchor<R> {
    fn version(&self) -> Cow<'static, str> {
        self.choice.label()
    }

    fn observe(&mut self, sample: &Sample) {
        let bytes = real(sample.bytes.min(sample.allocated));
        let index = step_of(sample.at);
        let running = match self.running {
            Some(step) if index <= step.index => Step { peak: step.peak.max(bytes), ..step },
            before => {
                if let Some(step) = before {
                    self.close(step);
                }
                self.rule.enter(index);
                Step { index, peak: bytes }
            }
        };
        if self.running != Some(running) || self.allocated != sample.allocated {
            self.bound = None;
        }
        self.running = Some(running);
        self.latest_at = sample.at;
        self.allocated = sample.allocated;
    }

    fn learn(&mut self, label: &Label, terms: &Terms, _: &mut Prices) {
        self.rule.learn(label, terms);
        self.bound = None;
    }

    fn forecast(&mut self, terms: &Terms, _: &Prices) -> Option<Forecast> {
        let running = self.running?;
        let bound = *self.bound.get_or_insert_with(|| {
            // The running step is one that has been seen.
            if self.closed.saturating_add(1) < R::COLD_STEPS {
                return f64::INFINITY;
            }
            self.rule.bound(running, real(self.allocated))
        });
        Some(Forecast {
            made_at: self.latest_at,
            horizon: terms.horizon,
            predicted_bytes: whole(bound).min(self.allocated),
            level_bytes: whole(running.peak),
        })
    }

    fn reset(&mut self) {
        self.rule.forget();
        (self.closed, self.running, self.bound) = (0, None, None);
    }
}

/// The step that a moment lies in.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn step_of(at: Seconds) -> i64 {
    (at / STEP).floor() as i64
}
