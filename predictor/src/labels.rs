//! How raw forecasts fared: each sampled forecast waits until its horizon has passed and is then judged by the peak
//! that was seen. Nothing is judged early, and a gap in the readings voids what it touches.

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, real, whole},
    model::{Forecast, Sample, ring::round_up},
};

/// Forecasts that may wait at once. With faster sampling than a thirtieth of the horizon, one forecast in that span
/// stands for all of them, chosen by the clock alone.
const SLOTS: f64 = 30.0;

/// Room for them, whatever the jitter.
const ROOM: usize = 31;

/// A gap of more than this share of the horizon voids what waits, however fast the sampling.
const GAP: f64 = 1.0 / 8.0;

/// A reading that is late by at most this share of the interval still belongs to the horizon that it should complete.
pub(crate) const LATE: f64 = 0.01;

/// A judged raw forecast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// When the forecast was made.
    pub made_at: Seconds,
    /// Usage that it rested on when it was made.
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

/// Bytes in single precision, rounded up: what did not exceed the forecast still does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Waiting {
    /// Milliseconds since the epoch, the lowest bits.
    made: u32,
    level: f32,
    predicted: f32,
    weight: f32,
    /// The largest usage since it was made and before the next one was; `None` is below zero.
    peak: f32,
}

/// The forecasts of one signal that wait for their horizon to pass, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    waiting: [Waiting; ROOM],
    first: u8,
    count: u8,
    last_made: Option<Seconds>,
    last_at: Option<Seconds>,
    horizon: Seconds,
}

impl Labels {
    /// Takes the next sample and hands every forecast whose horizon has now passed to `judged`, oldest first.
    /// A gap longer than one and a half intervals and an eighth of the horizon voids all that wait.
    pub fn observe(&mut self, sample: &Sample, mut judged: impl FnMut(&Label)) {
        if let Some(last) = self.last_at
            && sample.at - last > (1.5 * sample.interval).max(self.horizon * GAP)
        {
            self.void();
        }
        let horizon = milliseconds(self.horizon);
        // The half-open window (made, made + horizon] does not reach to this sample: it is complete without it.
        self.resolve(
            sample.at,
            horizon.saturating_add(milliseconds(LATE * sample.interval)) + 1,
            &mut judged,
        );
        if let Some(newest) = self.count.checked_sub(1) {
            let newest = &mut self.waiting[self.index(newest)];
            newest.peak = newest.peak.max(round_up(real(sample.bytes)));
        }
        self.resolve(sample.at, horizon, &mut judged);
        self.last_at = Some(sample.at);
    }

    /// Lets a new forecast wait, made at the latest sample. A changed horizon voids the others.
    #[expect(clippy::cast_possible_truncation, reason = "a weight of at most 1")]
    pub fn push(&mut self, forecast: &Forecast, sample: &Sample) {
        if (self.horizon - forecast.horizon).abs() > f64::EPSILON {
            self.void();
            self.horizon = forecast.horizon;
        }
        let slot = forecast.horizon / SLOTS;
        let since = self.last_made.map_or(sample.interval, |last| forecast.made_at - last);
        let full = usize::from(self.count) == ROOM;
        if full || self.last_made.is_some() && since < slot * 0.999 {
            return;
        }
        self.last_made = Some(forecast.made_at);
        let weight = (since.min(sample.interval.max(slot)) / forecast.horizon).clamp(0.0, 1.0);
        self.waiting[self.index(self.count)] = Waiting {
            made: low_milliseconds(forecast.made_at),
            level: round_up(real(forecast.level_bytes)),
            predicted: round_up(real(forecast.predicted_bytes)),
            weight: weight as f32,
            peak: -1.0,
        };
        self.count += 1;
    }

    /// Drops all that wait, unjudged.
    pub fn void(&mut self) {
        self.count = 0;
    }

    /// Judges what has waited for `age` milliseconds.
    fn resolve(&mut self, at: Seconds, age: u32, judged: &mut impl FnMut(&Label)) {
        while self.count > 0 {
            let oldest = self.waiting[self.index(0)];
            let waited = low_milliseconds(at).wrapping_sub(oldest.made);
            if waited < age {
                return;
            }
            let peak =
                (0..self.count).fold(-1.0, |peak: f32, nth| peak.max(self.waiting[self.index(nth)].peak));
            self.first = u8::try_from(self.index(1)).unwrap_or(0);
            self.count -= 1;
            // A window without any sample proves nothing.
            if peak >= 0.0 {
                judged(&Label {
                    made_at: at - f64::from(waited) / 1000.0,
                    level_bytes: whole(f64::from(oldest.level)),
                    predicted_bytes: whole(f64::from(oldest.predicted)),
                    peak_bytes: whole(f64::from(peak)),
                    weight: f64::from(oldest.weight),
                });
            }
        }
    }

    /// Where the nth oldest waits.
    fn index(&self, nth: u8) -> usize {
        (usize::from(self.first) + usize::from(nth)) % ROOM
    }
}

/// A span in whole milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn milliseconds(span: Seconds) -> u32 {
    ((span * 1000.0 + 0.5) as u32).min(u32::MAX / 4)
}

/// The lowest bits of a moment in milliseconds: enough for differences of up to some weeks.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the lowest bits are wanted")]
fn low_milliseconds(at: Seconds) -> u32 {
    ((at * 1000.0 + 0.5) as i64) as u32
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
            labels.push(
                &Forecast { made_at: at, horizon: 900.0, predicted_bytes, level_bytes: bytes },
                &sample,
            );
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
        let (mut labels, mut weight, mut most) = (Labels::default(), 0.0, 0u8);
        for second in 0..9000u32 {
            let sample = Sample { at: f64::from(second), interval: 1.0, bytes: 1, allocated: 10 };
            labels.observe(&sample, |label| weight += label.weight);
            let forecast =
                Forecast { made_at: sample.at, horizon: 900.0, predicted_bytes: 5, level_bytes: 1 };
            labels.push(&forecast, &sample);
            most = most.max(labels.count);
        }
        assert!(most <= 32, "{most}");
        assert!((8.9..9.1).contains(&weight), "{weight} horizons in nine");
    }
}
