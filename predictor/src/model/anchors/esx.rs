//! The largest of a slow average, a fast one, and the fast one with the running step in it.

use serde::{Deserialize, Serialize};

use super::{Rule, Step};

/// Share of a new step in the slow average: it looks back about an hour.
const SLOW: f64 = 1.0 / 12.0;
/// Share of a new step in the fast average: it looks back about ten minutes.
const FAST: f64 = 0.5;

/// `max(slow, fast, fast with the running step) · (1 + margin)`.
///
/// Source: Waldspurger 2002, "Memory resource management in VMware ESX Server" (OSDI): three averages of sampled
/// active memory, the largest of which counts; it adds nothing on top, so the default margin is 0. The paper gives no
/// weights for the averages, so those here are ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Esx {
    margin: f64,
    averages: Option<Averages>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Averages {
    as_of: i64,
    slow: f64,
    fast: f64,
}

impl Esx {
    /// With this margin on the largest of the averages.
    #[must_use]
    pub const fn of(margin: f64) -> Self {
        Self { margin, averages: None }
    }
}

impl Rule for Esx {
    fn close(&mut self, closed: Step) {
        let Some(averages) = &mut self.averages else {
            self.averages = Some(Averages { as_of: closed.index, slow: closed.peak, fast: closed.peak });
            return;
        };
        let passed = closed.index.saturating_sub(averages.as_of);
        averages.slow += share(SLOW, passed) * (closed.peak - averages.slow);
        averages.fast += share(FAST, passed) * (closed.peak - averages.fast);
        averages.as_of = closed.index;
    }

    fn bound(&self, now: Step, _: f64) -> f64 {
        let largest = match &self.averages {
            None => now.peak,
            Some(Averages { as_of, slow, fast }) => {
                let passed = now.index.saturating_sub(*as_of);
                let current = fast + share(FAST, passed) * (now.peak - fast);
                slow.max(*fast).max(current)
            }
        };
        largest * (1.0 + self.margin)
    }

    fn forget(&mut self) {
        self.averages = None;
    }
}

/// The share of a new value when `passed` steps have gone by since the one before.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 steps")]
fn share(of_one: f64, passed: i64) -> f64 {
    1.0 - (1.0 - of_one).powf(passed as f64)
}
