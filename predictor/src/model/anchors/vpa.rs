//! What Kubernetes' vertical pod autoscaler would recommend.

use serde::{Deserialize, Serialize};

use super::{DAY, Rule, Step, histogram::Histogram};

/// Share of the decayed daily peaks that the target covers.
const TARGET: f64 = 0.9;

/// The 90th percentile of daily peaks whose weights halve every day, `· (1 + margin)`; the running day counts with its
/// peak so far.
///
/// Source: Kubernetes vertical pod autoscaler, recommender, memory target: margin 15 % (published default). Its floor
/// of 250 MB a pod is left out, because a machine is no pod; so are its reactions to an out-of-memory kill, which a
/// machine does not show. Days are those of UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpa {
    margin: f64,
    peaks: Histogram,
    day: i64,
    peak: Option<f64>,
}

impl Vpa {
    /// With this margin.
    #[must_use]
    pub fn of(margin: f64) -> Self {
        Self { margin, peaks: Histogram::with_half_life(1.0), day: 0, peak: None }
    }
}

impl Rule for Vpa {
    fn close(&mut self, closed: Step) {
        self.peak = Some(self.peak.map_or(closed.peak, |peak| peak.max(closed.peak)));
        self.day = closed.index.div_euclid(DAY);
    }

    fn enter(&mut self, step: i64) {
        if step.div_euclid(DAY) > self.day
            && let Some(peak) = self.peak.take()
        {
            self.peaks.add(self.day, peak);
        }
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        let today = self.peak.map_or(now.peak, |peak| peak.max(now.peak));
        self.peaks.percentile_with(TARGET, now.index.div_euclid(DAY), today) * (1.0 + self.margin)
    }

    fn forget(&mut self) {
        self.peaks.clear();
        self.peak = None;
    }
}
