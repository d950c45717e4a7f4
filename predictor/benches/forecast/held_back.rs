//! The forecaster that is measured.

use memharvest_predictor::model::choice::{AnyModel, Choice};

/// What the page says of its networks.
pub(crate) const TOLD: &str =
    "The networks are those that ship, which may have been trained on these machines.";

/// Makes it, for a [`Case`](memharvest_predictor::backtest::Case).
pub(crate) fn make(_: Option<usize>) -> AnyModel {
    Choice::default().build()
}
