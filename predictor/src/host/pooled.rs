//! The forecast of a host's summed usage, which needs far less reserve than the sum of its machines' forecasts, because
//! they do not peak at the same time. How far they do is measured, not assumed: it is in every sample of the sum.
//!
//! Everything is learnt in shares of what the pooled machines hold together. A machine that comes, goes or is resized
//! thus rescales what was learnt instead of ending it; what was promised ends where that is more than a small part.

use memharvest_proto::predictor::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::boundary::{Effective, Fairness};
use crate::convert::duration;
use crate::coverage::Judged;
use crate::domain::{Seconds, Signal, real, whole};
use crate::guard::{Inputs, QUANTUM};
use crate::model::ring::MaxRing;
use crate::model::{Current, Prices, choice::Choice};
use crate::vm::HostContext;
use crate::vm::change_point::ChangePoint;
use crate::vm::track::{Moment, Track};

/// What the pooled machines hold together, on the scale that is learnt in.
const SCALE: u64 = 1 << 40;

/// A change of what they hold by more than this share ends what was promised.
const SMALL: f64 = 0.05;

/// Peaks over a day.
pub(super) type Peaks = MaxRing<8>;

/// Sums over the machines that are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    allocated: u64,
    usage: u64,
    peaks: f64,
}

impl Sums {
    /// Adds a machine, unless something keeps it from being harvested at all: then it is no part of the pool either.
    /// What an operator wants left alone counts as used. `peak` is its own largest usage of the day.
    pub(super) fn add(&mut self, inputs: &Inputs, usage: Option<u64>, peak: f64) {
        let effective = &inputs.effective;
        let kept = effective.excluded.value
            || effective.signal.value.is_some_and(|only| only != Signal::Rss)
            || inputs.closed.is_some()
            || inputs.predicted.is_none()
            || inputs.backoff.is_some()
            || inputs.budget_spent
            || inputs.history.allowance <= 0.0;
        let Some(usage) = usage.filter(|_| !kept) else { return };
        let capped =
            whole(real(inputs.allocated) * (1.0 - effective.max_harvest_ratio.value).clamp(0.0, 1.0));
        let used = usage.max(effective.floor_bytes.value).max(capped).min(inputs.allocated);
        self.allocated = self.allocated.saturating_add(inputs.allocated);
        self.usage = self.usage.saturating_add(used);
        self.peaks += peak;
    }
}

/// The forecaster of one host's sum.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pooled {
    track: Track<Current>,
    allocated: u64,
    peaks: Peaks,
}

impl Default for Pooled {
    fn default() -> Self {
        Self::forecast_by(Choice::default())
    }
}

/// An empty day of peaks.
pub(super) fn day_of_peaks() -> Peaks {
    Peaks::over(86_400.0)
}

/// When and how a host was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct When<'a> {
    pub(super) at: Seconds,
    pub(super) interval: Seconds,
    pub(super) effective: &'a Effective,
    pub(super) host: &'a HostContext,
}

impl Pooled {
    /// A forecaster without history, with this model.
    pub(super) fn forecast_by(model: Choice) -> Self {
        Self { track: Track::of(Signal::Rss, model.build()), allocated: 0, peaks: day_of_peaks() }
    }

    /// Takes the sums of a reading; `None` while no machine is pooled. Says what was judged.
    pub(super) fn observe(&mut self, when: &When<'_>, sums: &Sums) -> Option<(pb::PooledForecast, Judged)> {
        if sums.allocated == 0 {
            return None;
        }
        let moved = real(self.allocated.abs_diff(sums.allocated));
        if moved > SMALL * real(self.allocated) {
            self.track.interrupt(ChangePoint::Interrupted, when.at, &mut Vec::new());
        }
        self.allocated = sums.allocated;
        let effective = scaled(when.effective, sums.allocated);
        let moment = Moment {
            at: when.at,
            interval: when.interval,
            allocated: SCALE,
            effective: &effective,
            host: when.host,
        };
        let share = real(sums.usage) / real(sums.allocated);
        let usage = whole(share * real(SCALE)).min(SCALE);
        // Nothing is shared between hosts: every pool keeps its own target.
        let judged = self.track.take(&moment, Some(usage), &mut Prices::default(), &mut Vec::new());
        let harvest = self.track.publish(&moment, SCALE, None);
        self.peaks.advance(when.at);
        self.peaks.push(real(usage));

        let bytes = |scaled: u64| real(scaled) / real(SCALE) * real(sums.allocated);
        let result = bytes(harvest.result);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded down to whole bytes"
        )]
        let harvestable = (result as u64).min(sums.allocated.saturating_sub(sums.usage));
        let day = self.track.coverage().day();
        let forecast = pb::PooledForecast {
            allocated_bytes: sums.allocated,
            usage_bytes: sums.usage,
            predicted_bytes: harvest.inputs.predicted.map_or(sums.allocated, |scaled| whole(bytes(scaled))),
            harvestable_bytes: harvestable - harvestable % QUANTUM,
            horizon: Some(duration(effective.horizon.value)),
            target_violation_rate: effective.target_violation_rate.value,
            judged: day.forecasts,
            held: day.held,
            peak_ratio: (sums.peaks > 0.0).then(|| (bytes(whole(self.peaks.max())) / sums.peaks).min(1.0)),
        };
        Some((forecast, judged))
    }
}

