//! One model against all others, each over its whole dial.

use super::curve::{Axis, Comparison, Point, Sweep, compare};
use super::{Case, Series, Settings, Truth, knowing, sweep};
use crate::boundary::Fairness;
use crate::model::Terms;
use crate::model::choice::Choice;

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
    sweep: usize,
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
        (series, truth): (&Series, &Truth),
        model: Choice,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> Self {
        let (sweeps, dials) = Self::dials(series, truth, model, fairness, targets);
        let makers: Vec<_> = dials.iter().map(|dial| knowing(dial.choice, series)).collect();
        let cases: Vec<Case<'_, _>> = dials
            .iter()
            .zip(&makers)
            .map(|(dial, make)| Case { series, truth, terms: dial.terms, make })
            .collect();
        let mut all: Vec<Sweep> = sweeps.into_iter().map(|name| Sweep { name, points: Vec::new() }).collect();
        for (dial, run) in dials.into_iter().zip(sweep(settings, &cases)) {
            all[dial.sweep].points.push(Point {
                setting: dial.label,
                is_default: dial.is_default,
                scores: run.scores,
            });
        }
        let ours = if model.follows_target() { fairness.len() } else { 1 };
        let others = all.split_off(ours);
        Self { ours: all, others }
    }

    /// How many readings [`Contest::run`] will take, for a progress bar.
    #[must_use]
    pub fn readings(
        (series, truth): (&Series, &Truth),
        model: Choice,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> u64 {
        let (_, dials) = Self::dials(series, truth, model, fairness, targets);
        dials.len() as u64 * series.rows().len() as u64
    }

    /// Each of ours against the best of the others, on both axes, at [`RATES`].
    #[must_use]
    pub fn compare(&self, seed: u64) -> Vec<(String, Vec<Comparison>)> {
        let of = |ours: &Sweep| {
            Axis::ALL.iter().flat_map(|axis| compare(ours, &self.others, *axis, &RATES, seed)).collect()
        };
        self.ours.iter().map(|ours| (ours.name.clone(), of(ours))).collect()
    }

    fn dials(
        series: &Series,
        truth: &Truth,
        model: Choice,
        fairness: &[Fairness],
        targets: &[f64],
    ) -> (Vec<String>, Vec<Setting>) {
        let (mut names, mut dials) = (Vec::new(), Vec::new());
        let terms = |target: f64, fairness: Fairness| Terms {
            signal: series.signal(),
            horizon: truth.horizon(),
            target,
            fairness,
        };
        let mut add = |name: String, choice: Choice, fairness: Fairness| {
            let sweep = names.len();
            names.push(name);
            if choice.follows_target() {
                dials.extend(targets.iter().map(|target| Setting {
                    sweep,
                    label: format!("{} %", (target * 1e8).round() / 1e6),
                    is_default: false,
                    choice,
                    terms: terms(*target, fairness),
                }));
            } else {
                dials.extend(choice.sweep().map(|setting| Setting {
                    sweep,
                    label: setting.to_string(),
                    is_default: setting == choice,
                    choice: setting,
                    // Any target: it is not looked at.
                    terms: terms(0.01, fairness),
                }));
            }
        };
        if model.follows_target() {
            for fairness in fairness {
                add(format!("{} {}", model.name(), fairness.name()), model, *fairness);
            }
        } else {
            add(model.name().to_owned(), model, Fairness::PerVm);
        }
        for other in Choice::all().filter(|other| other.name() != model.name() && !other.needs_future()) {
            add(other.name().to_owned(), other, Fairness::PerVm);
        }
        (names, dials)
    }
}
