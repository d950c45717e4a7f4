//! Whether the rate that was asked for is the rate that came.

use memharvest_predictor::backtest::bootstrap::Intervals;
use memharvest_predictor::backtest::contest::Contest;
use memharvest_predictor::backtest::curve::Sweep;
use memharvest_predictor::backtest::{Figures, Tally, Truth};
use memharvest_predictor::boundary::Fairness;

use crate::data::Data;
use crate::report::{Bound, Report, factor, percent, rate, target, within};
use crate::{SEED, TARGETS, held_back, settings};

const HEAD: [&str; 8] = [
    "target",
    "mean ÷ target",
    "p95 VM ÷ target",
    "worst VM ÷ target",
    "mean rate",
    "mean overshoot of a miss, of the allocation",
    "harvested",
    "reserved ÷ needed",
];

/// What mean, p95 VM and worst VM may be, in targets.
type Bounds = [Option<Bound>; 3];

/// The bounds for every machine at its target.
pub(crate) fn per_vm(asked: f64) -> Bounds {
    if asked < 0.01 {
        return [None; 3];
    }
    [Some(Bound::Within(0.90, 1.05)), Some(Bound::AtMost(1.2)), Some(Bound::AtMost(1.35))]
}

fn capped(asked: f64) -> Bounds {
    let each = |bound| (asked >= 0.01).then_some(Bound::AtMost(bound));
    [(asked >= 0.005).then_some(Bound::Within(0.96, 1.04)), each(2.4), each(2.6)]
}

fn none(_: f64) -> Bounds {
    [None; 3]
}

fn cold(asked: f64) -> Bounds {
    [(asked >= 0.001).then_some(Bound::AtMost(1.6)), None, None]
}

pub(crate) fn tell(report: &mut Report, contest: &Contest, minutes: f64) {
    let told = [
        ("`per_vm`: every machine at its target", per_vm as fn(f64) -> Bounds),
        ("`capped`: the fleet at its target, no machine above twice it", capped),
        ("`fleet`: the fleet alone", none),
    ];
    for (ours, (title, bounds)) in contest.ours.iter().zip(told) {
        report.section(&format!("Calibration {minutes:.0} minutes ahead, {title}"), "");
        let rows = rows(report, &format!("{} {minutes:.0} min", ours.name), ours, bounds, |point| {
            point.warm().copied().collect()
        });
        report.table(&HEAD, &rows);
    }
    report.section(
        &format!("Cold start {minutes:.0} minutes ahead, `per_vm`"),
        "The first 24 hours of every machine, of which nothing was known.",
    );
    let rows = rows(report, &format!("cold start {minutes:.0} min"), &contest.ours[0], cold, |point| {
        point.scores.iter().map(|score| score.cold).collect()
    });
    report.table(&HEAD, &rows);
}

fn rows(
    report: &mut Report,
    what: &str,
    ours: &Sweep,
    bounds: fn(f64) -> Bounds,
    tallies: impl Fn(&memharvest_predictor::backtest::curve::Point) -> Vec<Tally>,
) -> Vec<Vec<String>> {
    ours.points
        .iter()
        .zip(TARGETS)
        .filter_map(|(point, asked)| row(report, what, &tallies(point), asked, bounds(asked)))
        .collect()
}

/// A row of [`HEAD`].
pub(crate) fn row(
    report: &mut Report,
    what: &str,
    tallies: &[Tally],
    asked: f64,
    bounds: Bounds,
) -> Option<Vec<String>> {
    let figures = Figures::of(tallies, asked, None)?;
    let intervals = Intervals::of(tallies, asked, None, SEED);
    let rates = &figures.violation_rate;
    let in_targets = |value: f64| value / asked;
    let mut cells = vec![target(asked)];
    let spread = [
        ("mean", rates.mean, intervals.violation_rate_mean),
        ("p95 VM", rates.p95_vm, intervals.violation_rate_p95_vm),
        ("worst VM", rates.worst_vm, None),
    ];
    for ((name, value, interval), bound) in spread.into_iter().zip(bounds) {
        let value = in_targets(value);
        let told = match bound {
            Some(bound) => report.held(
                &format!("{what}, target {}: {name} ÷ target", target(asked)),
                Some(value),
                bound,
                factor,
            ),
            None => factor(value),
        };
        cells.push(told + &within(interval, |value| factor(in_targets(value))));
    }
    cells.push(rate(rates.mean));
    cells.push(figures.severity_of_allocation.map_or("-".to_owned(), percent));
    cells.push(percent(figures.harvested_ratio) + &within(intervals.harvested_ratio, percent));
    let reserved = figures.reserved_to_needed.map_or("-".to_owned(), factor);
    cells.push(reserved + &within(intervals.reserved_to_needed, factor));
    Some(cells)
}

/// Resident sets: they hardly move, so what counts is not to give away harvest.
pub(crate) fn rss(report: &mut Report, data: &Data) -> anyhow::Result<()> {
    let truth = Truth::of(&data.rss, 900.0)?;
    let ours = Contest::targets(
        &settings(data.warm_up),
        (&data.rss, &truth),
        "cqd",
        &held_back::make,
        &[Fairness::PerVm],
        &TARGETS,
    );
    report.section(
        "Resident sets, 15 minutes ahead, `per_vm`",
        "A resident set is nearly a staircase: no growth is the right forecast nearly always, so the rate of misses stays far below the \
         target, and what counts is the share of an oracle's harvest.",
    );
    let mut rows = Vec::new();
    for (point, asked) in ours.iter().flat_map(|sweep| &sweep.points).zip(TARGETS) {
        let tallies: Vec<Tally> = point.warm().copied().collect();
        let Some(figures) = Figures::of(&tallies, asked, None) else { continue };
        let intervals = Intervals::of(&tallies, asked, None, SEED);
        let rates = &figures.violation_rate;
        let bounded = (asked - 0.01).abs() < 1e-9;
        let mut held = |name: &str, value: Option<f64>, bound, show: fn(f64) -> String| {
            if bounded {
                report.held(&format!("rss 15 min, target 1 %: {name}"), value, bound, show)
            } else {
                value.map_or("-".to_owned(), show)
            }
        };
        rows.push(vec![
            target(asked),
            held("mean rate", Some(rates.mean), Bound::AtMost(0.002), rate)
                + &within(intervals.violation_rate_mean, rate),
            held("p95 VM", Some(rates.p95_vm), Bound::AtMost(0.01), rate)
                + &within(intervals.violation_rate_p95_vm, rate),
            rate(rates.worst_vm),
            held("share of the oracle's harvest", figures.efficiency, Bound::AtLeast(0.99), percent),
            percent(figures.harvested_ratio) + &within(intervals.harvested_ratio, percent),
        ]);
    }
    let head = ["target", "mean rate", "p95 VM", "worst VM", "share of the oracle's harvest", "harvested"];
    report.table(&head, &rows);
    Ok(())
}
