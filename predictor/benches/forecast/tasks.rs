//! Short-lived tasks that ramp up fast, read every two seconds: a stress, with networks that were trained on machines.

use memharvest_predictor::backtest::bootstrap::Intervals;
use memharvest_predictor::backtest::curve::Axis;
use memharvest_predictor::backtest::{Case, Figures, Tally, Truth, run};
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::cold_start::ColdStart;
use memharvest_predictor::model::Terms;

use crate::data::Data;
use crate::report::{Bound, Report, factor, percent, rate, target, within};
use crate::{SEED, TARGETS, held_back, ratios, settings};

const HORIZON: f64 = 300.0;
const WARM_UP: f64 = 120.0;
/// What is asked for, and what may come.
const ASKED: f64 = 0.02;
const WANTED: f64 = 0.05;

pub(crate) fn tell(report: &mut Report, data: &Data) -> anyhow::Result<()> {
    let series = &data.tasks;
    let truth = Truth::of(series, HORIZON)?;
    let settings = settings(WARM_UP);
    let contest = ratios::contest(&settings, series, &truth);
    report.section(
        "Short tasks, 5 minutes ahead",
        &format!(
            "{} container tasks, {} readings, one in {} s, scored after 2 minutes of each, harvest allowed after 2 minutes. Nothing was \
             trained on them.",
            series.vms().len(),
            series.rows().len(),
            series.interval(),
        ),
    );
    let per_vm = &contest.ours[0];
    let mut rows = Vec::new();
    for (point, asked) in per_vm.points.iter().zip(TARGETS) {
        let Some((mean, reserved)) = point.place(Axis::Mean) else { continue };
        let tallies: Vec<Tally> = point.warm().copied().collect();
        let Some(figures) = Figures::of(&tallies, asked, None) else { continue };
        let intervals = Intervals::of(&tallies, asked, None, SEED);
        let others =
            contest.others.iter().filter_map(|other| Some((other.at(Axis::Mean, mean)?, &other.name)));
        let best = others.min_by(|a, b| a.0.total_cmp(&b.0));
        let bounded = (asked - ASKED).abs() < 1e-9;
        let ratio = best.as_ref().map(|best| reserved / best.0);
        let mut held = |name: &str, value: Option<f64>, bound, show: fn(f64) -> String| {
            if bounded {
                report.held(&format!("short tasks, target 2 %: {name}"), value, bound, show)
            } else {
                value.map_or("-".to_owned(), show)
            }
        };
        rows.push(vec![
            target(asked),
            held("mean rate", Some(mean), Bound::AtMost(WANTED), rate)
                + &within(intervals.violation_rate_mean, rate),
            rate(figures.violation_rate.p95_vm),
            figures.severity_of_allocation.map_or("-".to_owned(), percent),
            factor(reserved) + &within(intervals.reserved_to_needed, factor),
            best.map_or("none reaches it".to_owned(), |(best, name)| format!("{} ({name})", factor(best))),
            held("ratio to the best other at that rate", ratio, Bound::AtMost(1.0), factor),
        ]);
    }
    let head = [
        "target",
        "mean rate",
        "p95 VM",
        "overshoot of a miss",
        "reserved ÷ needed",
        "best other at that rate",
        "ratio",
    ];
    report.table(&head, &rows);

    let settings = memharvest_predictor::backtest::Settings {
        cold_start: ColdStart::first_harvest_after(WARM_UP, series.interval()),
        ..settings
    };
    let terms = Terms { signal: series.signal(), horizon: HORIZON, target: ASKED, fairness: Fairness::PerVm };
    let case = Case { series, truth: &truth, terms, make: &held_back::make };
    for guarded in run(&settings, &[case], false) {
        let tallies = guarded.scores.iter().map(|score| &score.warm);
        let figures = Figures::of(tallies, ASKED, Some(series.interval()));
        if let Some((figures, guarded)) = figures.and_then(|figures| Some((figures, figures.guarded?))) {
            report.said(&format!(
                "At target 2 % the raw harvest is {}, after every guard {}; backed off from {} of the time.",
                percent(figures.harvested_ratio),
                percent(guarded.harvested_ratio),
                percent(guarded.backoff_share),
            ));
        }
    }
    Ok(())
}
