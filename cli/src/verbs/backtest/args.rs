//! What can be asked for.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::cold_start::ColdStart;
use memharvest_predictor::domain::{Seconds, Signal};
use memharvest_predictor::model::choice::Choice;

use super::BacktestFailure;
use super::output::OutputFile;
use crate::backtest_source::SourceArgs;

/// After this much history a machine counts, where the trace is long enough.
const WARM_UP: Seconds = 7.0 * 86_400.0;

const HOUR: Seconds = 3600.0;

/// The targets that a comparison sweeps where none are given.
pub(super) const SWEPT: [f64; 7] = [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/// Replay recorded usage through the predictor, and see what would have been promised and what would have held
#[derive(Debug, clap::Args)]
pub(crate) struct BacktestArgs {
    /// What is forecast; `demand` is another word for `used`
    #[arg(long, value_enum, value_delimiter = ',', default_value = "used", value_name = "SIGNAL")]
    signal: Vec<SignalArg>,
    /// How far forecasts look ahead; several, separated by commas, are all run
    #[arg(long, value_parser = span, value_delimiter = ',', default_value = "15m", value_name = "DURATION")]
    pub(super) horizon: Vec<Duration>,
    /// Share of forecasts that may be exceeded, above 0 and below 1; several, separated by commas, are all run [default: 0.01;
    /// to compare: 0.1 to 0.001]
    #[arg(long, value_parser = rate, value_delimiter = ',', value_name = "RATE")]
    target_violation_rate: Vec<f64>,
    /// Over whom that share is kept: every machine, the fleet with no machine above twice it, or the fleet alone
    /// [default: `per_vm`; to compare: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAIRNESS")]
    fairness: Vec<FairnessArg>,
    /// What forecasts
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(super) model: Choice,
    /// Compare the model with every other one, each tuned in hindsight to the same violation rates
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with = "forecasts")]
    pub(super) compare: Option<Compare>,
    /// Write what was published at every reading to this file (gzipped where it ends in `.gz`)
    #[arg(long, value_name = "FILE")]
    forecasts: Option<PathBuf>,
    /// Draw the comparison's curves into this file
    #[arg(long, value_name = "FILE", requires = "compare")]
    svg: Option<PathBuf>,
    /// Write the comparison with its curves as a page into this file
    #[arg(long, value_name = "FILE", requires = "compare")]
    html: Option<PathBuf>,
    /// Each machine's first readings, which do not count [default: 7d, or half of a shorter trace]
    #[arg(long, value_parser = span_or_none, value_name = "DURATION")]
    warm_up: Option<Duration>,
    /// Time until the first harvest of a machine, as the predictor's setting
    #[arg(long, value_parser = span_or_none, value_name = "DURATION", default_value = "2h")]
    cold_start: Duration,
    /// How often was sampled [default: the median interval]
    #[arg(long, value_parser = span, value_name = "DURATION")]
    pub(super) interval: Option<Duration>,
    /// How many processors to use [default: all]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SignalArg {
    #[value(alias = "demand")]
    Used,
    Rss,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum FairnessArg {
    PerVm,
    Capped,
    Fleet,
}

/// Whom to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compare {
    /// Every model that the program has
    All,
}

/// The files that were asked for, opened.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) forecasts: Option<(PathBuf, OutputFile)>,
    pub(super) svg: Option<(PathBuf, OutputFile)>,
    pub(super) html: Option<(PathBuf, OutputFile)>,
}

impl BacktestArgs {
    /// Opens what is to be written, and refuses what would not fit into it.
    pub(super) fn outputs(&self) -> Result<Outputs, BacktestFailure> {
        if self.forecasts.is_some()
            && (self.horizon.len(), self.signal.len(), self.fairness.len().max(1)) != (1, 1, 1)
        {
            return Err(BacktestFailure::Usage(
                "--forecasts has no column for signal, horizon or fairness; give one of each".to_owned(),
            ));
        }
        let begin = |path: &Option<PathBuf>| -> Result<Option<(PathBuf, OutputFile)>, BacktestFailure> {
            let open =
                |path: &Path| OutputFile::begin(path).map_err(|cause| BacktestFailure::write(path, cause));
            path.as_deref().map(|path| Ok((path.to_owned(), open(path)?))).transpose()
        };
        Ok(Outputs { forecasts: begin(&self.forecasts)?, svg: begin(&self.svg)?, html: begin(&self.html)? })
    }

    pub(super) fn signals(&self) -> impl Iterator<Item = Signal> {
        self.signal.iter().map(|signal| match signal {
            SignalArg::Used => Signal::Demand,
            SignalArg::Rss => Signal::Rss,
        })
    }

    pub(super) fn targets(&self) -> Vec<f64> {
        match (self.target_violation_rate.is_empty(), self.compare) {
            (false, _) => self.target_violation_rate.clone(),
            (true, None) => vec![0.01],
            (true, Some(Compare::All)) => SWEPT.to_vec(),
        }
    }

    pub(super) fn fairness(&self) -> Vec<Fairness> {
        let given = self.fairness.iter().map(|fairness| match fairness {
            FairnessArg::PerVm => Fairness::PerVm,
            FairnessArg::Capped => Fairness::Capped,
            FairnessArg::Fleet => Fairness::Fleet,
        });
        match (self.fairness.is_empty(), self.compare) {
            (false, _) => given.collect(),
            (true, None) => vec![Fairness::PerVm],
            (true, Some(Compare::All)) => vec![Fairness::PerVm, Fairness::Capped, Fairness::Fleet],
        }
    }

    /// The warm-up for a trace that follows its machines for `span`.
    pub(super) fn warm_up(&self, span: Seconds) -> Result<Seconds, BacktestFailure> {
        let Some(asked) = self.warm_up else {
            let half = span / 2.0;
            let unit = if half < HOUR { 1.0 } else { HOUR };
            return Ok(WARM_UP.min((half / unit).floor() * unit));
        };
        if asked.as_secs_f64() >= span {
            let told = |seconds: Seconds| {
                let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
                humantime::format_duration(whole).to_string()
            };
            return Err(BacktestFailure::Usage(format!(
                "the trace follows its machines for {}, which leaves nothing after a warm-up of {}; give a shorter --warm-up",
                told(span),
                told(asked.as_secs_f64())
            )));
        }
        Ok(asked.as_secs_f64())
    }

    pub(super) fn cold_start(&self, interval: Seconds) -> ColdStart {
        ColdStart::first_harvest_after(self.cold_start.as_secs_f64(), interval)
    }

    pub(super) fn threads(&self) -> NonZeroUsize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.trim().parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate < 1.0);
    rate.ok_or_else(|| format!("{text:?} is no rate above 0 and below 1; write 0.01 for 1 %"))
}

fn span(text: &str) -> Result<Duration, String> {
    span_or_none(text).and_then(|span| {
        if span.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(span) }
    })
}

fn span_or_none(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| format!("{error}; write 15m, 1h or 7d"))
}
