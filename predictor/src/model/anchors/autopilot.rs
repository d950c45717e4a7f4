//! Autopilot's recommender that looks back over a moving window.

use serde::{Deserialize, Serialize};

use super::{DAY, HOUR, Rule, Step, histogram::Histogram, window::Largest};

/// A statistic of usage, `· (1 + margin)`, and of that the largest of the last hour.
///
/// Source: Rzadca, Findeisen, Swiderski et al. 2020, "Autopilot: workload autoscaling at Google" (EuroSys), moving
/// window recommender: memory decays with a half-life of 48 hours; a margin of 10 to 15 % (here 10 % by default); the
/// largest recommendation of the last hour is the one that is set. The paper does not say how long the window of the
/// maximum is; here it is a week.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Autopilot {
    margin: f64,
    statistic: Statistic,
    recommended: Largest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Statistic {
    /// For tasks that may be killed now and then.
    P98(Histogram),
    /// For tasks that must not be killed.
    Max(Largest),
}

impl Autopilot {
    /// The 98th percentile of decayed usage, with this margin.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "288 steps a day")]
    pub fn p98(margin: f64) -> Self {
        Self::of(margin, Statistic::P98(Histogram::with_half_life(2.0 * DAY as f64)))
    }

    /// The maximum, with this margin.
    #[must_use]
    pub const fn max(margin: f64) -> Self {
        Self::of(margin, Statistic::Max(Largest::of(7 * DAY)))
    }

    const fn of(margin: f64, statistic: Statistic) -> Self {
        Self { margin, statistic, recommended: Largest::of(HOUR) }
    }

    fn recommendation(&self, now: Step) -> f64 {
        let usage = match &self.statistic {
            Statistic::P98(usage) => usage.percentile_with(0.98, now.index, now.peak),
            Statistic::Max(largest) => largest.max().max(now.peak),
        };
        usage * (1.0 + self.margin)
    }
}

impl Rule for Autopilot {
    fn close(&mut self, closed: Step) {
        self.recommended.push(closed.index, self.recommendation(closed));
        match &mut self.statistic {
            Statistic::P98(usage) => usage.add(closed.index, closed.peak),
            Statistic::Max(largest) => largest.push(closed.index, closed.peak),
        }
    }

    fn enter(&mut self, step: i64) {
        self.recommended.enter(step);
        if let Statistic::Max(largest) = &mut self.statistic {
            largest.enter(step);
        }
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        self.recommended.max().max(self.recommendation(now))
    }

    fn forget(&mut self) {
        self.recommended.clear();
        match &mut self.statistic {
            Statistic::P98(usage) => usage.clear(),
            Statistic::Max(largest) => largest.clear(),
        }
    }
}
