//! A percentile of a window.

use serde::{Deserialize, Serialize};

use super::{Rule, Step, window::Ranked};

/// `percentile · (1 + margin)`, over a window.
///
/// Source: the usage percentiles of Cortez, Bonde, Muzio, Russinovich, Fontoura and Bianchini 2017, "Resource
/// Central" (SOSP), in the form in which Bashir et al. 2021, "Take it to the limit" (EuroSys), run them beside theirs:
/// on a machine's own last 10 hours, the allocation until two hours are known, nothing on top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    margin: f64,
    share: f64,
    window: Ranked,
}

impl Percentile {
    /// The value that `share` of the last `steps` steps do not exceed, with this margin.
    #[must_use]
    pub(in crate::model) const fn of(margin: f64, share: f64, steps: i64) -> Self {
        Self { margin, share, window: Ranked::of(steps) }
    }
}

impl Rule for Percentile {
    const COLD_STEPS: u32 = 24;

    fn close(&mut self, closed: Step) {
        self.window.push(closed.index, closed.peak);
    }

    fn enter(&mut self, step: i64) {
        self.window.enter(step);
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        self.window.percentile_with(self.share, now.peak) * (1.0 + self.margin)
    }

    fn forget(&mut self) {
        self.window.clear();
    }
}
