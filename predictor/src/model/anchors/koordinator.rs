//! What Koordinator would hold back for a pod.

use serde::{Deserialize, Serialize};

use super::{DAY, Rule, Step, histogram::Histogram};

/// Share of the decayed usage that its peak covers.
const PEAK: f64 = 0.98;

/// The 98th percentile of usage whose weight halves every day, `· (1 + margin)`.
///
/// Source: Koordinator, koordlet's peak predictor for memory: margin 10 %, and for the first day all that was asked
/// for (published defaults). It samples each minute; the steps of this grid weigh alike, which is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Koordinator {
    margin: f64,
    usage: Histogram,
}

impl Koordinator {
    /// With this margin.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "288 steps a day")]
    pub fn of(margin: f64) -> Self {
        Self { margin, usage: Histogram::with_half_life(DAY as f64) }
    }
}

impl Rule for Koordinator {
    const COLD_STEPS: u32 = 288;

    fn close(&mut self, closed: Step) {
        self.usage.add(closed.index, closed.peak);
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        self.usage.percentile_with(PEAK, now.index, now.peak) * (1.0 + self.margin)
    }

    fn forget(&mut self) {
        self.usage.clear();
    }
}
