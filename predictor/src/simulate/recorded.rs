//! Forecasts that were recorded, played back as a model.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Window;
use crate::domain::{Seconds, Signal};
use crate::labels::Label;
use crate::model::{Forecast, Model, Prices, Sample, Terms};

/// The highest forecast of each window, in force from its end to that of the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Recorded {
    bounds: Vec<(Seconds, u64)>,
    next: usize,
    latest: Option<(Sample, Option<u64>)>,
}

impl Recorded {
    /// The forecasts of one signal.
    pub(super) fn of(windows: &[Window], signal: Signal) -> Self {
        let predicted = |window: &Window| match signal {
            Signal::Rss => window.predicted_rss,
            Signal::Demand => window.predicted_demand,
        };
        let bounds = windows.iter().filter_map(|window| Some((window.end, predicted(window)?))).collect();
        Self { bounds, ..Self::default() }
    }
}

impl Model for Recorded {
    fn version(&self) -> Cow<'static, str> {
        "recorded".into()
    }

    fn observe(&mut self, sample: &Sample) {
        while self.bounds.get(self.next).is_some_and(|(end, _)| *end < sample.at) {
            self.next += 1;
        }
        let bound = self.bounds.get(self.next).filter(|(end, _)| *end <= sample.at).map(|(_, bytes)| *bytes);
        self.latest = Some((*sample, bound));
    }

    fn learn(&mut self, _: &Label, _: &Terms, _: &mut Prices) {}

    fn forecast(&mut self, terms: &Terms, _: &Prices) -> Option<Forecast> {
        let (sample, bound) = self.latest.as_ref()?;
        Some(Forecast {
            made_at: sample.at,
            horizon: terms.horizon,
            predicted_bytes: (*bound)?.min(sample.allocated),
            level_bytes: sample.bytes,
        })
    }

    fn reset(&mut self) {}
}
