//! What is remembered of a signal's levels: windows of maxima, a week of half hours, eight days, moving averages.
//! Everything lies on a grid of five-minute steps and is a share of the allocation.

use serde::{Deserialize, Serialize};

use super::window::{Window, bucket, code, is_near, shift, shifted};
use crate::domain::Seconds;

/// Length of a step.
pub const STEP: Seconds = 300.0;

/// The step of a moment. Beyond some twenty thousand years it stands still.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates; i32::MIN is kept for never")]
pub fn step_of(at: Seconds) -> i32 {
    let steps = at / STEP;
    let towards_zero = (steps as i32).clamp(-i32::MAX / 2, i32::MAX / 2);
    if f64::from(towards_zero) > steps { towards_zero - 1 } else { towards_zero }
}

/// Step before the first.
pub(super) const NEVER: i32 = i32::MIN;

/// Half-hour maxima of a week.
pub(super) type Week = Window<336, 6>;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Levels {
    pub(super) step: i32,
    /// This step's level and those of the two readings before it.
    pub(super) latest: [u16; 3],
    pub(super) hour: Window<12, 1>,
    pub(super) three_hours: Window<12, 3>,
    pub(super) week: Week,
    pub(super) days: Window<8, 288>,
    /// Smallest code of each of the last twelve half hours, inverted so that it is a maximum.
    pub(super) least: Window<12, 6>,
    /// Largest codes of six hours, a day, three days and a week, each in buckets of its own length.
    pub(super) tops: [u16; 4],
    /// Readings since the level was last near the top of a day and of a week.
    pub(super) since_top: [u32; 2],
    pub(super) means: Means,
}

/// Exponentially weighted means of the level over about 15 minutes, one, six and 24 hours, and of its squared
/// distance from them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Means {
    pub(super) quarter: f32,
    pub(super) hour: f32,
    pub(super) six_hours: f32,
    pub(super) day: f32,
    pub(super) fast: f32,
    pub(super) slow: f32,
    pub(super) middle: f32,
}

/// Squared distance that is assumed before anything was seen.
const UNSEEN: f32 = 1e-4;

impl Means {
    const fn starting_at(share: f32) -> Self {
        let (quarter, hour, six_hours, day) = (share, share, share, share);
        Self { quarter, hour, six_hours, day, fast: UNSEEN, slow: UNSEEN, middle: UNSEEN }
    }

    fn push(&mut self, share: f32) {
        self.quarter += 0.5 * (share - self.quarter);
        self.hour += 0.1538 * (share - self.hour);
        let apart = share - self.six_hours;
        self.six_hours += 0.0274 * apart;
        self.middle += 0.0274 * (apart * apart - self.middle);
        self.slow += 0.006_92 * (apart * apart - self.slow);
        self.day += 0.006_92 * (share - self.day);
        let apart = share - self.hour;
        self.fast += 0.08 * (apart * apart - self.fast);
    }

    fn scale(&mut self, ratio: f32) {
        for level in [&mut self.quarter, &mut self.hour, &mut self.six_hours, &mut self.day] {
            *level = (*level * ratio).clamp(0.0, 1.0);
        }
        for square in [&mut self.fast, &mut self.slow, &mut self.middle] {
            *square = (*square * ratio * ratio).clamp(0.0, 1.0);
        }
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            step: NEVER,
            latest: [0; 3],
            hour: Window::default(),
            three_hours: Window::default(),
            week: Window::default(),
            days: Window::default(),
            least: Window::default(),
            tops: [0; 4],
            since_top: [0; 2],
            means: Means::starting_at(0.0),
        }
    }
}

impl Levels {
    /// The latest step that was closed; `None` before the first.
    #[must_use]
    pub fn step(&self) -> Option<i32> {
        (self.step != NEVER).then_some(self.step)
    }

    /// Takes the level of a step, a share of the allocation, once it is over. Steps only go forward: a step that is
    /// not later than the one before counts as the next one.
    pub fn close(&mut self, step: i32, share: f32) {
        let share = share.clamp(0.0, 1.0);
        let level = code(share);
        let before = self.step;
        let step = step.max(before.saturating_add(1));
        if before == NEVER {
            self.means = Means::starting_at(share);
            self.latest = [level; 3];
        }
        self.step = step;
        self.latest = [level, self.latest[0], self.latest[1]];
        self.means.push(share);

        self.hour.advance(before, step);
        self.hour.push(step, level);
        self.three_hours.advance(before, step);
        self.three_hours.push(step, level);
        self.days.advance(before, step);
        self.days.push(step, level);
        self.least.advance(before, step);
        self.least.push(step, u16::MAX - level + 1);
        self.week.advance(before, step);
        self.week.push(step, level);
        let half_hour = bucket::<6>(step);
        if half_hour == bucket::<6>(before) {
            self.tops = self.tops.map(|top| top.max(level));
        } else {
            let firsts = [
                half_hour - 11,
                2 * (bucket::<12>(step) - 23),
                6 * (bucket::<36>(step) - 23),
                12 * (bucket::<72>(step) - 27),
            ];
            self.tops = firsts.map(|first| self.week.span(first, half_hour));
        }
        for (since, top) in self.since_top.iter_mut().zip([self.tops[1], self.tops[3]]) {
            *since = if is_near(level, top) { 0 } else { since.saturating_add(1) };
        }
    }

    /// Levels become shares of another allocation; `ratio` is the old one divided by the new one.
    pub fn rescale(&mut self, ratio: f32) {
        let by = shift(ratio);
        self.latest = self.latest.map(|level| shifted(level, by));
        self.tops = self.tops.map(|top| shifted(top, by));
        self.hour.shift(by);
        self.three_hours.shift(by);
        self.week.shift(by);
        self.days.shift(by);
        self.least.shift(-by);
        self.means.scale(ratio);
    }

    /// Largest code of the last three steps.
    pub(super) fn quarter_top(&self) -> u16 {
        self.hour.span(self.step - 2, self.step)
    }
}
