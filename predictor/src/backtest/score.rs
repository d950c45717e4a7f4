//! Adds up, machine by machine, how forecasts fared.

use std::ops::Range;

use super::replay::Seen;
use super::{Published, Run, Series, Settings, Truth};
use crate::domain::{Seconds, real};

/// A machine's first so many seconds are its cold start, unless the warm-up is shorter.
const COLD: Seconds = 86_400.0;

/// The progress is told after so many readings.
const TOLD_EVERY: u64 = 8192;

/// Sums over the forecasts of one machine that could be judged. Bytes are summed as real numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Forecasts judged.
    pub judged: u64,
    /// Those of them whose horizon's peak was higher.
    pub missed: u64,
    /// Bytes allocated.
    pub allocated: f64,
    /// Bytes predicted.
    pub predicted: f64,
    /// Bytes needed: the peaks.
    pub needed: f64,
    /// Bytes that could be harvested after every guard; 0 in a sweep.
    pub harvestable: f64,
    /// By how much misses were exceeded, as shares of the allocation.
    pub overshoot_of_allocation: f64,
    /// By how much misses were exceeded, as shares of the peak.
    pub overshoot_of_peak: f64,
    /// Forecasts made while a backoff ran; 0 in a sweep.
    pub backed_off: u64,
    /// Episodes of a broken promise that opened; 0 in a sweep.
    pub promises_broken: u64,
}

impl Tally {
    fn add(&mut self, allocated: u64, peak: u64, seen: &Seen) {
        self.judged += 1;
        self.allocated += real(allocated);
        self.predicted += real(seen.predicted);
        self.needed += real(peak);
        if peak > seen.predicted {
            let over = real(peak - seen.predicted);
            self.missed += 1;
            self.overshoot_of_allocation += over / real(allocated);
            self.overshoot_of_peak += over / real(peak);
        }
        if let Some(guarded) = seen.guarded {
            self.harvestable += real(guarded.harvestable);
            self.backed_off += u64::from(guarded.backed_off);
            self.promises_broken += u64::from(guarded.promise_broken);
        }
    }

    /// Share of judged forecasts that were missed; `None` where none was judged.
    #[must_use]
    pub fn violation_rate(&self) -> Option<f64> {
        (self.judged > 0).then(|| real(self.missed) / real(self.judged))
    }
}

/// How one machine's forecasts fared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VmScore {
    /// After the warm-up: what counts.
    pub warm: Tally,
    /// In the machine's first 24 hours, or in the warm-up where that is shorter.
    pub cold: Tally,
}

/// Scores the machines of one piece of a run.
pub(super) struct Scoring<'a> {
    settings: &'a Settings<'a>,
    series: &'a Series,
    truth: &'a Truth,
    vms: Range<usize>,
    first_row: usize,
    run: Run,
    told: u64,
}

impl<'a> Scoring<'a> {
    pub(super) fn new(
        settings: &'a Settings<'a>,
        series: &'a Series,
        truth: &'a Truth,
        vms: Range<usize>,
        publish: bool,
    ) -> Self {
        let first_row = series.vms()[vms.start].rows.start;
        let rows = series.vms()[vms.end - 1].rows.end - first_row;
        // A row without a forecast promises nothing.
        let nothing = |row: usize| Published { predicted: series.rows()[row].allocated, harvestable: 0 };
        let published =
            if publish { (first_row..first_row + rows).map(nothing).collect() } else { Vec::new() };
        let run = Run { scores: vec![VmScore::default(); vms.len()], published, ..Run::default() };
        Self { settings, series, truth, vms, first_row, run, told: 0 }
    }

    pub(super) fn see(&mut self, seen: &Seen) {
        self.run.readings += 1;
        if self.run.readings - self.told == TOLD_EVERY {
            self.told = self.run.readings;
            (self.settings.progress)(TOLD_EVERY);
        }
        if let (Some(published), Some(guarded)) =
            (self.run.published.get_mut(seen.row - self.first_row), seen.guarded)
        {
            *published = Published { predicted: seen.predicted, harvestable: guarded.harvestable };
        }
        let Some(peak) = self.truth.peak(seen.row) else { return };
        let rows = self.series.rows();
        let row = &rows[seen.row];
        let age = row.at - rows[self.series.vms()[seen.vm].rows.start].at;
        let score = &mut self.run.scores[seen.vm - self.vms.start];
        if age >= self.settings.warm_up {
            score.warm.add(row.allocated, peak, seen);
        }
        if age < COLD.min(self.settings.warm_up) {
            score.cold.add(row.allocated, peak, seen);
        }
    }

    pub(super) fn finish(self) -> Run {
        (self.settings.progress)(self.run.readings - self.told);
        self.run
    }
}
