//! Readings on a grid of steps: what a step is over with, and what the next forecast has to do.

use serde::{Deserialize, Serialize};

use super::{
    levels::{Levels, step_of},
    share,
};
use crate::model::Sample;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Grid {
    pub(super) levels: Levels,
    open: Option<Open>,
    /// The level of the latest closed step.
    pub(super) closed_bytes: u64,
    pub(super) due: Due,
}

/// A step that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) step: i32,
    pub(super) bytes: u64,
}

/// What the next forecast has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Due {
    /// A step was closed: forget the bound before.
    pub(super) afresh: bool,
    /// The open step has a new maximum.
    pub(super) raise: bool,
}

impl Grid {
    /// Takes a reading of at most its allocation.
    pub(super) fn observe(&mut self, sample: &Sample) {
        let Sample { at, interval, bytes, allocated } = *sample;
        if self.open.is_some_and(|open| step_of(at) > open.step) {
            self.close(allocated);
        }
        // A reading that comes after its step was closed counts to the next one.
        let next = self.levels.step().map_or(i32::MIN, |closed| closed.saturating_add(1));
        let begun = self.open.is_some();
        let open = self.open.get_or_insert(Open { step: step_of(at).max(next), bytes });
        if !begun || bytes > open.bytes {
            open.bytes = bytes;
            self.due.raise = true;
        }
        if step_of(at + interval) > open.step {
            self.close(allocated);
        }
    }

    /// The levels as if the open step ended now, and that step; `None` where none is open.
    pub(super) fn ahead(&self, allocated: u64) -> Option<(Levels, Open)> {
        let open = self.open?;
        let mut ahead = self.levels.clone();
        ahead.close(open.step, share(open.bytes, allocated));
        Some((ahead, open))
    }

    /// Has the next forecast made afresh.
    pub(super) const fn renew(&mut self) {
        self.due = Due { afresh: true, raise: self.open.is_some() };
    }

    /// Levels become shares of another allocation; `ratio` is the old one divided by the new one.
    pub(super) fn rescale(&mut self, ratio: f32) {
        self.levels.rescale(ratio);
        self.renew();
    }

    fn close(&mut self, allocated: u64) {
        if let Some(open) = self.open.take() {
            self.levels.close(open.step, share(open.bytes, allocated));
            self.closed_bytes = open.bytes;
            self.due = Due { afresh: true, raise: false };
        }
    }
}
