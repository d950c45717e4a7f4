//! What the scores of machines come to together.

use serde::Serialize;

use super::Tally;
use crate::domain::{Seconds, real};

/// The violation rate over machines: every machine's own share of missed forecasts, and what these are like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean over machines.
    pub mean: f64,
    /// The 95th percentile of the machines, interpolated between neighbours.
    pub p95_vm: f64,
    /// The worst machine.
    pub worst_vm: f64,
    /// The share of all forecasts together.
    pub pooled: f64,
}

/// What a backtest tells of one forecaster. Bytes are weighted as bytes, so large machines count more; rates count every
/// machine alike. `None` is what has no meaning: a severity without a miss, or what only guards make.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Machines with at least one judged forecast.
    pub vms: usize,
    /// Forecasts judged.
    pub judged: u64,
    /// Shares of missed forecasts.
    pub violation_rate: Spread,
    /// Mean over machines of how far their rate is from the target, either way.
    pub calibration_gap: f64,
    /// Mean overshoot of a miss, as a share of the allocation.
    pub severity_of_allocation: Option<f64>,
    /// Mean overshoot of a miss, as a share of the peak.
    pub severity_of_peak: Option<f64>,
    /// Σ(allocated − predicted) / Σ allocated: the harvest before any guard.
    pub harvested_ratio: f64,
    /// Σ predicted / Σ needed: 1 is an oracle.
    pub reserved_to_needed: Option<f64>,
    /// Σ(allocated − predicted) / Σ(allocated − needed): the share of an oracle's harvest.
    pub efficiency: Option<f64>,
    /// What the guards make of it.
    pub guarded: Option<GuardedFigures>,
}

/// What the guards make of forecasts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GuardedFigures {
    /// Σ harvestable / Σ allocated.
    pub harvested_ratio: f64,
    /// Σ harvestable / Σ(allocated − predicted).
    pub share_of_raw: Option<f64>,
    /// Share of the time in which a machine was backed off from.
    pub backoff_share: f64,
    /// Episodes of a broken promise in a machine's day.
    pub promise_violations_per_vm_day: f64,
}

impl Figures {
    /// Sums up; `None` where nothing was judged. `interval` is how often was sampled, `None` where nothing was guarded.
    pub fn of<'a>(
        tallies: impl IntoIterator<Item = &'a Tally>,
        target: f64,
        interval: Option<Seconds>,
    ) -> Option<Self> {
        let (mut sum, mut rates) = (Tally::default(), Vec::new());
        for tally in tallies {
            rates.extend(tally.violation_rate());
            sum.judged += tally.judged;
            sum.missed += tally.missed;
            sum.allocated += tally.allocated;
            sum.predicted += tally.predicted;
            sum.needed += tally.needed;
            sum.harvestable += tally.harvestable;
            sum.overshoot_of_allocation += tally.overshoot_of_allocation;
            sum.overshoot_of_peak += tally.overshoot_of_peak;
            sum.backed_off += tally.backed_off;
            sum.promises_broken += tally.promises_broken;
        }
        let pooled = sum.violation_rate()?;
        let of_vms = real(rates.len() as u64);
        let missed = |total: f64| (sum.missed > 0).then(|| total / real(sum.missed));
        let per = |total: f64, whole: f64| (whole > 0.0).then(|| total / whole);
        let raw = sum.allocated - sum.predicted;
        let guarded = interval.map(|interval| GuardedFigures {
            harvested_ratio: sum.harvestable / sum.allocated,
            share_of_raw: per(sum.harvestable, raw),
            backoff_share: real(sum.backed_off) / real(sum.judged),
            promise_violations_per_vm_day: real(sum.promises_broken) * 86_400.0
                / (real(sum.judged) * interval),
        });
        Some(Self {
            vms: rates.len(),
            judged: sum.judged,
            calibration_gap: rates.iter().map(|rate| (rate - target).abs()).sum::<f64>() / of_vms,
            violation_rate: Spread {
                mean: rates.iter().sum::<f64>() / of_vms,
                worst_vm: rates.iter().copied().fold(0.0, f64::max),
                p95_vm: percentile(&mut rates, 0.95),
                pooled,
            },
            severity_of_allocation: missed(sum.overshoot_of_allocation),
            severity_of_peak: missed(sum.overshoot_of_peak),
            harvested_ratio: raw / sum.allocated,
            reserved_to_needed: per(sum.predicted, sum.needed),
            efficiency: per(raw, sum.allocated - sum.needed),
            guarded,
        })
    }
}

/// The value below which `share` of the values lie, interpolated between the two neighbours. `values` are not empty; their
/// order changes.
pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    let place = share * real(values.len() as u64 - 1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the values")]
    let below = place.floor() as usize;
    let (_, low, rest) = values.select_nth_unstable_by(below, f64::total_cmp);
    let low = *low;
    let high = rest.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    low + (place - place.floor()) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_interpolated() {
        let mut values: Vec<f64> = (0..21).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 0.95) - 19.0).abs() < 1e-12);
        assert!((percentile(&mut [1.0, 3.0], 0.5) - 2.0).abs() < 1e-12);
        assert!((percentile(&mut [4.0], 0.95) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn rates_count_machines_alike_and_bytes_count_as_bytes() {
        let vm = |judged, missed, scale: f64| Tally {
            judged,
            missed,
            allocated: 100.0 * scale,
            predicted: 50.0 * scale,
            needed: 40.0 * scale,
            harvestable: 30.0 * scale,
            overshoot_of_allocation: 0.5 * real(missed),
            overshoot_of_peak: 0.25 * real(missed),
            backed_off: judged / 10,
            promises_broken: 2,
        };
        let tallies = [vm(10, 1, 1.0), vm(90, 0, 3.0), Tally::default()];
        let figures = Figures::of(&tallies, 0.05, Some(864.0)).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        assert_eq!((figures.vms, figures.judged), (2, 100));
        near(figures.violation_rate.mean, 0.05);
        near(figures.violation_rate.pooled, 0.01);
        near(figures.violation_rate.worst_vm, 0.1);
        near(figures.calibration_gap, 0.05);
        near(figures.severity_of_allocation.unwrap(), 0.5);
        near(figures.harvested_ratio, 0.5);
        near(figures.reserved_to_needed.unwrap(), 1.25);
        near(figures.efficiency.unwrap(), 200.0 / 240.0);
        let guarded = figures.guarded.unwrap();
        near(guarded.share_of_raw.unwrap(), 0.6);
        near(guarded.backoff_share, 0.1);
        near(guarded.promise_violations_per_vm_day, 4.0);
        assert_eq!(Figures::of(&[Tally::default()], 0.05, None), None);
    }
}
