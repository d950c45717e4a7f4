//! The recorded usage that is measured on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use memharvest_predictor::backtest::Series;
use memharvest_predictor::domain::Signal;
use memharvest_predictor::train::Split;
use memharvest_trace::{Trace, TraceFile, bundled, demo};

use crate::{DAY, held_back};

/// The machines that networks are trained on; the others are reported.
pub(crate) const TRAINED: Split = Split::First;

/// What is measured on.
pub(crate) struct Data {
    /// Where it is from.
    pub(crate) source: String,
    /// The signal `used` of the machines that are reported.
    pub(crate) used: Series,
    /// The signal `rss` of the same.
    pub(crate) rss: Series,
    /// Short tasks, the signal `used`: nothing is trained on them.
    pub(crate) tasks: Series,
    /// What is not scored: a week, or half of a shorter trace.
    pub(crate) warm_up: f64,
}

impl Data {
    /// Loads it, and has networks trained on the other half.
    pub(crate) fn prepare(quick: bool) -> anyhow::Result<Self> {
        let folder = std::env::var_os("TRACES").map(PathBuf::from);
        let (source, trace, tasks) = match &folder {
            Some(folder) => (
                "`vms-5min.csv.gz` and `tasks-2s.csv.gz`".to_owned(),
                load(&folder.join("vms-5min.csv.gz"))?,
                load(&folder.join("tasks-2s.csv.gz"))?,
            ),
            None => (
                "the extracts that the program carries".to_owned(),
                Trace::read(TraceFile::from_reader("demo", demo())?)?,
                Trace::read(TraceFile::from_reader("tasks", bundled::tasks())?)?,
            ),
        };
        held_back::train(&trace, quick)?;
        // A quarter of the half, by the same hash: quick.
        let few = |name: &str| !quick || name.bytes().last().is_some_and(|byte| byte % 4 == 0);
        let reported = |name: &str| !TRAINED.holds(name) && few(name);
        let used = Series::of(&trace, Signal::Demand, None)?.select(reported)?;
        let rss = Series::of(&trace, Signal::Rss, None)?.select(reported)?;
        let tasks = Series::of(&tasks, Signal::Demand, None)?;
        let warm_up = (7.0 * DAY).min((used.median_span() / 2.0).floor());
        Ok(Self { source, used, rss, tasks, warm_up })
    }
}

fn load(path: &Path) -> anyhow::Result<Trace> {
    Trace::load(path).context("TRACES")
}
