//! `peaks-v1`: the bound is a rung on a ladder of recent peaks, and a tracker decides how high to climb.
//!
//! The ladder of a VM goes from its usage now over its peaks of the last 15 minutes, hour, 6 hours and day, each with
//! some noise on top, to the largest rises within a horizon that were seen in a day and in a week. Between rungs it is
//! interpolated, past the last one continued. After each judged forecast the tracker climbs
//! by `step·(missed − target)`: a VM that breaks its forecasts climbs until they hold often enough, one that never
//! does comes down to where its missed share is the target. That is the quantile tracker of online conformal
//! prediction (Angelopoulos, Candès and Tibshirani 2023, "Conformal PID control for time series prediction"; the
//! proportional part alone), on the ladder's scale instead of bytes, so noisy demand and a resident set that climbs
//! in stairs are served by the same numbers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, real, whole},
    labels::Label,
    model::{Forecast, Model, Prices, Sample, Terms, ring::MaxRing},
};

const DAY: Seconds = 86_400.0;

const RUNGS: usize = 8;

/// How many times the last gap between rungs the tracker may go past the last rung.
const BEYOND: f64 = 3.0;

/// How far one missed horizon lifts the tracker, in rungs. Tuned once on real demand; half or twice as much changes
/// the harvest by about a hundredth.
const STEP: f64 = 0.5;

/// Where the tracker starts: near the peak of a day.
const START: f64 = 5.0;

/// Span over which the mean change between samples is averaged.
const NOISE_WINDOW: Seconds = 6.0 * 3600.0;

/// The smallest rise that is thought possible, as a share of the allocation.
const LEAST_RISE: f64 = 0.003;

/// The rise that is thought possible before anything was judged; it shrinks to [`LEAST_RISE`] over a judged day.
const UNSEEN_RISE: f64 = 0.03;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peaks {
    quarter: MaxRing<5>,
    hour: MaxRing<6>,
    six_hours: MaxRing<12>,
    day: MaxRing<24>,
    rises_day: MaxRing<24>,
    rises_week: MaxRing<28>,
    noise: f64,
    climbed: f64,
    judged: Seconds,
    latest: Option<Sample>,
}

impl Default for Peaks {
    fn default() -> Self {
        Self {
            quarter: MaxRing::over(900.0),
            hour: MaxRing::over(3600.0),
            six_hours: MaxRing::over(6.0 * 3600.0),
            day: MaxRing::over(DAY),
            rises_day: MaxRing::over(DAY),
            rises_week: MaxRing::over(7.0 * DAY),
            noise: 0.0,
            climbed: START,
            judged: 0.0,
            latest: None,
        }
    }
}

impl Peaks {
    fn ladder(&self, sample: &Sample) -> [f64; RUNGS] {
        let now = real(sample.bytes);
        let unseen = UNSEEN_RISE * (1.0 - self.judged / DAY).max(0.0);
        let rise = self.noise.max(LEAST_RISE.max(unseen) * real(sample.allocated));
        let day_rise = self.rises_day.max().max(rise);
        let week_rise = self.rises_week.max().max(day_rise);
        let mut rungs = [
            now,
            now + rise,
            self.quarter.max() + rise,
            self.hour.max() + rise,
            self.six_hours.max() + 2.0 * rise,
            (self.day.max() + 3.0 * rise).min(now + day_rise),
            now + day_rise,
            now + 2.0 * week_rise,
        ];
        for rung in 1..RUNGS {
            rungs[rung] = rungs[rung].max(rungs[rung - 1]);
        }
        rungs
    }
}

impl Model for Peaks {
    fn version(&self) -> Cow<'static, str> {
        "peaks-v1".into()
    }

    fn observe(&mut self, sample: &Sample) {
        let now = real(sample.bytes);
        if let Some(before) = self.latest {
            let passed = (sample.at - before.at).max(0.0);
            let share = 1.0 - (-passed / NOISE_WINDOW).exp();
            self.noise += share * ((now - real(before.bytes)).abs() - self.noise);
        }
        self.quarter.advance(sample.at);
        self.quarter.push(now);
        self.hour.advance(sample.at);
        self.hour.push(now);
        self.six_hours.advance(sample.at);
        self.six_hours.push(now);
        self.day.advance(sample.at);
        self.day.push(now);
        self.rises_day.advance(sample.at);
        self.rises_week.advance(sample.at);
        self.latest = Some(*sample);
    }

    fn learn(&mut self, label: &Label, terms: &Terms, _: &mut Prices) {
        let missed = if label.missed() { 1.0 } else { 0.0 };
        let step = STEP * label.weight;
        #[expect(clippy::cast_precision_loss, reason = "eight rungs")]
        let top = (RUNGS - 1) as f64 + BEYOND;
        self.climbed = (self.climbed + step * (missed - terms.target)).clamp(0.0, top);
        self.judged += label.weight * terms.horizon;
        let rise = real(label.peak_bytes.saturating_sub(label.level_bytes));
        // `learn` comes right before `observe` of the sample that completed the label, so the rings may lag by one.
        let completed = label.made_at + terms.horizon;
        self.rises_day.advance(completed);
        self.rises_week.advance(completed);
        self.rises_day.push(rise);
        self.rises_week.push(rise);
    }

    fn forecast(&mut self, terms: &Terms, _: &Prices) -> Option<Forecast> {
        let sample = self.latest?;
        let rungs = self.ladder(&sample);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
        let below = (self.climbed.floor() as usize).min(RUNGS - 2);
        #[expect(clippy::cast_precision_loss, reason = "eight rungs")]
        let part = self.climbed - below as f64;
        let bound = rungs[below] + part * (rungs[below + 1] - rungs[below]);
        Some(Forecast {
            made_at: sample.at,
            horizon: terms.horizon,
            predicted_bytes: whole(bound).clamp(sample.bytes, sample.allocated.max(sample.bytes)),
        })
    }

    fn reset(&mut self) {
        *self = Self { climbed: self.climbed.max(START), ..Self::default() };
    }
}

#[cfg(test)]
mod tests;
