//! `memharvest backtest`: replays recorded usage through the code that runs live, and says what it would have promised, what
//! would have held, and how much could have been harvested.

mod args;
mod chart;
mod compare;
mod forecasts;
mod output;
mod page;
mod plain;
mod progress;
mod told;

use std::io;
use std::path::Path;
use std::time::Duration;

use memharvest_predictor::backtest::{BacktestError, Series, Settings, Truth};
use memharvest_predictor::domain::{Seconds, Signal};
use memharvest_trace::Trace;

use super::{Context, print};
use crate::Failure;
use crate::backtest_source::SourceError;
pub(crate) use args::BacktestArgs;
use progress::Progress;

/// Why there is no backtest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BacktestFailure {
    /// There is no recorded usage.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It cannot be backtested as asked.
    #[error(transparent)]
    Asked(#[from] BacktestError),
    /// Flags that contradict each other or the trace.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        cause: io::Error,
    },
}

impl BacktestFailure {
    /// 2 where something else should have been asked for, 1 where the machine is in the way.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Source(error) => error.exit_code(),
            Self::Asked(_) | Self::Usage(_) => 2,
            Self::Write { .. } => 1,
        }
    }

    fn write(path: &std::path::Path, cause: io::Error) -> Self {
        Self::Write { path: path.display().to_string(), cause }
    }
}

/// A signal of the trace with what its forecasts should have covered, horizon by horizon.
pub(super) struct Judged {
    series: Series,
    truths: Vec<Truth>,
}

/// All that was asked for, checked.
pub(super) struct Backtest<'a> {
    args: &'a BacktestArgs,
    source: String,
    judged: Vec<Judged>,
    warm_up: Seconds,
}

/// Runs the backtest and tells what came of it.
///
/// # Errors
/// Recorded usage that cannot be used, flags that make no sense with it, or a file that cannot be written.
pub(crate) async fn run(context: &Context, ca: Option<&Path>, args: &BacktestArgs) -> Result<(), Failure> {
    let outputs = args.outputs()?;
    let loading = Progress::labelled(100, "recorded usage");
    let (source, trace) =
        args.source.load(ca, &|percent| loading.reach(percent)).await.map_err(BacktestFailure::from)?;
    loading.clear();
    let backtest = Backtest::prepare(args, source, trace)?;
    let told = if args.compare.is_some() {
        compare::run(&backtest, outputs)?
    } else {
        plain::run(&backtest, outputs)?
    };
    if context.out.json { super::print_json(&told.json) } else { print(&(told.text)(context.out.coloured)) }
}

/// A result in both its forms.
pub(super) struct Told {
    json: serde_json::Value,
    text: Box<dyn Fn(bool) -> String>,
}

impl<'a> Backtest<'a> {
    fn prepare(args: &'a BacktestArgs, source: String, trace: Trace) -> Result<Self, BacktestFailure> {
        let interval = args.interval.map(|interval| interval.as_secs_f64());
        let judged = args
            .signals()
            .map(|signal| {
                let series = Series::of(&trace, signal, interval)?;
                let horizons = args.horizon.iter();
                let truths: Result<Vec<Truth>, BacktestError> =
                    horizons.map(|horizon| Truth::of(&series, horizon.as_secs_f64())).collect();
                Ok(Judged { series, truths: truths? })
            })
            .collect::<Result<Vec<Judged>, BacktestError>>()?;
        drop(trace);
        let span = judged.iter().map(|judged| judged.series.median_span()).fold(f64::INFINITY, f64::min);
        let warm_up = args.warm_up(span)?;
        Ok(Self { args, source, judged, warm_up })
    }

    fn settings<'p>(&self, progress: &'p (dyn Fn(u64) + Sync)) -> Settings<'p> {
        Settings {
            warm_up: self.warm_up,
            cold_start: self.args.cold_start(self.judged[0].series.interval()),
            threads: self.args.threads(),
            stopwatch,
            progress,
        }
    }

    /// Every signal, every horizon.
    fn each(&self) -> impl Iterator<Item = (&Series, &Truth)> {
        self.judged.iter().flat_map(|judged| judged.truths.iter().map(move |truth| (&judged.series, truth)))
    }
}

/// Processor time of this thread: what a reading costs does not depend on what else goes on.
fn stopwatch() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// A signal as traces name it.
const fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Rss => "rss",
        Signal::Demand => "used",
    }
}
