//! `cqd-v1`: a pooled quantile network says how the coming peak is spread, the bound is picked where reserved memory
//! and misses at their price cost least, and a tracker moves that price until the share of misses is the target
//! ("cost-optimal quantiles with dual trackers").
//!
//! Everything lies on a grid of five-minute steps; the level of a step is the largest reading in it. A reading that is
//! the last of its step, or the first after it, closes the step, and the forecast is made afresh. In between it is
//! made again only when a reading is the largest of its step so far, as if the step ended with it, and then it may
//! only rise. With a reading every five minutes each one closes its step.
//!
//! A machine that is read faster than that lives its first hour on a faster clock: see `youth`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, real, whole},
    labels::Label,
    model::{Forecast, Model, Prices, Sample, Terms},
};

pub(crate) mod caution;
pub mod features;
mod grid;
pub mod levels;
mod math;
pub mod network;
pub mod pick;
pub mod rises;
pub mod weights;
pub mod window;
mod youth;

#[cfg(test)]
mod tests;

use caution::Caution;
use features::RawFeatures;
use grid::Grid;
use levels::{Levels, step_of};
use pick::Pick;
use rises::Rises;
use weights::Nets;
use youth::Youth;

/// A bound is this much above the level that it rests on, so that rounding never makes a miss.
const MARGIN: f64 = 1e-6;

/// Where fewer horizons than this see growth, a bound below the level now is not believed.
const RARE_GROWTH: f32 = 0.1;

/// Steps of the longest horizon, a day.
const MOST_STEPS: i32 = 288;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cqd {
    grid: Grid,
    youth: Option<Box<Youth>>,
    rises: Rises,
    caution: Caution,
    terms: Option<Terms>,
    latest: Option<Latest>,
    bound: Option<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Latest {
    at: Seconds,
    allocated: u64,
}

/// What was published, and the level that it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bound {
    predicted_bytes: u64,
    level_bytes: u64,
}

impl Cqd {
    /// [`Model::forecast`] by given networks.
    pub fn forecast_by(&mut self, nets: &Nets, terms: &Terms, prices: &Prices) -> Option<Forecast> {
        let latest = self.latest?;
        self.adopt(terms);
        let (grid, speed) = match &mut self.youth {
            Some(youth) => (&mut youth.grid, youth.speed),
            None => (&mut self.grid, 1),
        };
        let ask = Ask { nets, terms, prices, speed, allocated: latest.allocated };
        let due = std::mem::take(&mut grid.due);
        if due.afresh {
            self.bound = None;
            if let Some(step) = grid.levels.step() {
                self.rises.advance(step.div_euclid(speed));
                self.bound = Some(ask.bound(&grid.levels, &self.rises, &self.caution, grid.closed_bytes));
            }
        }
        if due.raise
            && let Some((levels, open)) = grid.ahead(latest.allocated)
        {
            self.rises.advance(open.step.div_euclid(speed));
            let new = ask.bound(&levels, &self.rises, &self.caution, open.bytes);
            self.bound = Some(self.bound.map_or(new, |before| before.max(new)));
        }
        self.bound.map(|bound| Forecast {
            made_at: latest.at,
            horizon: terms.horizon,
            predicted_bytes: bound.predicted_bytes,
            level_bytes: bound.level_bytes,
        })
    }

    /// Bytes stay bytes when the allocation changes: shares do not.
    fn fit(&mut self, allocated: u64) {
        if let Some(latest) = &mut self.latest
            && latest.allocated != allocated
        {
            #[expect(clippy::cast_possible_truncation, reason = "a ratio")]
            let ratio = (real(latest.allocated) / real(allocated)) as f32;
            latest.allocated = allocated;
            self.rises.rescale(ratio);
            self.grids().for_each(|grid| grid.rescale(ratio));
        }
    }

    /// Starts anew what another horizon, target or fairness makes meaningless.
    fn adopt(&mut self, terms: &Terms) {
        let Some(before) = self.terms.replace(*terms).filter(|before| before != terms) else { return };
        self.grids().for_each(Grid::renew);
        if (before.horizon - terms.horizon).abs() > f64::EPSILON {
            self.rises = Rises::default();
            self.caution = Caution::default();
        } else {
            self.caution.reprice();
        }
    }

    fn grids(&mut self) -> impl Iterator<Item = &mut Grid> {
        let young = self.youth.as_mut().map(|youth| &mut youth.grid);
        std::iter::once(&mut self.grid).chain(young)
    }
}

/// What a bound is worked out for.
struct Ask<'a> {
    nets: &'a Nets,
    terms: &'a Terms,
    prices: &'a Prices,
    /// By how much the machine lives faster than the grid that networks know.
    speed: i32,
    allocated: u64,
}

impl Ask<'_> {
    fn bound(&self, levels: &Levels, rises: &Rises, caution: &Caution, level_bytes: u64) -> Bound {
        let Self { nets, terms, prices, allocated, .. } = *self;
        let paced = Terms { horizon: terms.horizon * f64::from(self.speed), ..*terms };
        let raw = RawFeatures::of(levels, rises, steps_of(paced.horizon));
        let base = raw.base();
        let quantiles = nets.quantiles(&raw.design(), paced.horizon).map(|z| math::exp((z + base).min(10.0)));
        let newness = if self.speed > 1 { youth::NEWNESS } else { caution.newness() };
        let start = nets.start_price(&paced, newness);
        let price = caution.price(terms, start, prices, allocated);
        let mut pick = Pick::cheapest(&quantiles, price);
        // No growth at all is one more candidate: a resident set stands still most of the time.
        // On a faster clock the machine has to have shown that first: what starts up grows.
        let known = self.speed == 1 || caution.is_experienced();
        let still = Pick { level: share(level_bytes, allocated), survival: caution.growth() };
        let unlikely = pick.level < still.level && still.survival < RARE_GROWTH;
        if known && still.cost(price) < pick.cost(price) || unlikely {
            pick.level = still.level * (1.0 + 1e-6);
        }
        let predicted = whole(f64::from(pick.level) * (1.0 + MARGIN) * real(allocated));
        Bound { predicted_bytes: predicted.min(allocated), level_bytes }
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
        let sample = Sample { bytes: sample.bytes.min(allocated), allocated, ..*sample };
        if self.latest.is_none() {
            self.youth = Youth::of(&sample).map(Box::new);
        }
        self.latest = Some(Latest { at: sample.at, allocated });
        self.grid.observe(&sample);
        if let Some(youth) = &mut self.youth {
            youth.observe(&sample);
            if youth.is_over(sample.at) {
                self.youth = None;
                self.grid.renew();
            }
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
