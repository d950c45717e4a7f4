//! Series through the live features: what the network would have been asked at each step, and what came true.

use std::collections::VecDeque;

use super::series::Series;
use crate::{
    domain::{Seconds, real},
    labels::Labels,
    model::{
        Forecast, Sample,
        cqd::{
            features::{COUNT, RawFeatures},
            levels::{Levels, STEP, step_of},
            rises::Rises,
        },
    },
};

/// One judged moment of one machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Features as the network takes them.
    pub design: [f32; COUNT],
    /// Logarithm of the level that quantiles are relative to, a share of the allocation.
    pub base: f32,
    /// The peak over the horizon, a share of the allocation.
    pub peak: f32,
}

/// Hands every judged moment of a series to `each`, in the order of time. The series has at most one reading a step
/// (see [`Series::in_cells`]). Labels are those of the live path, so a long horizon has about thirty in its length.
///
/// The first moment is left out: nothing is known by then.
pub fn replay(series: &Series, horizon: Seconds, mut each: impl FnMut(&Moment)) {
    let (mut levels, mut rises, mut labels) = (Levels::default(), Rises::default(), Labels::default());
    let mut waiting: VecDeque<(Seconds, [f32; COUNT], f32)> = VecDeque::new();
    #[expect(clippy::cast_possible_truncation, reason = "a horizon is at most a day")]
    let steps = (horizon / STEP).ceil() as i32;
    for (nth, (at, bytes)) in series.readings.iter().enumerate() {
        let sample = Sample { at: *at, interval: STEP, bytes: *bytes, allocated: series.allocated };
        labels.observe(&sample, |label| {
            let rise = label.peak_bytes.saturating_sub(label.level_bytes);
            rises.push(step_of(label.made_at + horizon), share(rise, series.allocated));
            // What a gap voided is never judged: it lies before the one that is.
            while waiting.front().is_some_and(|(made_at, _, _)| *made_at < label.made_at - 0.5) {
                waiting.pop_front();
            }
            if let Some((_, design, base)) =
                waiting.pop_front_if(|(made_at, _, _)| *made_at < label.made_at + 0.5)
            {
                each(&Moment { design, base, peak: share(label.peak_bytes, series.allocated) });
            }
        });
        levels.close(step_of(*at), share(*bytes, series.allocated));
        if let Some(step) = levels.step() {
            rises.advance(step);
        }
        let raw = RawFeatures::of(&levels, &rises, steps);
        let forecast = Forecast { made_at: *at, horizon, predicted_bytes: 0, level_bytes: *bytes };
        labels.push(&forecast, &sample);
        if nth > 0 {
            waiting.push_back((*at, raw.design(), raw.base()));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a share of one")]
fn share(bytes: u64, allocated: u64) -> f32 {
    (real(bytes) / real(allocated)).min(1.0) as f32
}
