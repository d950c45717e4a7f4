//! A fixed ratio: a machine is taken to use this share of what it was given, whatever it does.

use serde::{Deserialize, Serialize};

use super::{Rule, Step};

/// `share · allocated`.
///
/// Source: Bashir, Deng, Rzadca, Odena, Kwon et al. 2021, "Take it to the limit: peak prediction-driven resource
/// overcommitment in datacenters" (EuroSys), whose baseline `borg-default` it is, with 0.9 as published default; the
/// static overcommit ratios of virtualization managers are the same thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    share: f64,
}

impl Fixed {
    /// With this share of the allocation.
    #[must_use]
    pub const fn of(share: f64) -> Self {
        Self { share }
    }
}

impl Rule for Fixed {
    fn bound(&self, _: Step, allocated: f64) -> f64 {
        self.share * allocated
    }

    fn forget(&mut self) {}
}
