//! The seam between what learns a VM's usage and everything that keeps its promises: a [`Model`] sees samples, is
//! told how its own forecasts fared once their horizon has passed, and says the bound for the next horizon. It never
//! judges itself: [`crate::labels`] does.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    boundary::Fairness,
    domain::{Seconds, Signal},
    labels::Label,
};

pub mod anchors;
pub mod choice;
pub mod cqd;
pub mod prices;
pub mod ring;

pub use prices::Prices;

/// One new value of one signal of one VM. Times never go back within one model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken.
    pub at: Seconds,
    /// The time between samples that is usual for this signal.
    pub interval: Seconds,
    /// Usage, at most `allocated`.
    pub bytes: u64,
    /// What the VM holds, above zero.
    pub allocated: u64,
}

/// What is asked of a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Whose usage it bounds.
    pub signal: Signal,
    /// How far it looks ahead.
    pub horizon: Seconds,
    /// Share of raw forecasts that may be exceeded, above 0 and below 1.
    pub target: f64,
    /// Over whom that share is kept.
    pub fairness: Fairness,
}

/// An upper bound for the peak of a signal over (made, made + horizon].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The time of the sample that it rests on.
    pub made_at: Seconds,
    /// How far it looks ahead.
    pub horizon: Seconds,
    /// The bound before any guard, at most the allocation.
    pub predicted_bytes: u64,
    /// The usage that it rests on: that of the sample, or the largest of a few where the model thinks in steps.
    pub level_bytes: u64,
}

/// A model of one signal of one VM. Deterministic, bounded, O(1) a sample. Written out and read back it forecasts as
/// before, to the bit.
pub trait Model: Serialize + DeserializeOwned {
    /// Name and version as violations record it.
    fn version(&self) -> Cow<'static, str>;

    /// Takes the next sample. A changed allocation is the model's to deal with: bytes stay bytes.
    fn observe(&mut self, sample: &Sample);

    /// Takes how an earlier forecast of the same horizon fared. Called before `observe` of the sample that completed it.
    fn learn(&mut self, label: &Label, terms: &Terms, prices: &mut Prices);

    /// The bound as of the latest sample; `None` before the first.
    fn forecast(&mut self, terms: &Terms, prices: &Prices) -> Option<Forecast>;

    /// Forgets the VM's levels after a restart; what was learnt about how to be careful may stay.
    fn reset(&mut self);
}

/// The model that is in use: the one that was chosen.
pub type Current = choice::AnyModel;
