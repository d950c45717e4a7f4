//! Readings of a trace through a model and the labels that it learns from, and through nothing else: the forecasts of a
//! machine's live state without its judges, guards and violations, which cost several times as much.

use std::ops::Range;

use super::Case;
use super::replay::{Seen, each_row};
use super::series::Row;
use crate::labels::Labels;
use crate::model::{Model, Prices, Sample};
use crate::vm::track::HELD_BACK;

/// Steps the machines `vms` through their readings and shows each to `see`.
pub(super) fn replay<M: Model>(case: &Case<'_, M>, vms: Range<usize>, mut see: impl FnMut(&Seen)) {
    let mut prices = Prices::default();
    let fresh =
        |vm| Raw { model: (case.make)(Some(vm)), labels: Labels::default(), allocated: None, highest: 0 };
    each_row(case, vms, fresh, |vm, index, raw| {
        let row = &case.series.rows()[index];
        raw.resize(row);
        let sample = Sample {
            at: row.at,
            interval: case.series.interval(),
            bytes: row.usage,
            allocated: row.allocated,
        };
        let Raw { model, labels, highest, .. } = raw;
        *highest = (*highest).max(row.usage);
        labels.observe(&sample, |label| model.learn(label, &case.terms, &mut prices));
        model.observe(&sample);
        if let Some(forecast) = model.forecast(&case.terms, &prices) {
            labels.push(&forecast, &sample);
            see(&Seen { vm, row: index, predicted: forecast.predicted_bytes, guarded: None });
        }
    });
}

struct Raw<M> {
    model: M,
    labels: Labels,
    allocated: Option<u64>,
    highest: u64,
}

impl<M: Model> Raw<M> {
    /// A changed allocation is the only change point that a trace can have.
    fn resize(&mut self, row: &Row) {
        let Some(from) = self.allocated.replace(row.allocated).filter(|from| *from != row.allocated) else {
            return;
        };
        self.labels.void();
        if row.allocated > from && crate::domain::real(self.highest) >= HELD_BACK * crate::domain::real(from)
        {
            self.model.reset();
            self.highest = 0;
        }
    }
}
