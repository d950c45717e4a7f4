//! One model against all others, each over its whole dial.

use super::curve::{Axis, Comparison, Point, Sweep, compare};
use super::{Case, Make, Series, Settings, Truth, knowing, sweep};
use crate::boundary::Fairness;
use crate::model::choice::Choice;
use crate::model::{Model, Terms};

/// Rates at which curves are read: from one miss in twenty to one in a thousand.
pub const RATES: [f64; 6] = [0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/// Curves that were made of the same readings.
#[derive(Clone, Debug)]
pub struct Contest {
    /// The model in question, once for each fairness.
    pub ours: Vec<Sweep>,
    /// Every other model but the oracle: tuned in hindsight, setting by setting.
    pub others: Vec<Sweep>,
}

/// What a dial can be turned to.
struct Setting {
    label: String,
    is_default: bool,
    choice: Choice,
    terms: Terms,
}

impl Contest {
    /// Runs `model` with each of `fairness` over `targets`, and every other over its margins (or over `targets`, where
    /// it aims at one). A model that does not aim at a target is run over its margins, whatever the fairness.
    #[must_use]
    pub fn run(
        settings: &Settings<'_>,
        over: (&Series, &Truth),
        model: Choice,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> Self {
        let ours = if model.follows_target() {
            let make = knowing(model, over.0);
            Self::targets(settings, over, model.name(), &make, fairness, targets)
        } else {
            turned(settings, over, &[model], targets)
        };
        Self { ours, others: Self::others(settings, over, model.name(), targets) }
    }

    /// A model that aims at targets, over `targets`: a curve for each of `fairness`.
    #[must_use]
    pub fn targets<M: Model>(
        settings: &Settings<'_>,
        (series, truth): (&Series, &Truth),
        name: &str,
        make: Make<'_, M>,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> Vec<Sweep> {
        let cases: Vec<Case<'_, M>> = fairness
            .iter()
            .flat_map(|fairness| targets.iter().map(|target| (*target, *fairness)))
            .map(|(target, fairness)| Case {
                series,
                truth,
                terms: terms(series, truth, target, fairness),
                make,
            })
            .collect();
        let mut runs = sweep(settings, &cases).into_iter();
        let curve = |fairness: &Fairness| Sweep {
            name: format!("{name} {}", fairness.name()),
            points: targets
                .iter()
                .zip(&mut runs)
                .map(|(target, run)| Point {
                    setting: percent(*target),
                    is_default: false,
                    scores: run.scores,
                })
                .collect(),
        };
        fairness.iter().map(curve).collect()
    }

    /// Every model but the oracle and the one of this name, each over its whole dial.
    #[must_use]
    pub fn others(
        settings: &Settings<'_>,
        over: (&Series, &Truth),
        besides: &str,
        targets: &[f64],
    ) -> Vec<Sweep> {
        turned(settings, over, &others(besides), targets)
    }

    /// How many readings [`Contest::run`] will take, for a progress bar.
    #[must_use]
    pub fn readings(
        (series, truth): (&Series, &Truth),
        model: Choice,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> u64 {
        let ours = if model.follows_target() { fairness.len() * targets.len() } else { model.sweep().len() };
        let others: usize =
            others(model.name()).iter().map(|other| dial(series, truth, *other, targets).len()).sum();
        (ours + others) as u64 * series.rows().len() as u64
    }

    /// Each of ours against the best of the others, on both axes, at [`RATES`].
    #[must_use]
    pub fn compare(&self, seed: u64) -> Vec<(String, Vec<Comparison>)> {
        let of = |ours: &Sweep| {
            Axis::ALL.iter().flat_map(|axis| compare(ours, &self.others, *axis, &RATES, seed)).collect()
        };
        self.ours.iter().map(|ours| (ours.name.clone(), of(ours))).collect()
    }
}

fn others(besides: &str) -> Vec<Choice> {
    Choice::all().filter(|other| other.name() != besides && !other.needs_future()).collect()
}

/// Each model over its dial.
fn turned(
    settings: &Settings<'_>,
    (series, truth): (&Series, &Truth),
    models: &[Choice],
    targets: &[f64],
) -> Vec<Sweep> {
    let dials: Vec<(usize, Setting)> = models
        .iter()
        .enumerate()
        .flat_map(|(at, model)| {
            dial(series, truth, *model, targets).into_iter().map(move |setting| (at, setting))
        })
        .collect();
    let makers: Vec<_> = dials.iter().map(|(_, setting)| knowing(setting.choice, series)).collect();
    let cases: Vec<Case<'_, _>> = dials
        .iter()
        .zip(&makers)
        .map(|((_, setting), make)| Case { series, truth, terms: setting.terms, make })
        .collect();
    let named = |model: &Choice| Sweep { name: model.name().to_owned(), points: Vec::new() };
    let mut sweeps: Vec<Sweep> = models.iter().map(named).collect();
    for ((at, Setting { label, is_default, .. }), run) in dials.into_iter().zip(sweep(settings, &cases)) {
        sweeps[at].points.push(Point { setting: label, is_default, scores: run.scores });
    }
    sweeps
}

fn dial(series: &Series, truth: &Truth, model: Choice, targets: &[f64]) -> Vec<Setting> {
    if model.follows_target() {
        let aimed = |target: &f64| Setting {
            label: percent(*target),
            is_default: false,
            choice: model,
            terms: terms(series, truth, *target, Fairness::PerVm),
        };
        return targets.iter().map(aimed).collect();
    }
    let set = |choice: Choice| Setting {
        label: choice.to_string(),
        is_default: choice == model,
        choice,
        // Any target: it is not looked at.
        terms: terms(series, truth, 0.01, Fairness::PerVm),
    };
    model.sweep().map(set).collect()
}

fn terms(series: &Series, truth: &Truth, target: f64, fairness: Fairness) -> Terms {
    Terms { signal: series.signal(), horizon: truth.horizon(), target, fairness }
}

fn percent(target: f64) -> String {
    format!("{} %", (target * 1e8).round() / 1e6)
}