/// The host's boundary on the scale of shares. What it says of single machines is in the sums already.
fn scaled(effective: &Effective, allocated: u64) -> Effective {
    let mut scaled = effective.clone();
    let least = real(effective.headroom_bytes.value) / real(allocated) * real(SCALE);
    scaled.headroom_bytes.value = whole(least).min(SCALE);
    scaled.floor_bytes.value = 0;
    scaled.max_harvest_ratio.value = 1.0;
    scaled.fairness.value = Fairness::PerVm;
    scaled.signal.value = None;
    scaled.excluded.value = false;
    scaled.upper_usage_bytes.value = None;
    scaled.lower_usage_bytes.value = None;
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold_start::ColdStart;

    const GIB: u64 = 1 << 30;

    fn sums(machines: u64, usage: u64) -> Sums {
        Sums { allocated: machines * 8 * GIB, usage, peaks: real(machines * 4 * GIB) }
    }

    fn run(
        pool: &mut Pooled,
        from: u32,
        steps: u32,
        sums: impl Fn(u32) -> Sums,
    ) -> (pb::PooledForecast, Judged) {
        let host =
            HostContext { cold_start: ColdStart::first_harvest_after(60.0, 5.0), ..HostContext::default() };
        let effective = Effective::default();
        let readings = (from..from + steps).map(|step| {
            let when = When { at: f64::from(step) * 5.0, interval: 5.0, effective: &effective, host: &host };
            pool.observe(&when, &sums(step)).unwrap()
        });
        let mut all = Judged::default();
        let last = readings.inspect(|(_, judged)| all.merge(judged)).last().unwrap().0;
        (last, all)
    }

    #[test]
    fn peaks_that_take_turns_need_less_reserve_than_their_sum() {
        // Ten machines, of which one at a time uses 4 GiB and all others 1 GiB.
        let mut pool = Pooled::default();
        let (last, judged) = run(&mut pool, 0, 4000, |_| sums(10, 13 * GIB));
        assert!((0.3..0.35).contains(&last.peak_ratio.unwrap()), "13 of 40 GiB: {last:?}");
        assert!(last.harvestable_bytes > 60 * GIB, "{last:?}");
        assert!(last.predicted_bytes >= 13 * GIB && judged.forecasts > 0 && !judged.any_missed());
        assert_eq!(last.harvestable_bytes % QUANTUM, 0);
    }

    #[test]
    fn a_machine_that_comes_rescales_and_a_large_change_ends_what_was_promised() {
        let mut pool = Pooled::default();
        run(&mut pool, 0, 4000, |_| sums(40, 52 * GIB));
        let (small, _) = run(&mut pool, 4000, 1, |_| sums(41, 54 * GIB));
        assert!(small.harvestable_bytes > 230 * GIB, "{small:?}");
        let (large, judged) = run(&mut pool, 4001, 1, |_| sums(80, 160 * GIB));
        assert!(!judged.any_missed(), "what was open under half of the machines says nothing of all");
        assert!(large.harvestable_bytes <= 480 * GIB);
        assert_eq!(
            pool.observe(
                &When {
                    at: 1e6,
                    interval: 5.0,
                    effective: &Effective::default(),
                    host: &HostContext::default()
                },
                &Sums::default(),
            ),
            None
        );
    }
}
