//! The largest usage of a window and a margin on top.

use serde::{Deserialize, Serialize};

use super::{Rule, Step, window::Largest};

/// `max · (1 + margin)`, over a window.
///
/// Source: Robusta's Kubernetes resource recommender (KRR), which recommends the largest usage of its history and
/// 15 % on top (published default).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecentMax {
    margin: f64,
    largest: Largest,
}

impl RecentMax {
    /// With this margin, over this many steps.
    #[must_use]
    pub(in crate::model) const fn of(margin: f64, steps: i64) -> Self {
        Self { margin, largest: Largest::of(steps) }
    }
}

impl Rule for RecentMax {
    fn close(&mut self, closed: Step) {
        self.largest.push(closed.index, closed.peak);
    }

    fn enter(&mut self, step: i64) {
        self.largest.enter(step);
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        self.largest.max().max(now.peak) * (1.0 + self.margin)
    }

    fn forget(&mut self) {
        self.largest.clear();
    }
}
