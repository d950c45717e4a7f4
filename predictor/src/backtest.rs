//! Replays a trace through the code that runs live, and scores what it would have promised.
//!
//! A [`Series`] is one signal of a trace; [`Truth`] says what each reading's forecast should have covered. Either comes
//! from the readings alone and knows nothing of the labels that models learn from. [`run`] steps every machine's
//! [`VmState`](crate::vm::VmState) through the series and adds up a [`VmScore`] for each; [`sweep`] does the same with
//! raw forecasts only, for the many settings of a comparison. [`Figures`] sums up the scores, [`curve`] reads
//! comparisons off at equal rates, and [`bootstrap`] says how much of a figure is the choice of machines.
//!
//! Nothing here reads a clock or a file: whoever calls passes a stopwatch and gets told how far it is.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Duration;

use crate::cold_start::ColdStart;
use crate::domain::{Seconds, Signal};
use crate::model::{Model, Terms};

pub mod bootstrap;
pub mod contest;
pub mod curve;
mod figures;
mod models;
mod parallel;
mod raw;
mod replay;
mod score;
mod series;
#[cfg(test)]
mod tests;
mod truth;

pub use figures::{Figures, Spread};
pub use models::knowing;
pub use parallel::map;
pub use score::{Tally, VmScore};
pub use series::{Row, Series, VmSeries};
pub use truth::Truth;

use score::Scoring;

/// Why a trace cannot be backtested as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BacktestError {
    /// No reading has the signal.
    #[error("the trace has no reading of {}; choose the other signal", column(*.0))]
    NoSignal(Signal),
    /// More readings than can be counted.
    #[error("the trace has more than four billion readings; cut it")]
    TooLong,
    /// A peak within the horizon could never be seen.
    #[error(
        "a horizon of {horizon} s is shorter than the sampling interval of {interval} s; use a longer horizon"
    )]
    HorizonTooShort {
        /// What was asked for.
        horizon: Seconds,
        /// How often the trace was sampled.
        interval: Seconds,
    },
}

/// A signal as traces name it.
const fn column(signal: Signal) -> &'static str {
    match signal {
        Signal::Rss => "rss_bytes",
        Signal::Demand => "used_bytes",
    }
}

/// What all runs of a backtest share.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Readings of a machine's first so many seconds are not scored.
    pub warm_up: Seconds,
    /// How much history the guard asks for.
    pub cold_start: ColdStart,
    /// How many runs may go on at once.
    pub threads: NonZeroUsize,
    /// A clock that only rises, such as the processor time of the calling thread: for what a reading costs.
    pub stopwatch: fn() -> Duration,
    /// Is told of readings as they are done with, from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Makes the model of a machine, given its index in [`Series::vms`]; given none, one that is cheap: a model of the signal
/// that is not judged.
pub type Make<'a, M> = &'a (dyn Fn(Option<usize>) -> M + Sync);

/// One run of a backtest: a series, judged by a truth, forecast on terms by the models that `make` makes.
pub struct Case<'a, M> {
    /// The readings.
    pub series: &'a Series,
    /// What forecasts should have covered; for the horizon of `terms`.
    pub truth: &'a Truth,
    /// What is asked of the forecasts.
    pub terms: Terms,
    /// Makes models without history.
    pub make: Make<'a, M>,
}

impl<M> Clone for Case<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Case<'_, M> {}

/// What was published at a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The raw forecast.
    pub predicted: u64,
    /// What was left to harvest after every guard.
    pub harvestable: u64,
}

/// What a case came to.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// By machine, in the order of [`Series::vms`].
    pub scores: Vec<VmScore>,
    /// What was published at each row of [`Series::rows`], where that was asked for.
    pub published: Vec<Published>,
    /// Readings that were taken.
    pub readings: u64,
    /// What the stopwatch saw of that, over all threads, scoring included.
    pub spent: Duration,
}

impl Run {
    fn append(&mut self, other: Self) {
        self.scores.extend(other.scores);
        self.published.extend(other.published);
        self.readings += other.readings;
        self.spent += other.spent;
    }

    /// Nanoseconds that a reading took; `None` where nothing was read.
    #[must_use]
    pub fn nanoseconds_per_reading(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.spent.as_secs_f64() * 1e9 / crate::domain::real(self.readings))
    }
}

/// Runs cases through [`VmState`](crate::vm::VmState), guards and all, and answers in their order. `publish` keeps what
/// was published at every reading: 16 bytes each.
#[must_use]
pub fn run<M: Model>(settings: &Settings<'_>, cases: &[Case<'_, M>], publish: bool) -> Vec<Run> {
    each(settings, cases, |case, vms| {
        let mut scoring = Scoring::new(settings, case.series, case.truth, vms.clone(), publish);
        replay::replay(case, vms, settings.cold_start, |seen| scoring.see(seen));
        scoring.finish()
    })
}

/// Like [`run`], but raw forecasts only: nothing is guarded and nothing harvested. The forecasts are the same, which
/// a test holds it to, and it is several times as fast.
#[must_use]
pub fn sweep<M: Model>(settings: &Settings<'_>, cases: &[Case<'_, M>]) -> Vec<Run> {
    each(settings, cases, |case, vms| {
        let mut scoring = Scoring::new(settings, case.series, case.truth, vms.clone(), false);
        raw::replay(case, vms, |seen| scoring.see(seen));
        scoring.finish()
    })
}

/// Spreads cases over threads. Machines that share no price need not be stepped together, so such a case is cut.
fn each<M: Model>(
    settings: &Settings<'_>,
    cases: &[Case<'_, M>],
    work: impl Fn(&Case<'_, M>, Range<usize>) -> Run + Sync,
) -> Vec<Run> {
    let pieces: Vec<(usize, Range<usize>)> = cases
        .iter()
        .enumerate()
        .flat_map(|(case, of)| {
            let vms = of.series.vms().len();
            let parts = if of.terms.fairness == crate::boundary::Fairness::PerVm {
                settings.threads.get()
            } else {
                1
            };
            let most = vms.div_ceil(parts).max(1);
            (0..vms).step_by(most).map(move |from| (case, from..(from + most).min(vms)))
        })
        .collect();
    let done = parallel::map(settings.threads, &pieces, |(case, vms)| {
        let started = (settings.stopwatch)();
        let mut run = work(&cases[*case], vms.clone());
        run.spent = (settings.stopwatch)().saturating_sub(started);
        run
    });
    let mut runs: Vec<Run> = cases.iter().map(|_| Run::default()).collect();
    for ((case, _), run) in pieces.iter().zip(done) {
        runs[*case].append(run);
    }
    runs
}
