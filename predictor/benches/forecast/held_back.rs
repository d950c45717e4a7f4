//! The forecaster with networks that never saw the machines which are reported: the shipped ones may have.

use std::borrow::Cow;
use std::sync::OnceLock;

use memharvest_predictor::labels::Label;
use memharvest_predictor::model::cqd::{Cqd, weights::Nets};
use memharvest_predictor::model::{Forecast, Model, Prices, Sample, Terms};
use memharvest_predictor::train::{Recipe, Series, train as fit};
use memharvest_trace::Trace;
use serde::{Deserialize, Serialize};

use crate::data::TRAINED;
use crate::say;

static NETS: OnceLock<Nets> = OnceLock::new();

/// Horizons that are trained for: those that are measured, and one more for tasks, whose first hour runs on a faster clock:
/// their five minutes are two and a half hours there.
const HORIZONS: [f64; 4] = [300.0, 900.0, 3600.0, 21_600.0];

/// Trains with the program's recipe on the half that is not reported.
pub(crate) fn train(trace: &Trace, quick: bool) -> anyhow::Result<()> {
    let mut series = Series::of(trace);
    series.retain(|series| TRAINED.holds(&series.name));
    let mut recipe = Recipe::default();
    if quick {
        recipe.steps = 1000;
    }
    let mut files = Vec::new();
    for horizon in HORIZONS {
        say(&format!("training for {} minutes on the other half", horizon / 60.0));
        files.push(fit(&series, horizon, &recipe, "benchmark", |_, _| {})?);
    }
    let nets = Nets::of(&files)?;
    NETS.get_or_init(|| nets);
    Ok(())
}

/// The forecaster with these networks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HeldBack(Cqd);

impl Model for HeldBack {
    fn version(&self) -> Cow<'static, str> {
        "cqd, held back".into()
    }

    fn observe(&mut self, sample: &Sample) {
        self.0.observe(sample);
    }

    fn learn(&mut self, label: &Label, terms: &Terms, prices: &mut Prices) {
        self.0.learn(label, terms, prices);
    }

    fn forecast(&mut self, terms: &Terms, prices: &Prices) -> Option<Forecast> {
        self.0.forecast_by(NETS.get().unwrap_or_else(|| Nets::shipped()), terms, prices)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What the page says of its networks.
pub(crate) const TOLD: &str =
    "The networks were trained by the recipe of `make train` on the other half, and on nothing else.";

/// Makes it, for a [`Case`](memharvest_predictor::backtest::Case).
pub(crate) fn make(_: Option<usize>) -> HeldBack {
    HeldBack::default()
}
