//! What the guards leave of the harvest, and what a reading costs on its way through all of them.

use memharvest_predictor::backtest::bootstrap::Intervals;
use memharvest_predictor::backtest::{Case, Figures, Series, Tally, Truth, run};
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::model::Terms;

use crate::data::Data;
use crate::report::{Bound, Report, percent, target, within};
use crate::{SEED, held_back, settings};

const HORIZON: f64 = 900.0;
const ASKED: [f64; 2] = [0.05, 0.01];

pub(crate) fn tell(report: &mut Report, data: &Data) -> anyhow::Result<()> {
    report.section(
        "After every guard, 15 minutes ahead, `per_vm`",
        "The same readings through the whole of a machine's live state: headroom, growth, slow raise, quantum and backoff.",
    );
    let mut rows = Vec::new();
    for (name, series) in [("used", &data.used), ("rss", &data.rss)] {
        rows.extend(of(report, data, name, series)?);
    }
    let head = [
        "signal, target",
        "harvested before any guard",
        "after every guard",
        "guarded ÷ raw",
        "time in backoff",
        "promises broken in a VM's day",
        "a reading took",
    ];
    report.table(&head, &rows);
    Ok(())
}

fn of(report: &mut Report, data: &Data, name: &str, series: &Series) -> anyhow::Result<Vec<Vec<String>>> {
    let truth = Truth::of(series, HORIZON)?;
    let cases = ASKED.map(|target| Case {
        series,
        truth: &truth,
        terms: Terms { signal: series.signal(), horizon: HORIZON, target, fairness: Fairness::PerVm },
        make: &held_back::make,
    });
    let mut rows = Vec::new();
    for (run, asked) in run(&settings(data.warm_up), &cases, false).iter().zip(ASKED) {
        let tallies: Vec<Tally> = run.scores.iter().map(|score| score.warm).collect();
        let figures = Figures::of(&tallies, asked, Some(series.interval()));
        let Some((figures, guarded)) = figures.and_then(|figures| Some((figures, figures.guarded?))) else {
            continue;
        };
        let intervals = Intervals::of(&tallies, asked, Some(series.interval()), SEED);
        let bounded = (asked - 0.01).abs() < 1e-9;
        let mut held = |what: &str, value: Option<f64>, bound| {
            if bounded {
                report.held(&format!("{name} 15 min, target 1 %: {what}"), value, bound, percent)
            } else {
                value.map_or("-".to_owned(), percent)
            }
        };
        let share = held("guarded ÷ raw harvest", guarded.share_of_raw, Bound::AtLeast(0.85));
        let backoff = held("time in backoff", Some(guarded.backoff_share), Bound::AtMost(0.03));
        rows.push(vec![
            format!("`{name}`, {}", target(asked)),
            percent(figures.harvested_ratio) + &within(intervals.harvested_ratio, percent),
            percent(guarded.harvested_ratio),
            share + &within(intervals.guarded_share_of_raw, percent),
            backoff + &within(intervals.backoff_share, percent),
            format!("{:.2}", guarded.promise_violations_per_vm_day),
            run.nanoseconds_per_reading()
                .map_or("-".to_owned(), |nanoseconds| format!("{nanoseconds:.0} ns")),
        ]);
    }
    Ok(rows)
}
