//! The latest usage and a buffer on top.

use serde::{Deserialize, Serialize};

use super::{Rule, Step};

/// `usage now · (1 + margin)`.
///
/// Source: Dynamic Memory of Microsoft Hyper-V, which gives a machine what it has committed and a memory buffer of
/// 20 % of that (published default; 5 to 2000 % can be set).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    margin: f64,
}

impl Last {
    /// With this buffer, as a share of usage.
    #[must_use]
    pub const fn of(margin: f64) -> Self {
        Self { margin }
    }
}

impl Rule for Last {
    fn bound(&self, now: Step, _: f64) -> f64 {
        now.peak * (1.0 + self.margin)
    }

    fn forget(&mut self) {}
}
