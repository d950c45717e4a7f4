//! What a forecast made at each reading should have covered, from the readings alone.
//!
//! Written apart from [`labels`](crate::labels), which models learn from, so that neither can hide an error of the other.

use std::collections::VecDeque;

use super::{BacktestError, Series, series::Row};
use crate::domain::Seconds;

/// Stands for a reading that cannot be judged: no usage is that large.
const VOID: u64 = u64::MAX;

/// More than this many intervals between two readings, and a peak may have passed unseen.
const GAP: f64 = 2.5;

/// A reading that is late by at most this share of the interval still belongs to the window that it should complete: clocks
/// jitter, and a window that loses its last reading to that would be an easier one.
const LATE: f64 = 0.01;

/// Times are sums of seconds; they are compared within this.
const ROUNDING: Seconds = 1e-6;

/// The peak of usage over (t, t + horizon] for every row of a series.
#[derive(Clone, Debug)]
pub struct Truth {
    horizon: Seconds,
    peaks: Vec<u64>,
}

impl Truth {
    /// Looks ahead from every reading. A reading is void, not judged, where its window is touched by a gap of more than two
    /// samples or by a change of the allocation, which voids promises, or where the machine's readings end before the
    /// window does.
    ///
    /// # Errors
    /// When the horizon is shorter than the sampling interval.
    pub fn of(series: &Series, horizon: Seconds) -> Result<Self, BacktestError> {
        let interval = series.interval();
        if horizon + ROUNDING < interval {
            return Err(BacktestError::HorizonTooShort { horizon, interval });
        }
        let mut peaks = Vec::with_capacity(series.rows().len());
        for vm in series.vms() {
            look_ahead(&series.rows()[vm.rows.clone()], horizon, interval, &mut peaks);
        }
        Ok(Self { horizon, peaks })
    }

    /// How far it looks ahead.
    #[must_use]
    pub const fn horizon(&self) -> Seconds {
        self.horizon
    }

    /// The peak that a forecast made at this row should have covered; `None` where it is void.
    #[must_use]
    pub fn peak(&self, row: usize) -> Option<u64> {
        Some(self.peaks[row]).filter(|peak| *peak != VOID)
    }
}

/// The sliding maximum over the rows after each row, in one pass.
fn look_ahead(rows: &[Row], horizon: Seconds, interval: Seconds, peaks: &mut Vec<u64>) {
    // Rows of the window that are larger than every later one.
    let mut highest: VecDeque<usize> = VecDeque::new();
    let (mut end, mut whole) = (0, 0);
    for (row, now) in rows.iter().enumerate() {
        let until = now.at + horizon;
        while end < rows.len() && rows[end].at <= until + LATE * interval + ROUNDING {
            while highest.back().is_some_and(|back| rows[*back].usage <= rows[end].usage) {
                highest.pop_back();
            }
            highest.push_back(end);
            end += 1;
        }
        while highest.front().is_some_and(|front| *front <= row) {
            highest.pop_front();
        }
        // The readings are whole up to this row, and what comes after it is not known.
        whole = whole.max(row);
        while whole + 1 < rows.len() && is_whole(&rows[whole], &rows[whole + 1], GAP * interval) {
            whole += 1;
        }
        let peak = highest.front().filter(|_| rows[whole].at >= until - ROUNDING);
        peaks.push(peak.map_or(VOID, |front| rows[*front].usage));
    }
}

fn is_whole(before: &Row, after: &Row, longest: Seconds) -> bool {
    after.at - before.at <= longest && after.allocated == before.allocated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Signal;

    fn series(rows: &[(f64, u64)]) -> Series {
        let rows = rows.iter().map(|(at, usage)| Row { at: *at, allocated: 100, usage: *usage }).collect();
        Series::new(Signal::Demand, 300.0, vec![("a".into(), rows)]).unwrap()
    }

    fn peaks(rows: &[(f64, u64)], horizon: f64) -> Vec<Option<u64>> {
        let truth = Truth::of(&series(rows), horizon).unwrap();
        (0..rows.len()).map(|row| truth.peak(row)).collect()
    }

    #[test]
    fn the_peak_lies_after_the_reading_and_within_the_horizon() {
        let rows = [(0.0, 90), (300.0, 5), (600.0, 7), (900.0, 3), (1200.0, 8)];
        assert_eq!(peaks(&rows, 600.0), [Some(7), Some(7), Some(8), None, None]);
        assert_eq!(peaks(&rows, 300.0), [Some(5), Some(7), Some(3), Some(8), None]);
    }

    #[test]
    fn a_reading_that_is_a_little_late_completes_the_window_and_one_that_is_later_does_not() {
        let late_by = |late| peaks(&[(0.0, 1), (300.0, 2), (600.0 + late, 3), (900.0, 4)], 600.0)[0];
        assert_eq!([late_by(0.0), late_by(1.0), late_by(3.0)], [Some(3); 3]);
        assert_eq!([late_by(4.0), late_by(60.0)], [Some(2); 2]);
    }

    #[test]
    fn one_missing_sample_is_bridged_and_two_void_what_they_touch() {
        let one = [(0.0, 1), (300.0, 2), (900.0, 3), (1200.0, 4)];
        assert_eq!(peaks(&one, 600.0), [Some(2), Some(3), None, None]);
        let two = [(0.0, 1), (300.0, 2), (600.0, 2), (1500.0, 3), (1800.0, 4), (2100.0, 5)];
        assert_eq!(peaks(&two, 600.0), [Some(2), None, None, Some(5), None, None]);
    }

    #[test]
    fn a_resize_voids_what_was_promised_before_it() {
        let mut rows: Vec<Row> =
            (0..5u32).map(|n| Row { at: f64::from(n) * 300.0, allocated: 100, usage: n.into() }).collect();
        rows[3].allocated = 200;
        rows[4].allocated = 200;
        let series = Series::new(Signal::Demand, 300.0, vec![("a".into(), rows)]).unwrap();
        let truth = Truth::of(&series, 300.0).unwrap();
        let peaks: Vec<_> = (0..5).map(|row| truth.peak(row)).collect();
        assert_eq!(peaks, [Some(1), Some(2), None, Some(4), None]);
    }

    #[test]
    fn a_horizon_without_a_sample_in_it_is_refused() {
        let error = Truth::of(&series(&[(0.0, 1), (300.0, 1)]), 60.0).unwrap_err();
        assert!(error.to_string().contains("shorter than the sampling interval of 300 s"), "{error}");
    }

    proptest! {
        #[test]
        fn it_agrees_with_looking_at_every_pair(
            steps in prop::collection::vec((1u32..4, 0u64..50), 1..40), horizon in 1u32..6,
        ) {
            let mut at = 0.0;
            let rows: Vec<(f64, u64)> = steps.iter().map(|(step, usage)| {
                at += f64::from(*step) * 300.0;
                (at, *usage)
            }).collect();
            let horizon = f64::from(horizon) * 300.0;
            let slow: Vec<Option<u64>> = (0..rows.len()).map(|now| {
                let until = rows[now].0 + horizon;
                let mut last = now;
                while last + 1 < rows.len() && rows[last].0 < until {
                    if rows[last + 1].0 - rows[last].0 > 750.0 {
                        return None;
                    }
                    last += 1;
                }
                if rows[last].0 < until {
                    return None;
                }
                rows.iter().filter(|(at, _)| *at > rows[now].0 && *at <= until).map(|(_, usage)| *usage).max()
            }).collect();
            prop_assert_eq!(peaks(&rows, horizon), slow);
        }
    }
}
