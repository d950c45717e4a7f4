//! `cqd-v1`: a pooled quantile network says how the coming peak is spread, the bound is picked where reserved memory
//! and misses at their price cost least, and a tracker moves that price until the share of misses is the target
//! ("cost-optimal quantiles with dual trackers").
//!
//! Everything lies on a grid of five-minute steps; the level of a step is the largest reading in it. A reading that is
//! the last of its step, or the first after it, closes the step, and the forecast is made afresh. In between it is
//! made again only when a reading is the largest of its step so far, as if the step ended with it, and then it may
//! only rise. With a reading every five minutes each one closes its step.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, real, whole},
    labels::Label,
    model::{Forecast, Model, Prices, Sample, Terms},
};

pub(crate) mod caution;
pub mod features;
pub mod levels;
mod math;
pub mod network;
pub mod pick;
pub mod rises;
pub mod weights;
pub mod window;

#[cfg(test)]
mod tests;

use caution::Caution;
use features::RawFeatures;
use levels::{Levels, step_of};
use pick::Pick;
use rises::Rises;
use weights::Nets;

/// A bound is this much above the level that it rests on, so that rounding never makes a miss.
const MARGIN: f64 = 1e-6;

/// Where fewer horizons than this see growth, a bound below the level now is not believed.
const RARE_GROWTH: f32 = 0.1;

/// Steps of the longest horizon, a day.
const MOST_STEPS: i32 = 288;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cqd {
    levels: Levels,
    rises: Rises,
    caution: Caution,
    terms: Option<Terms>,
    latest: Option<Latest>,
    open: Option<Open>,
    /// The level of the latest closed step.
    closed_bytes: u64,
    bound: Option<Bound>,
    due: Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Latest {
    at: Seconds,
    allocated: u64,
}

/// A step that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    step: i32,
    bytes: u64,
}

/// What was published, and the level that it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bound {
    predicted_bytes: u64,
    level_bytes: u64,
}

/// What the next forecast has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Due {
    /// A step was closed: forget the bound before.
    afresh: bool,
    /// The open step has a new maximum.
    raise: bool,
}

impl Cqd {
    /// [`Model::forecast`] by given networks.
    pub fn forecast_by(&mut self, nets: &Nets, terms: &Terms, prices: &Prices) -> Option<Forecast> {
        let latest = self.latest?;
        self.adopt(terms);
        let due = std::mem::take(&mut self.due);
        if due.afresh {
            self.bound = None;
            if let Some(step) = self.levels.step() {
                self.rises.advance(step);
                self.bound = Some(self.bound_of(&self.levels, self.closed_bytes, nets, terms, prices));
            }
        }
        if due.raise
            && let Some(open) = self.open
        {
            let mut ahead = self.levels.clone();
            ahead.close(open.step, share(open.bytes, latest.allocated));
            self.rises.advance(open.step);
            let new = self.bound_of(&ahead, open.bytes, nets, terms, prices);
            self.bound = Some(self.bound.map_or(new, |before| before.max(new)));
        }
        self.bound.map(|bound| Forecast {
            made_at: latest.at,
            horizon: terms.horizon,
            predicted_bytes: bound.predicted_bytes,
            level_bytes: bound.level_bytes,
        })
    }

    fn bound_of(
        &self,
        levels: &Levels,
        level_bytes: u64,
        nets: &Nets,
        terms: &Terms,
        prices: &Prices,
    ) -> Bound {
        let allocated = self.latest.map_or(1, |latest| latest.allocated);
        let raw = RawFeatures::of(levels, &self.rises, steps_of(terms.horizon));
        let base = raw.base();
        let quantiles = nets.quantiles(&raw.design(), terms.horizon).map(|z| math::exp((z + base).min(10.0)));
        let start = nets.start_price(terms, self.caution.newness());
        let price = self.caution.price(terms, start, prices, allocated);
        let mut pick = Pick::cheapest(&quantiles, price);
        // No growth at all is one more candidate: a resident set stands still most of the time.
        let still = Pick { level: share(level_bytes, allocated), survival: self.caution.growth() };
        let unlikely = pick.level < still.level && still.survival < RARE_GROWTH;
        if still.cost(price) < pick.cost(price) || unlikely {
            pick.level = still.level * (1.0 + 1e-6);
        }
        let predicted = whole(f64::from(pick.level) * (1.0 + MARGIN) * real(allocated));
        Bound { predicted_bytes: predicted.min(allocated), level_bytes }
    }

