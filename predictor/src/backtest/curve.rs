//! Forecasters compared at equal violation rates.
//!
//! A forecaster with a dial (a target, a margin) is a curve: at each setting some rate of misses, and some bytes reserved for
//! each byte needed. Two single settings say nothing of each other; the curves, read at the same rate, do. In
//! between settings a curve is interpolated along the logarithm of the rate, and never continued. The best
//! of several at a rate is the lowest there: tuned in hindsight, for that very rate, on the very data that it is judged
//! on, which nobody can do in advance.

use serde::Serialize;

use super::bootstrap::{Interval, draws};
use super::figures::percentile;
use super::{Tally, VmScore};
use crate::domain::real;

/// Which violation rate two forecasters have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The mean over machines.
    Mean,
    /// That of the machine at the 95th percentile: what an operator promises.
    P95Vm,
}

impl Axis {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mean, Self::P95Vm];
}

/// A forecaster at one setting of its dial.
#[derive(Clone, Debug)]
pub struct Point {
    /// The setting, in the forecaster's own words.
    pub setting: String,
    /// Whether it is the one that was published as the default.
    pub is_default: bool,
    /// How it fared, machine by machine.
    pub scores: Vec<VmScore>,
}

/// A forecaster over all settings of its dial, in their order.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The forecaster.
    pub name: String,
    /// Its settings.
    pub points: Vec<Point>,
}

impl Point {
    /// After the warm-up, machine by machine.
    #[must_use]
    pub fn warm(&self) -> impl ExactSizeIterator<Item = &Tally> {
        self.scores.iter().map(|score| &score.warm)
    }

    /// Violation rate, and bytes reserved for each byte needed; `None` where nothing was judged or needed.
    #[must_use]
    pub fn place(&self, axis: Axis) -> Option<(f64, f64)> {
        self.place_of(axis, 0..self.scores.len())
    }

    fn place_of(&self, axis: Axis, machines: impl Iterator<Item = usize>) -> Option<(f64, f64)> {
        let (mut rates, mut predicted, mut needed) = (Vec::new(), 0.0, 0.0);
        for tally in machines.map(|vm| &self.scores[vm].warm) {
            rates.extend(tally.violation_rate());
            predicted += tally.predicted;
            needed += tally.needed;
        }
        if rates.is_empty() || needed <= 0.0 {
            return None;
        }
        let rate = match axis {
            Axis::Mean => rates.iter().sum::<f64>() / real(rates.len() as u64),
            Axis::P95Vm => percentile(&mut rates, 0.95),
        };
        Some((rate, predicted / needed))
    }
}

impl Sweep {
    /// Bytes reserved for each byte needed where the curve passes a rate; `None` where it does not reach it.
    #[must_use]
    pub fn at(&self, axis: Axis, rate: f64) -> Option<f64> {
        let places: Vec<_> = self.points.iter().map(|point| point.place(axis)).collect();
        read(&places, rate)
    }

    fn places_of(&self, axis: Axis, machines: &[usize]) -> Vec<Option<(f64, f64)>> {
        self.points.iter().map(|point| point.place_of(axis, machines.iter().copied())).collect()
    }
}

/// Where the line through the places passes `rate`; the lowest where it does so more than once.
fn read(places: &[Option<(f64, f64)>], rate: f64) -> Option<f64> {
    let pairs = places.windows(2).filter_map(|pair| Some((pair[0]?, pair[1]?)));
    let crossings = pairs.filter_map(|((from, low), (to, high))| {
        if from <= 0.0 || to <= 0.0 || rate < from.min(to) || rate > from.max(to) {
            return None;
        }
        let whole = (to / from).ln();
        let part = if whole.abs() < 1e-12 { 0.5 } else { (rate / from).ln() / whole };
        Some(low + part * (high - low))
    });
    crossings.min_by(f64::total_cmp)
}

/// A forecaster against the best of others at one rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Which violation rate is equal.
    pub axis: Axis,
    /// That rate.
    pub rate: f64,
    /// What it reserves for each byte needed.
    pub reserved_to_needed: Option<f64>,
    /// What the best of the others does.
    pub best: Option<f64>,
    /// Which of the others that is.
    pub best_name: Option<String>,
    /// The first by the second: below 1 it reserves less.
    pub ratio: Option<f64>,
    /// Within which 95 % of the draws of machines lie.
    pub ratio_interval: Option<Interval>,
}

