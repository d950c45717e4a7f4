//! Figures as cells of a table and as JSON.

use memharvest_predictor::backtest::{Figures, Run, Series, Tally, bootstrap::Intervals};
use serde_json::{Value, json};

use crate::format::{ABSENT, percent};

/// The seed of all bootstrap intervals: the same trace gives the same page.
pub(super) const SEED: u64 = 1;

/// A rate of misses: small, so with three decimals.
pub(super) fn rate(value: f64) -> String {
    percent(Some(value), 3)
}

/// A share of memory.
pub(super) fn share(value: Option<f64>) -> String {
    percent(value, 1)
}

/// A factor.
pub(super) fn factor(value: Option<f64>) -> String {
    value.map_or(ABSENT.to_owned(), |value| format!("{value:.3}"))
}

/// After the warm-up, then of the first day.
pub(super) fn tallies(run: &Run) -> (Vec<Tally>, Vec<Tally>) {
    run.scores.iter().map(|score| (score.warm, score.cold)).unzip()
}

/// A run as scripts read it.
pub(super) fn run_json(run: &Run, series: &Series, target: f64) -> Value {
    let (warm, cold) = tallies(run);
    json!({
        "scored": Figures::of(&warm, target, Some(series.interval())),
        "intervals_95": Intervals::of(&warm, target, Some(series.interval()), SEED),
        "first_day": Figures::of(&cold, target, Some(series.interval())),
        "nanoseconds_per_reading": run.nanoseconds_per_reading(),
    })
}
