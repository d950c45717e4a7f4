//! Rows for a network out of many series: as they were, begun anew at random places, and faster than they were.

use super::{
    chance::Chance,
    fit::Rows,
    replay::{Moment, replay},
    series::Series,
};
use crate::{
    domain::{Seconds, Signal, real},
    model::cqd::levels::STEP,
};

/// Share of the moments of a series that become rows: neighbours say much the same.
const SHARE: f64 = 0.35;

/// How often each machine is begun anew at a random place, so that the network knows machines without a past.
const RESTARTS: usize = 8;
/// How many readings a new beginning lasts: two days.
const RESTART_READINGS: usize = 600;
/// Share of their moments that become rows.
const RESTART_SHARE: f64 = 0.6;

/// How many steps' maxima become one step of a machine that lives faster, and the share of its moments that become rows.
const FASTER: [(f64, f64); 2] = [(2.0, 0.23), (3.0, 0.23)];

/// New beginnings of a machine from whose first days prices are worked out, and the readings of a day.
const FIRST_DAYS: usize = 10;
const DAY_READINGS: usize = 288;

/// All rows for a horizon.
#[must_use]
pub fn gather(series: &[Series], horizon: Seconds, chance: &mut Chance) -> Rows {
    let mut rows = Rows::default();
    let steady: Vec<Series> =
        series.iter().filter(|series| is_steady(series)).map(|series| series.in_cells(STEP, 0.0)).collect();
    for signal in Signal::ALL {
        let mut set = Rows::default();
        for series in steady.iter().filter(|series| series.signal == signal) {
            add(&mut set, series, horizon, SHARE, chance);
        }
        rows.append(evened(set));
    }
    let mut set = Rows::default();
    for series in steady.iter().filter(|series| series.signal == Signal::Demand) {
        for _ in 0..RESTARTS {
            let part = anew(series, RESTART_READINGS, chance);
            add(&mut set, &part, horizon, RESTART_SHARE, chance);
        }
    }
    rows.append(evened(set));
    for (times, share) in FASTER {
        let mut set = Rows::default();
        for series in &steady {
            let shift = (chance.unit() * times).floor() * STEP;
            add(&mut set, &series.in_cells(times * STEP, shift), horizon, share, chance);
        }
        rows.append(evened(set));
    }
    rows
}

/// Moments of demand with what the machine holds, for the table of prices: one in twenty of all.
#[must_use]
pub fn moments(series: &[Series], horizon: Seconds, chance: &mut Chance) -> Vec<(Moment, u64)> {
    let mut moments = Vec::new();
    for series in series.iter().filter(|series| series.signal == Signal::Demand && is_steady(series)) {
        let whole = series.in_cells(STEP, 0.0);
        each(&whole, horizon, 0.05, chance, |moment| moments.push((*moment, series.allocated)));
    }
    moments
}

/// The same of first days: machines begun anew at random places.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a horizon is at most a day")]
pub fn first_days(series: &[Series], horizon: Seconds, chance: &mut Chance) -> Vec<(Moment, u64)> {
    let readings = DAY_READINGS + (horizon / STEP).ceil() as usize;
    let mut moments = Vec::new();
    for series in series.iter().filter(|series| series.signal == Signal::Demand && is_steady(series)) {
        let whole = series.in_cells(STEP, 0.0);
        for _ in 0..FIRST_DAYS {
            let day = anew(&whole, readings, chance);
            each(&day, horizon, 0.3, chance, |moment| moments.push((*moment, series.allocated)));
        }
    }
    moments
}

/// The machine as if it had begun at a random reading.
fn anew(series: &Series, readings: usize, chance: &mut Chance) -> Series {
    let room = series.readings.len().saturating_sub(readings);
    series.stretch(chance.below(room), readings)
}

/// Whether a series is sampled about once a step; from others nothing is learnt.
#[must_use]
pub fn is_steady(series: &Series) -> bool {
    series.interval().is_some_and(|interval| interval > 0.5 * STEP)
}

fn add(rows: &mut Rows, series: &Series, horizon: Seconds, share: f64, chance: &mut Chance) {
    each(series, horizon, share, chance, |moment| {
        rows.features.extend(moment.design);
        rows.labels.push(moment.peak.max(0.001).ln() - moment.base);
        rows.weights.push(weight(moment, series.allocated));
    });
}

/// A random share of the moments of a series.
fn each(series: &Series, horizon: Seconds, share: f64, chance: &mut Chance, mut take: impl FnMut(&Moment)) {
    replay(series, horizon, |moment| {
        if chance.unit() < share {
            take(moment);
        }
    });
}

/// Large machines count more, but not by as much as they are larger.
#[expect(clippy::cast_possible_truncation, reason = "a weight needs few digits")]
fn weight(moment: &Moment, allocated: u64) -> f32 {
    (f64::from(moment.base).exp() * real(allocated)).sqrt() as f32
}

/// Makes the mean weight of a set 1, so that sets count by how many rows they have.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean")]
fn evened(mut rows: Rows) -> Rows {
    let sum: f64 = rows.weights.iter().map(|weight| f64::from(*weight)).sum();
    let mean = (sum / rows.len().max(1) as f64).max(f64::MIN_POSITIVE) as f32;
    rows.weights.iter_mut().for_each(|weight| *weight /= mean);
    rows
}
