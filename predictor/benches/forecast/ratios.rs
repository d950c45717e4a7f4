//! Ours against the best of all others, each tuned in hindsight to the very rate.

use memharvest_predictor::backtest::contest::Contest;
use memharvest_predictor::backtest::curve::{Axis, Comparison, Sweep, compare};
use memharvest_predictor::backtest::{Series, Settings, Truth};
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::model::choice::Choice;

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
        "Bytes reserved by ours, divided by those of whichever classic reserves least at that rate with its margin tuned in hindsight \
         on these very machines. Below 1 ours reserves less. In brackets the interval. Two of the other models have no margin: \
         `aci` and `tracker` aim at a target of their own, as ours does; the rows *against all* have them among the others.",
    );
    let [per_vm, capped, fleet] = [0, 1, 2].map(|at| &contest.ours[at]);
    let classics: Vec<Sweep> =
        contest.others.iter().filter(|other| !aims_at_a_target(&other.name)).cloned().collect();
    let mut rows = Vec::new();
    let axes = [
        (per_vm, Axis::P95Vm, Some(&bounds.per_vm)),
        (capped, Axis::Mean, Some(&bounds.capped)),
        (per_vm, Axis::Mean, None),
        (capped, Axis::P95Vm, None),
        (fleet, Axis::Mean, None),
        (fleet, Axis::P95Vm, None),
    ];
    for (ours, axis, bounds) in axes {
        let of_classics = compare(ours, &classics, axis, &RATES, SEED);
        rows.push(row(report, "", ours, &of_classics, minutes, bounds));
        if bounds.is_some() {
            rows.push(best(&of_classics));
            let of_all = compare(ours, &contest.others, axis, &RATES, SEED);
            rows.push(row(report, ", against all", ours, &of_all, minutes, None));
            rows.push(best(&of_all));
        }
    }
    let heads: Vec<String> = RATES.iter().map(|rate| format!("at {}", target(*rate))).collect();
    let mut head = vec!["model, which rate is equal"];
    head.extend(heads.iter().map(String::as_str));
    report.table(&head, &rows);
    let stretch = bounds.stretch.map(factor).join(", ");
    report.said(&format!("Stretch goal for `per_vm` at an equal p95-VM rate: {stretch}."));
}

fn aims_at_a_target(name: &str) -> bool {
    Choice::all().any(|choice| choice.name() == name && choice.follows_target())
}

fn row(
    report: &mut Report,
    whom: &str,
    ours: &Sweep,
    compared: &[Comparison],
    minutes: f64,
    bounds: Option<&[f64; 5]>,
) -> Vec<String> {
    let which = match compared.first().map(|read| read.axis) {
        Some(Axis::P95Vm) => "p95-VM rate",
        _ => "mean rate",
    };
    let mut cells = vec![format!("`{}`, equal {which}{whom}", ours.name)];
    for (at, read) in compared.iter().enumerate() {
        let told = match bounds {
            Some(bounds) => {
                let what = format!(
                    "{} at an equal {which} of {}, {minutes:.0} min: ratio to the best classic",
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
fn best(compared: &[Comparison]) -> Vec<String> {
    let mut cells = vec!["reserved for each byte needed: ours, the other".to_owned()];
    for read in compared {
        let told = |value: Option<f64>| value.map_or("-".to_owned(), factor);
        let name = read.best_name.as_deref().unwrap_or("none");
        cells.push(format!("{}, {} ({name})", told(read.reserved_to_needed), told(read.best)));
    }
    cells
}