    fn close(&mut self) {
        if let (Some(open), Some(latest)) = (self.open.take(), self.latest) {
            self.levels.close(open.step, share(open.bytes, latest.allocated));
            self.closed_bytes = open.bytes;
            self.due = Due { afresh: true, raise: false };
        }
    }

    /// Bytes stay bytes when the allocation changes: shares do not.
    fn fit(&mut self, allocated: u64) {
        if let Some(latest) = &mut self.latest
            && latest.allocated != allocated
        {
            #[expect(clippy::cast_possible_truncation, reason = "a ratio")]
            let ratio = (real(latest.allocated) / real(allocated)) as f32;
            latest.allocated = allocated;
            self.levels.rescale(ratio);
            self.rises.rescale(ratio);
            self.due = Due { afresh: true, raise: self.open.is_some() };
        }
    }

    /// Starts anew what another horizon, target or fairness makes meaningless.
    fn adopt(&mut self, terms: &Terms) {
        let Some(before) = self.terms.replace(*terms).filter(|before| before != terms) else { return };
        self.due = Due { afresh: true, raise: self.open.is_some() };
        if (before.horizon - terms.horizon).abs() > f64::EPSILON {
            self.rises = Rises::default();
            self.caution = Caution::default();
        } else {
            self.caution.reprice();
        }
    }
}

impl Bound {
    fn max(self, other: Self) -> Self {
        Self {
            predicted_bytes: self.predicted_bytes.max(other.predicted_bytes),
            level_bytes: self.level_bytes.max(other.level_bytes),
        }
    }
}

impl Model for Cqd {
    fn version(&self) -> Cow<'static, str> {
        "cqd-v1".into()
    }

    fn observe(&mut self, sample: &Sample) {
        let allocated = sample.allocated.max(1);
        self.fit(allocated);
        let bytes = sample.bytes.min(allocated);
        if self.open.is_some_and(|open| step_of(sample.at) > open.step) {
            self.close();
        }
        self.latest = Some(Latest { at: sample.at, allocated });
        // A reading that comes after its step was closed counts to the next one.
        let next = self.levels.step().map_or(i32::MIN, |closed| closed.saturating_add(1));
        let begun = self.open.is_some();
        let open = self.open.get_or_insert(Open { step: step_of(sample.at).max(next), bytes });
        if !begun || bytes > open.bytes {
            open.bytes = bytes;
            self.due.raise = true;
        }
        if step_of(sample.at + sample.interval) > open.step {
            self.close();
        }
    }

    fn learn(&mut self, label: &Label, terms: &Terms, prices: &mut Prices) {
        self.adopt(terms);
        let allocated = self.latest.map_or(1, |latest| latest.allocated);
        let rise = label.peak_bytes.saturating_sub(label.level_bytes);
        self.rises.push(step_of(label.made_at + terms.horizon), share(rise, allocated));
        self.caution.learn(label, terms, prices);
    }

    fn forecast(&mut self, terms: &Terms, prices: &Prices) -> Option<Forecast> {
        self.forecast_by(Nets::shipped(), terms, prices)
    }

    fn reset(&mut self) {
        let mut caution = self.caution;
        caution.restart();
        *self = Self { caution, terms: self.terms, ..Self::default() };
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a share of one")]
fn share(bytes: u64, allocated: u64) -> f32 {
    (real(bytes) / real(allocated)).min(1.0) as f32
}

/// Steps of a horizon, begun ones counted.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn steps_of(horizon: Seconds) -> i32 {
    ((horizon / levels::STEP).ceil() as i32).clamp(1, MOST_STEPS)
}
