//! The larger of two of the other anchors.

use serde::{Deserialize, Serialize};

use super::{Rule, Step, n_sigma::NSigma, percentile::Percentile};

/// `max(N-sigma, 99th percentile)`, both over 10 hours; the deviations are what can be turned.
///
/// Source: Bashir et al. 2021, "Take it to the limit" (EuroSys), predictor `max`, the one that they deploy: 5
/// deviations and the 99th percentile in their simulations (published default here), 3 and the 80th in production.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoogleMax {
    n_sigma: NSigma,
    percentile: Percentile,
}

impl GoogleMax {
    /// With this many deviations.
    #[must_use]
    pub const fn of(deviations: f64) -> Self {
        const STEPS: i64 = 10 * super::HOUR;
        Self { n_sigma: NSigma::of(deviations, STEPS), percentile: Percentile::of(0.0, 0.99, STEPS) }
    }
}

impl Rule for GoogleMax {
    const COLD_STEPS: u32 = 24;

    fn close(&mut self, closed: Step) {
        self.n_sigma.close(closed);
        self.percentile.close(closed);
    }

    fn enter(&mut self, step: i64) {
        self.n_sigma.enter(step);
        self.percentile.enter(step);
    }

    fn bound(&self, now: Step, allocated: f64) -> f64 {
        self.n_sigma.bound(now, allocated).max(self.percentile.bound(now, allocated))
    }

    fn forget(&mut self) {
        self.n_sigma.forget();
        self.percentile.forget();
    }
}
