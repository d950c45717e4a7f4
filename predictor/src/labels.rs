//! How raw forecasts fared: each sampled forecast waits until its horizon has passed and is then judged by the peak
//! that was seen. Nothing is judged early, and a gap in the readings voids what it touches.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    domain::Seconds,
    model::{Forecast, Sample},
};

/// Forecasts that may wait at once. With faster sampling than a thirtieth of the horizon, one forecast in that span
/// stands for all of them, chosen by the clock alone.
const SLOTS: f64 = 30.0;

/// A judged raw forecast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// When the forecast was made.
    pub made_at: Seconds,
    /// Usage when it was made.
    pub level_bytes: u64,
    /// What was predicted.
    pub predicted_bytes: u64,
    /// The largest usage over (made, made + horizon].
    pub peak_bytes: u64,
    /// How many horizons this forecast stands for: the time since the label before, in horizons, at most 1.
    pub weight: f64,
}

impl Label {
    /// Whether usage exceeded the forecast.
    #[must_use]
    pub const fn missed(&self) -> bool {
        self.peak_bytes > self.predicted_bytes
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    label: Label,
    seen: bool,
}

/// The forecasts of one signal that wait for their horizon to pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Labels {
    waiting: VecDeque<Waiting>,
    last_made: Option<Seconds>,
    last_at: Option<Seconds>,
    horizon: Seconds,
}

impl Labels {
    /// Takes the next sample and hands every forecast whose horizon has now passed to `judged`, oldest first.
    /// A gap longer than one and a half intervals and a sixth of the horizon voids all that wait.
    pub fn observe(&mut self, sample: &Sample, mut judged: impl FnMut(&Label)) {
        if let Some(last) = self.last_at
            && sample.at - last > (1.5 * sample.interval).max(self.horizon / 6.0)
        {
            self.void();
        }
        // The half-open window (made, made + horizon] does not reach to this sample: it is complete without it.
        self.resolve_before(sample.at, &mut judged);
        for waiting in &mut self.waiting {
            waiting.label.peak_bytes = waiting.label.peak_bytes.max(sample.bytes);
            waiting.seen = true;
        }
        self.resolve(sample.at, &mut judged);
        self.last_at = Some(sample.at);
    }

    /// Lets a new forecast wait, made at the latest sample. A changed horizon voids the others.
    pub fn push(&mut self, forecast: &Forecast, sample: &Sample) {
        if (self.horizon - forecast.horizon).abs() > f64::EPSILON {
            self.void();
            self.horizon = forecast.horizon;
        }
        let slot = forecast.horizon / SLOTS;
        let since = self.last_made.map_or(sample.interval, |last| forecast.made_at - last);
        if self.last_made.is_some() && since < slot * 0.999 {
            return;
        }
        self.last_made = Some(forecast.made_at);
        let weight = (since.min(sample.interval.max(slot)) / forecast.horizon).clamp(0.0, 1.0);
        let label = Label {
            made_at: forecast.made_at,
            level_bytes: sample.bytes,
            predicted_bytes: forecast.predicted_bytes,
            peak_bytes: 0,
            weight,
        };
        self.waiting.push_back(Waiting { label, seen: false });
    }

    /// Drops all that wait, unjudged.
    pub fn void(&mut self) {
        self.waiting.clear();
    }

    fn resolve(&mut self, at: Seconds, judged: &mut impl FnMut(&Label)) {
        while self.waiting.front().is_some_and(|front| front.label.made_at + self.horizon <= at) {
            self.pop(judged);
        }
    }

    fn resolve_before(&mut self, at: Seconds, judged: &mut impl FnMut(&Label)) {
        while self.waiting.front().is_some_and(|front| front.label.made_at + self.horizon < at) {
            self.pop(judged);
        }
    }

    fn pop(&mut self, judged: &mut impl FnMut(&Label)) {
        // A window without any sample proves nothing.
        if let Some(done) = self.waiting.pop_front().filter(|done| done.seen) {
            judged(&done.label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Seconds, bytes: u64) -> Sample {
        Sample { at, interval: 300.0, bytes, allocated: 1000 }
    }

    fn feed(steps: &[(Seconds, u64, u64)]) -> Vec<Label> {
        let (mut labels, mut out) = (Labels::default(), Vec::new());
        for &(at, bytes, predicted_bytes) in steps {
            let sample = sample(at, bytes);
            labels.observe(&sample, |label| out.push(*label));
            labels.push(&Forecast { made_at: at, horizon: 900.0, predicted_bytes }, &sample);
        }
        out
    }

    #[test]
    fn a_forecast_is_judged_by_the_peak_after_it_and_not_before_its_horizon() {
        let steps = [(0.0, 900, 50), (300.0, 10, 50), (600.0, 60, 60), (900.0, 20, 60), (1200.0, 30, 60)];
        assert!(feed(&steps[..3]).is_empty());
        let labels = feed(&steps);
        assert_eq!(labels.len(), 2);
        assert_eq!((labels[0].peak_bytes, labels[0].missed()), (60, true));
        assert_eq!((labels[1].peak_bytes, labels[1].missed()), (60, true));
    }

    #[test]
    fn a_gap_voids_what_waits() {
        let labels = feed(&[
            (0.0, 1, 5),
            (300.0, 1, 5),
            (1200.0, 9, 5),
            (1500.0, 1, 5),
            (1800.0, 1, 5),
            (2100.0, 1, 5),
        ]);
        assert_eq!(labels.len(), 1);
        assert!((labels[0].made_at - 1200.0).abs() < 1e-9 && !labels[0].missed());
    }

    #[test]
    fn fast_sampling_keeps_few_that_stand_for_all() {
        let (mut labels, mut weight, mut most) = (Labels::default(), 0.0, 0);
        for second in 0..9000u32 {
            let sample = Sample { at: f64::from(second), interval: 1.0, bytes: 1, allocated: 10 };
            labels.observe(&sample, |label| weight += label.weight);
            let forecast = Forecast { made_at: sample.at, horizon: 900.0, predicted_bytes: 5 };
            labels.push(&forecast, &sample);
            most = most.max(labels.waiting.len());
        }
        assert!(most <= 32, "{most}");
        assert!((8.9..9.1).contains(&weight), "{weight} horizons in nine");
    }
}
