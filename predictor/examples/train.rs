//! Trains the weights that the program ships (`make train`): one file a horizon, in a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use memharvest_predictor::domain::{Seconds, Signal};
use memharvest_predictor::model::cqd::weights::WeightsFile;
use memharvest_predictor::train::gather::is_steady;
use memharvest_predictor::train::{self, Recipe, Series, Split};
use memharvest_trace::Trace;

/// Trains the forecaster's networks on recorded usage.
#[derive(Parser)]
struct Arguments {
    /// Folder of traces: every *.csv and *.csv.gz in it.
    #[arg(long, default_value = "trace/data")]
    traces: PathBuf,
    /// Folder that the weights are written to.
    #[arg(long, default_value = "predictor/weights")]
    out: PathBuf,
    /// Horizons, in minutes.
    #[arg(long, value_delimiter = ',', default_value = "5,15,60,360,1440")]
    horizons: Vec<u32>,
    /// Machines to learn from; the rest is never looked at.
    #[arg(long, value_enum, default_value = "all")]
    split: Part,
    /// What the weights say of where the traces come from.
    #[arg(long, default_value = "Bitbrains GWA-T-12 \"Rnd\" (Grid Workloads Archive)")]
    source: String,
    /// Steps of gradient descent.
    #[arg(long, default_value_t = Recipe::default().steps)]
    steps: usize,
    /// Where chance starts: the same seed gives the same weights.
    #[arg(long, default_value_t = Recipe::default().seed)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    All,
    First,
    Second,
}

impl From<Part> for Split {
    fn from(part: Part) -> Self {
        match part {
            Part::All => Self::All,
            Part::First => Self::First,
            Part::Second => Self::Second,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let split = Split::from(arguments.split);
    let (series, files) = series_of(&arguments.traces, split)?;
    let machines = series.iter().filter(|series| series.signal == Signal::Demand).count();
    let source =
        format!("{}: {}, {machines} machines ({})", arguments.source, files.join(", "), split.name());
    tell(&source);
    let recipe = Recipe { steps: arguments.steps, seed: arguments.seed, ..Recipe::default() };
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("{}", arguments.out.display()))?;
    for minutes in &arguments.horizons {
        let began = Instant::now();
        let mut sum = 0.0;
        let weights =
            train::train(&series, 60.0 * Seconds::from(*minutes), &recipe, &source, |step, loss| {
                sum += loss;
                if step % 500 == 499 {
                    tell(&format!("{minutes} min: step {}, loss {:.5}", step + 1, sum / 500.0));
                    sum = 0.0;
                }
            })?;
        let path = arguments.out.join(format!("{minutes}m.json"));
        std::fs::write(&path, text_of(&weights)?).with_context(|| format!("{}", path.display()))?;
        tell(&format!(
            "{} after {:.0} s: {}",
            path.display(),
            began.elapsed().as_secs_f64(),
            weights.provenance
        ));
    }
    Ok(())
}

/// All series of the machines in a part of the traces, and the names of the files.
fn series_of(folder: &Path, split: Split) -> anyhow::Result<(Vec<Series>, Vec<String>)> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".csv") || name.ends_with(".csv.gz")
    });
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "no *.csv or *.csv.gz in {}", folder.display());
    let (mut series, mut names) = (Vec::new(), Vec::new());
    for path in paths {
        let trace = Trace::load(&path)?;
        let before = series.len();
        let kept = |series: &Series| split.holds(&series.name) && is_steady(series);
        series.extend(Series::of(&trace).into_iter().filter(kept));
        if series.len() > before {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok((series, names))
}

/// JSON with a row of a matrix a line, so that a change can be read.
fn text_of(weights: &WeightsFile) -> serde_json::Result<String> {
    let text = serde_json::to_string(weights)?;
    Ok(format!("{}\n", text.replace("],[", "],\n  [").replace("],\"", "],\n \"").replace("[[", "[\n  [")))
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn tell(what: &str) {
    eprintln!("{what}");
}
