//! Models by their choice.

use super::Series;
use crate::model::anchors::{Anchor, fixed::Fixed, oracle::Oracle};
use crate::model::choice::{AnyModel, Choice};

/// Makes the models that a [`Case`](super::Case) of this series asks for. An oracle is told the series.
pub fn knowing(choice: Choice, series: &Series) -> impl Fn(Option<usize>) -> AnyModel + Sync + '_ {
    move |vm| match vm {
        // The whole allocation, whatever happens: nothing is cheaper.
        None => AnyModel::Fixed(Box::new(Anchor::new(choice, Fixed::of(1.0)))),
        Some(vm) if choice.needs_future() => {
            let rows = &series.rows()[series.vms()[vm].rows.clone()];
            AnyModel::Oracle(Box::new(Oracle::knowing(rows.iter().map(|row| (row.at, row.usage)))))
        }
        Some(_) => choice.build(),
    }
}
