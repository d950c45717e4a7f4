use std::sync::atomic::{AtomicU64, Ordering};

use memharvest_trace::{Trace, TraceFile, demo};

use super::*;
use crate::boundary::Fairness;
use crate::model::Current;

const DAY: f64 = 86_400.0;

fn still() -> Duration {
    Duration::ZERO
}

fn settings(threads: usize) -> Settings<'static> {
    Settings {
        warm_up: DAY,
        cold_start: ColdStart::default(),
        threads: NonZeroUsize::new(threads).unwrap(),
        stopwatch: still,
        progress: &|_| {},
    }
}

/// The first two and a half days of the bundled trace.
fn series(signal: Signal) -> Series {
    let file = TraceFile::from_reader("demo", demo()).unwrap();
    let rows = file.map(Result::unwrap).filter(|row| row.t_seconds <= 2.5 * DAY);
    Series::of(&Trace::from_rows("demo", rows).unwrap(), signal, None).unwrap()
}

fn terms(signal: Signal, fairness: Fairness) -> Terms {
    Terms { signal, horizon: 900.0, target: 0.02, fairness }
}

fn published(series: &Series, fairness: Fairness, threads: usize) -> Run {
    let truth = Truth::of(series, 900.0).unwrap();
    let terms = terms(series.signal(), fairness);
    let case = Case { series, truth: &truth, terms, make: &|_| Current::default() };
    run(&settings(threads), &[case], true).remove(0)
}

#[test]
fn no_forecast_sees_its_future() {
    let whole = series(Signal::Demand);
    let half = 1.5 * DAY;
    let rows = |of: &Series| {
        let machines = of.vms().iter().map(|vm| {
            let rows = of.rows()[vm.rows.clone()].iter().filter(|row| row.at <= half).copied().collect();
            (vm.name.clone(), rows)
        });
        machines.collect()
    };
    let first = Series::new(Signal::Demand, whole.interval(), rows(&whole)).unwrap();
    for fairness in [Fairness::PerVm, Fairness::Capped] {
        let (of_whole, of_first) = (published(&whole, fairness, 2), published(&first, fairness, 1));
        let kept = whole.rows().iter().zip(&of_whole.published).filter(|(row, _)| row.at <= half);
        let kept: Vec<Published> = kept.map(|(_, published)| *published).collect();
        assert_eq!(kept, of_first.published, "{fairness:?}");
    }
}

#[test]
fn threads_change_nothing_but_the_time() {
    let series = series(Signal::Rss);
    let (one, four) = (published(&series, Fairness::PerVm, 1), published(&series, Fairness::PerVm, 4));
    assert_eq!((one.scores, one.published), (four.scores, four.published));
    assert_eq!(one.readings, series.rows().len() as u64);
}

/// The same with an allocation that is halved and doubled again and again, down to what is used and below.
fn resized(series: &Series) -> Series {
    let machines = series.vms().iter().map(|vm| {
        let rows = series.rows()[vm.rows.clone()].iter().enumerate().map(|(nth, row)| {
            let allocated = row.allocated >> (nth / 100 % 4);
            Row { allocated, usage: row.usage.min(allocated), ..*row }
        });
        (vm.name.clone(), rows.collect())
    });
    Series::new(series.signal(), series.interval(), machines.collect()).unwrap()
}

#[test]
fn a_sweep_forecasts_what_a_run_does() {
    let [rss, used] = Signal::ALL.map(series);
    for series in [&resized(&rss), &resized(&used), &used] {
        let truth = Truth::of(series, 900.0).unwrap();
        let terms = [Fairness::PerVm, Fairness::Fleet].map(|fairness| terms(series.signal(), fairness));
        let cases = terms.map(|terms| Case { series, truth: &truth, terms, make: &|_| Current::default() });
        for (guarded, raw) in run(&settings(2), &cases, false).iter().zip(sweep(&settings(2), &cases)) {
            for (guarded, raw) in guarded.scores.iter().zip(&raw.scores) {
                let unguarded = Tally { harvestable: 0.0, backed_off: 0, promises_broken: 0, ..guarded.warm };
                assert!(raw.warm.judged > 0);
                assert_eq!(unguarded, raw.warm);
            }
        }
    }
}

#[test]
fn the_guards_leave_less_than_the_forecast_does() {
    let series = series(Signal::Demand);
    let run = published(&series, Fairness::PerVm, 2);
    let mut harvested = 0;
    for (row, published) in series.rows().iter().zip(&run.published) {
        assert!(published.harvestable <= row.allocated - published.predicted, "{row:?} {published:?}");
        harvested += published.harvestable;
    }
    assert!(harvested > 0);
}

#[test]
fn every_reading_is_told_as_progress() {
    let series = series(Signal::Demand);
    let truth = Truth::of(&series, 900.0).unwrap();
    let done = AtomicU64::new(0);
    let progress = |readings| {
        done.fetch_add(readings, Ordering::Relaxed);
    };
    let settings = Settings { progress: &progress, ..settings(2) };
    let case = Case {
        series: &series,
        truth: &truth,
        terms: terms(Signal::Demand, Fairness::PerVm),
        make: &|_| Current::default(),
    };
    let runs = run(&settings, &[case], false);
    assert_eq!(runs[0].readings, series.rows().len() as u64);
    assert_eq!(done.into_inner(), series.rows().len() as u64);
}

#[test]
fn a_trace_without_the_signal_is_refused() {
    let file = TraceFile::from_reader("tasks", memharvest_trace::bundled::tasks()).unwrap();
    let trace = Trace::read(file).unwrap();
    let error = Series::of(&trace, Signal::Rss, None).unwrap_err();
    assert_eq!(error.to_string(), "the trace has no reading of rss_bytes; choose the other signal");
}
