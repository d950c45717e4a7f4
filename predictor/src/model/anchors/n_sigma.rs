//! The mean of a window and some deviations on top.

use serde::{Deserialize, Serialize};

use super::{Rule, Step, window::Window};

/// `mean + deviations · sample deviation`, over a window.
///
/// Source: Bashir et al. 2021, "Take it to the limit" (EuroSys), predictor `N-sigma`. Published defaults: 5
/// deviations in its simulator (3 in production), 10 hours of history, and a task's limit until it has been seen for
/// two hours (24 samples).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NSigma {
    deviations: f64,
    window: Window,
}

impl NSigma {
    /// With this many deviations, over this many steps.
    #[must_use]
    pub(in crate::model) const fn of(deviations: f64, steps: i64) -> Self {
        Self { deviations, window: Window::of(steps) }
    }
}

impl Rule for NSigma {
    const COLD_STEPS: u32 = 24;

    fn close(&mut self, closed: Step) {
        self.window.push(closed.index, closed.peak);
    }

    fn enter(&mut self, step: i64) {
        while self.window.leave(step).is_some() {}
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        let values = self.window.values().chain([now.peak]);
        let (count, sum) = values.clone().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        let mean = sum / count;
        let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
        // One value has no deviation.
        let deviation = (squares / (count - 1.0_f64).max(1.0)).sqrt();
        self.deviations.mul_add(deviation, mean)
    }

    fn forget(&mut self) {
        self.window.clear();
    }
}
