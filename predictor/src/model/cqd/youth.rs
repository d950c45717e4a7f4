//! The first hour of a machine that is read faster than every five minutes, on a clock that runs faster.
//!
//! On the grid of five-minute steps a machine of some minutes is a machine without a past, however often it was read.
//! What ramps up within minutes looks on a faster clock as what ramps up within hours does on the usual one, and that is
//! what networks have learnt. So until there is enough on the usual grid a second grid is kept, of steps of ten seconds
//! or of the interval between readings, and a horizon counts on it by as many times more steps.

use serde::{Deserialize, Serialize};

use super::{grid::Grid, levels::STEP};
use crate::{domain::Seconds, model::Sample};

/// Its shortest steps.
const SHORTEST_STEP: Seconds = 10.0;

/// How long it lasts: a day of steps on the fastest clock.
const LENGTH: Seconds = 288.0 * SHORTEST_STEP;

/// How new such a machine is, where that of a first day is 1: twice what is added to the price of a first day, because
/// networks have learnt from machines that live for months.
pub(super) const NEWNESS: f64 = 2.0;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Youth {
    pub(super) grid: Grid,
    /// How many of its steps make one of the usual grid.
    pub(super) speed: i32,
    born: Seconds,
}

impl Youth {
    /// That of a machine which is read for the first time; `None` where readings are as slow as the usual grid.
    pub(super) fn of(first: &Sample) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "at most thirty")]
        let speed = (STEP / first.interval.max(SHORTEST_STEP)).floor() as i32;
        (speed > 1).then(|| Self { grid: Grid::default(), speed, born: first.at })
    }

    /// Takes a reading of at most its allocation.
    pub(super) fn observe(&mut self, sample: &Sample) {
        let speed = f64::from(self.speed);
        self.grid.observe(&Sample { at: sample.at * speed, interval: sample.interval * speed, ..*sample });
    }

    /// Whether the usual grid knows enough.
    pub(super) fn is_over(&self, at: Seconds) -> bool {
        at - self.born >= LENGTH
    }
}
