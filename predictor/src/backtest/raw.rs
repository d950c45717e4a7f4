//! Readings of a trace through one signal's track alone: the same forecasts, and nothing made of them.

use std::ops::Range;

use super::Case;
use super::replay::{Seen, each_row, effective};
use crate::model::{Model, Prices};
use crate::vm::HostContext;
use crate::vm::change_point::ChangePoint;
use crate::vm::track::{Moment, Track};

/// Steps the machines `vms` through their readings and shows each to `see`.
pub(super) fn replay<M: Model>(case: &Case<'_, M>, vms: Range<usize>, mut see: impl FnMut(&Seen)) {
    let (effective, host) = (effective(&case.terms), HostContext::default());
    let (series, signal) = (case.series, case.terms.signal);
    let mut prices = Prices::default();
    let mut told = Vec::new();
    let fresh = |vm| (Track::of(signal, (case.make)(Some(vm))), None);
    each_row(case, vms, fresh, |vm, index, (track, allocated)| {
        let row = &series.rows()[index];
        match allocated.replace(row.allocated) {
            Some(from) if from != row.allocated => {
                track.interrupt(ChangePoint::Resized { from, to: row.allocated }, row.at, &mut told);
            }
            _ => {}
        }
        let interval = series.interval();
        let moment =
            Moment { at: row.at, interval, allocated: row.allocated, effective: &effective, host: &host };
        track.take(&moment, Some(row.usage), &mut prices, &mut told);
        told.clear();
        if let Some(forecast) = track.forecast() {
            see(&Seen { vm, row: index, predicted: forecast.predicted_bytes, guarded: None });
        }
    });
}
