//! The latest usage and a share of the allocation on top.

use serde::{Deserialize, Serialize};

use super::{Rule, Step};

/// `usage now + margin · allocated`.
///
/// Source: balloon policy of oVirt's Memory Overcommitment Manager, which leaves a guest what it uses and 20 % of its
/// current size (published default) while the host has memory. It averages usage over 50 s, which a step of this grid
/// stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mom {
    margin: f64,
}

impl Mom {
    /// With this share of the allocation left free.
    #[must_use]
    pub const fn of(margin: f64) -> Self {
        Self { margin }
    }
}

impl Rule for Mom {
    fn bound(&self, now: Step, allocated: f64) -> f64 {
        self.margin.mul_add(allocated, now.peak)
    }

    fn forget(&mut self) {}
}
