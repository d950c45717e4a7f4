//! How good the forecasts are, measured on recorded usage.
//!
//! `TRACES=dir cargo bench -p memharvest-predictor --bench forecast` takes `vms-5min.csv.gz` and `tasks-2s.csv.gz` from
//! that folder, or the two extracts that the program carries where `TRACES` is not set, and prints a page. With `-- page`
//! it writes `docs/benchmarks/forecast.md`, too; with `-- quick` it trains shortly and reports a
//! quarter of the machines.

#[path = "forecast/calibration.rs"]
mod calibration;
#[path = "forecast/data.rs"]
mod data;
#[path = "forecast/fast.rs"]
mod fast;
#[path = "forecast/guarded.rs"]
mod guarded;
#[path = "forecast/held_back.rs"]
mod held_back;
#[path = "forecast/machine.rs"]
mod machine;
#[path = "forecast/ratios.rs"]
mod ratios;
#[path = "forecast/report.rs"]
mod report;
#[path = "forecast/tasks.rs"]
mod tasks;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::Context;
use memharvest_predictor::backtest::{Settings, Truth};
use memharvest_predictor::cold_start::ColdStart;

use data::Data;
use report::Report;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks/forecast.md");

const DAY: f64 = 86_400.0;

/// The targets that are swept: ratios are read between them.
const TARGETS: [f64; 7] = [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/// Seed of everything that is drawn.
const SEED: u64 = 1;

fn main() -> anyhow::Result<()> {
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    let quick = asked("quick");
    let started = Instant::now();
    let busy = machine::busy()?;
    let data = Data::prepare(quick)?;
    let mut report = Report::new(&data, busy);
    for (minutes, ratio_bounds) in [(15.0, ratios::AT_15_MINUTES), (60.0, ratios::AT_60_MINUTES)] {
        let truth = Truth::of(&data.used, minutes * 60.0)?;
        say(&format!("every model, {minutes} minutes ahead"));
        let contest = ratios::contest(&settings(data.warm_up), &data.used, &truth);
        ratios::tell(&mut report, &contest, minutes, &ratio_bounds);
        calibration::tell(&mut report, &contest, minutes);
    }
    say("resident sets");
    calibration::rss(&mut report, &data)?;
    say("short tasks");
    tasks::tell(&mut report, &data)?;
    say("readings every 5 s");
    fast::tell(&mut report, &data, quick)?;
    say("guards");
    guarded::tell(&mut report, &data)?;
    let page = report.page(started.elapsed());
    if asked("page") {
        std::fs::write(PAGE, &page).with_context(|| format!("cannot write {PAGE}"))?;
    }
    #[expect(clippy::print_stdout, reason = "what was asked for")]
    {
        println!("{page}");
    }
    Ok(())
}

/// Settings of a run on all processors, silent.
fn settings(warm_up: f64) -> Settings<'static> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Settings { warm_up, cold_start: ColdStart::default(), threads, stopwatch, progress: &|_| {} }
}

/// Processor time of this thread: what a reading costs does not depend on what else goes on.
fn stopwatch() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// Tells on standard error what goes on: a whole run takes a while.
#[expect(clippy::print_stderr, reason = "progress for whoever waits")]
fn say(text: &str) {
    eprintln!("bench: {text}");
}