/// What one reserves at a rate, and what the best of the others does, with its index.
type Read = (Option<f64>, Option<(f64, usize)>);

/// Compares a forecaster with the best of others at each of the rates. All have scored the same machines.
#[must_use]
pub fn compare(ours: &Sweep, others: &[Sweep], axis: Axis, rates: &[f64], seed: u64) -> Vec<Comparison> {
    let all: Vec<usize> = (0..ours.points.first().map_or(0, |point| point.scores.len())).collect();
    let read_all = |machines: &[usize]| -> Vec<Read> {
        let own = ours.places_of(axis, machines);
        let theirs: Vec<_> = others.iter().map(|other| other.places_of(axis, machines)).collect();
        let best = |rate: f64| {
            let reached =
                theirs.iter().enumerate().filter_map(|(at, places)| Some((read(places, rate)?, at)));
            reached.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        rates.iter().map(|rate| (read(&own, *rate), best(*rate))).collect()
    };
    let ratio = |(own, best): &Read| Some((*own)? / best.as_ref()?.0);
    let mut drawn: Vec<Vec<f64>> = vec![Vec::new(); rates.len()];
    for machines in draws(all.len(), seed) {
        for (values, reading) in drawn.iter_mut().zip(read_all(&machines)) {
            values.extend(ratio(&reading));
        }
    }
    let readings = read_all(&all);
    rates
        .iter()
        .zip(readings.iter().zip(drawn))
        .map(|(rate, (reading, values))| Comparison {
            axis,
            rate: *rate,
            reserved_to_needed: reading.0,
            best: reading.1.map(|(best, _)| best),
            best_name: reading.1.map(|(_, at)| others[at].name.clone()),
            ratio: ratio(reading),
            ratio_interval: ratio(reading).and_then(|_| Interval::of(values)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(name: &str, points: &[(u64, f64)]) -> Sweep {
        let tally = |missed, predicted| Tally {
            judged: 1000,
            missed,
            allocated: 1000.0,
            predicted,
            needed: 100.0,
            ..Tally::default()
        };
        let points = points.iter().map(|(missed, predicted)| Point {
            setting: missed.to_string(),
            is_default: false,
            scores: vec![VmScore { warm: tally(*missed, *predicted), ..VmScore::default() }; 30],
        });
        Sweep { name: name.to_owned(), points: points.collect() }
    }

    #[test]
    fn a_curve_is_read_along_the_logarithm_of_the_rate_and_never_continued() {
        let curve = sweep("a", &[(100, 100.0), (10, 200.0), (1, 300.0)]);
        let at = |rate| curve.at(Axis::Mean, rate);
        assert!((at(0.01).unwrap() - 2.0).abs() < 1e-9);
        assert!((at(0.1_f64.sqrt() / 10.0).unwrap() - 1.5).abs() < 1e-9);
        assert_eq!((at(0.2), at(0.0005)), (None, None));
    }

    #[test]
    fn a_setting_without_a_miss_has_no_place_on_the_axis() {
        assert_eq!(sweep("a", &[(10, 200.0), (0, 300.0)]).at(Axis::Mean, 0.001), None);
    }

    #[test]
    fn the_best_of_the_others_is_another_at_another_rate() {
        let ours = sweep("ours", &[(100, 100.0), (1, 200.0)]);
        let others = [sweep("b", &[(100, 120.0), (1, 500.0)]), sweep("c", &[(100, 300.0), (1, 320.0)])];
        let read = compare(&ours, &others, Axis::P95Vm, &[0.1, 0.001, 0.5], 1);
        let told: Vec<_> =
            read.iter().map(|read| (read.best_name.as_deref(), read.ratio.is_some())).collect();
        assert_eq!(told, [(Some("b"), true), (Some("c"), true), (None, false)]);
        assert!((read[0].ratio.unwrap() - 100.0 / 120.0).abs() < 1e-9);
        let interval = read[0].ratio_interval.unwrap();
        assert!((interval.low - interval.high).abs() < 1e-9, "machines that are all alike leave no doubt");
        assert_eq!(read[2].ratio_interval, None);
    }
}
