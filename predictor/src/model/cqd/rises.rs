//! How far the level rose within a horizon, over a day and over a week: the jumps that levels alone do not show.

use serde::{Deserialize, Serialize};

use super::{
    levels::NEVER,
    window::{Window, code},
};

/// The largest rises above the level at which a forecast was made, as shares of the allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rises {
    step: i32,
    day: Window<24, 12>,
    week: Window<28, 72>,
}

impl Default for Rises {
    fn default() -> Self {
        Self { step: NEVER, day: Window::default(), week: Window::default() }
    }
}

impl Rises {
    /// Moves on to a step; an earlier one changes nothing.
    pub fn advance(&mut self, step: i32) {
        if step > self.step {
            self.day.advance(self.step, step);
            self.week.advance(self.step, step);
            self.step = step;
        }
    }

    /// Takes the rise of a horizon that was complete at `step`: its peak less the level before it, at least 0.
    pub fn push(&mut self, step: i32, rise: f32) {
        self.advance(step);
        let rise = code(rise);
        self.day.push(self.step, rise);
        self.week.push(self.step, rise);
    }

    /// Rises become shares of another allocation; `ratio` is the old one divided by the new one.
    pub fn rescale(&mut self, ratio: f32) {
        let by = super::window::shift(ratio);
        self.day.shift(by);
        self.week.shift(by);
    }

    /// Codes of the largest rise of a day and of a week.
    pub(super) fn tops(&self) -> [u16; 2] {
        [self.day.top(), self.week.top()]
    }
}
