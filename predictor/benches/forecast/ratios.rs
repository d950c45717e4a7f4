//! Ours against the best of all others, each tuned in hindsight to the very rate.

use memharvest_predictor::backtest::contest::Contest;
use memharvest_predictor::backtest::curve::{Axis, Sweep, compare};
use memharvest_predictor::backtest::{Series, Settings, Truth};
use memharvest_predictor::boundary::Fairness;

use crate::report::{Bound, Report, factor, target, within};
use crate::{SEED, TARGETS, held_back};

/// Where the curves are read.
const RATES: [f64; 5] = [0.05, 0.02, 0.01, 0.005, 0.002];

const FAIRNESS: [Fairness; 3] = [Fairness::PerVm, Fairness::Capped, Fairness::Fleet];

/// What the ratios should be at [`RATES`].
pub(crate) struct RatioBounds {
    per_vm: [f64; 5],
    capped: [f64; 5],
    stretch: [f64; 5],
}

pub(crate) const AT_15_MINUTES: RatioBounds = RatioBounds {
    per_vm: [0.77, 0.69, 0.73, 0.75, 0.81],
    capped: [0.88, 0.86, 0.77, 0.73, 0.81],
    stretch: [0.73, 0.63, 0.67, 0.68, 0.74],
};

pub(crate) const AT_60_MINUTES: RatioBounds = RatioBounds {
    per_vm: [0.76, 0.82, 0.85, 0.88, 0.96],
    capped: [0.88, 0.79, 0.87, 0.90, 0.92],
    stretch: [0.70, 0.75, 0.78, 0.81, 0.86],
};

/// Ours in its three fairnesses, and everyone else.
pub(crate) fn contest(settings: &Settings<'_>, series: &Series, truth: &Truth) -> Contest {
    Contest {
        ours: Contest::targets(settings, (series, truth), "cqd", &held_back::make, &FAIRNESS, &TARGETS),
        others: Contest::others(settings, (series, truth), "cqd", &TARGETS),
    }
}

pub(crate) fn tell(report: &mut Report, contest: &Contest, minutes: f64, bounds: &RatioBounds) {
    report.section(
        &format!("Reserved memory at equal violation rates, {minutes:.0} minutes ahead"),
        "Bytes reserved by ours, divided by those of whichever other model reserves least at that rate with its margin tuned \
         in hindsight on these very machines. Below 1 ours reserves less. In brackets the interval.",
    );
    let [per_vm, capped, fleet] = [0, 1, 2].map(|at| &contest.ours[at]);
    let rows = vec![
        row(report, contest, per_vm, Axis::P95Vm, minutes, Some(&bounds.per_vm)),
        best(contest, per_vm, Axis::P95Vm),
        row(report, contest, capped, Axis::Mean, minutes, Some(&bounds.capped)),
        best(contest, capped, Axis::Mean),
        row(report, contest, per_vm, Axis::Mean, minutes, None),
        row(report, contest, capped, Axis::P95Vm, minutes, None),
        row(report, contest, fleet, Axis::Mean, minutes, None),
        row(report, contest, fleet, Axis::P95Vm, minutes, None),
    ];
    let heads: Vec<String> = RATES.iter().map(|rate| format!("at {}", target(*rate))).collect();
    let mut head = vec!["model, which rate is equal"];
    head.extend(heads.iter().map(String::as_str));
    report.table(&head, &rows);
    let stretch = bounds.stretch.map(factor).join(", ");
    report.said(&format!("Stretch goal for `per_vm` at an equal p95-VM rate: {stretch}."));
}

fn row(
    report: &mut Report,
    contest: &Contest,
    ours: &Sweep,
    axis: Axis,
    minutes: f64,
    bounds: Option<&[f64; 5]>,
) -> Vec<String> {
    let which = match axis {
        Axis::Mean => "mean rate",
        Axis::P95Vm => "p95-VM rate",
    };
    let mut cells = vec![format!("`{}`, equal {which}", ours.name)];
    for (at, read) in compare(ours, &contest.others, axis, &RATES, SEED).into_iter().enumerate() {
        let told = match bounds {
            Some(bounds) => {
                let what = format!(
                    "{} at an equal {which} of {}, {minutes:.0} min: ratio to the best other",
                    ours.name,
                    target(read.rate)
                );
                report.held(&what, read.ratio, Bound::AtMost(bounds[at]), factor)
            }
            None => read.ratio.map_or("-".to_owned(), factor),
        };
        cells.push(told + &within(read.ratio_interval, factor));
    }
    cells
}

/// What ours reserves, what the best other does, and who that is.
fn best(contest: &Contest, ours: &Sweep, axis: Axis) -> Vec<String> {
    let mut cells = vec!["reserved for each byte needed: ours, best other".to_owned()];
    for read in compare(ours, &contest.others, axis, &RATES, SEED) {
        let told = |value: Option<f64>| value.map_or("-".to_owned(), factor);
        let name = read.best_name.as_deref().unwrap_or("none");
        cells.push(format!("{}, {} ({name})", told(read.reserved_to_needed), told(read.best)));
    }
    cells
}
