//! The 33 numbers that the network sees of a signal, the same for a live machine and for training.

use super::{
    levels::Levels,
    math,
    rises::Rises,
    window::{FLOOR, bucket, ln_of},
};

/// How many there are.
pub const COUNT: usize = 33;

/// Their names, in order. Logarithms of shares of the allocation, except the last two (logarithms of one plus a count).
pub const NAMES: [&str; COUNT] = [
    "x", "x1", "x2", "e15", "e1h", "e6h", "e24h", "M15", "M1h", "M3h", "M6h", "M24h", "M3d", "M7d", "mn1h",
    "mn6h", "sdf", "sds", "sdm", "yst", "lwk", "w1", "w2", "wmed", "wmean", "d1", "d2", "dmed", "dmin",
    "J24", "J7d", "tsM24", "tsM7",
];

/// Where the largest level of a day stands: what the others are measured against.
const BASE: usize = 11;
/// From here on counts.
const COUNTS: usize = 31;

/// Days that are looked back to the same time of day.
const DAYS: i32 = 7;
const HALF_HOURS_A_DAY: i32 = 48;

/// Features as they are, before they are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawFeatures(pub [f32; COUNT]);

impl RawFeatures {
    /// Features as of the latest closed step, for a horizon of `steps` ≥ 1 steps. `rises` has been advanced to that step.
    #[must_use]
    pub fn of(levels: &Levels, rises: &Rises, steps: i32) -> Self {
        let means = &levels.means;
        let squares = [means.fast, means.slow, means.middle];
        let mut logs = [1.0; 9];
        logs[..4].copy_from_slice(&[means.quarter, means.hour, means.six_hours, means.day]);
        logs[4..7].copy_from_slice(&squares);
        for (level, floor) in
            logs.iter_mut().zip([FLOOR, FLOOR, FLOOR, FLOOR, FLOOR * FLOOR, FLOOR * FLOOR, FLOOR * FLOOR])
        {
            *level = level.max(floor);
        }
        logs[7..].copy_from_slice(&levels.since_top.map(one_more));
        for value in &mut logs {
            *value = math::ln(*value);
        }

        let [six_hours, day, three_days, week] = levels.tops;
        let (same_time, mean) = same_time(levels, steps);
        let days = last_days(levels);
        let [rise_day, rise_week] = rises.tops();
        let codes = [
            levels.latest[0],
            levels.latest[1],
            levels.latest[2],
            0,
            0,
            0,
            0,
            levels.quarter_top(),
            levels.hour.top(),
            levels.three_hours.top(),
            six_hours,
            day,
            three_days,
            week,
            levels.hour.least(),
            u16::MAX - levels.least.top() + 1,
            0,
            0,
            0,
            same_time[0],
            same_time[1],
            same_time[2],
            same_time[3],
            same_time[4],
            0,
            days[0],
            days[1],
            days[2],
            days[3],
            rise_day.max(1),
            rise_week.max(1),
            0,
            0,
        ];
        let mut features = codes.map(ln_of);
        features[3..7].copy_from_slice(&logs[..4]);
        for (feature, square) in features[16..19].iter_mut().zip(&logs[4..7]) {
            *feature = 0.5 * square;
        }
        features[24] = mean;
        features[COUNTS..].copy_from_slice(&logs[7..]);
        Self(features)
    }

    /// Logarithm of the largest level of a day: what a forecast is measured against.
    #[must_use]
    pub const fn base(&self) -> f32 {
        self.0[BASE]
    }

    /// Features as the network takes them: relative to the base, about as large as one another, clipped to ±4.
    #[must_use]
    pub fn design(&self) -> [f32; COUNT] {
        let mut design = self.0;
        for (at, value) in design.iter_mut().enumerate() {
            let zero = match at {
                BASE => -3.0,
                COUNTS.. => 2.0,
                _ => self.base(),
            };
            *value = ((*value - zero) / 1.5).clamp(-4.0, 4.0);
        }
        design
    }
}

#[expect(clippy::cast_precision_loss, reason = "seven digits of a count are plenty")]
const fn one_more(count: u32) -> f32 {
    count.saturating_add(1) as f32
}

/// Levels that the half hours of the coming horizon had on each of the last seven days: yesterday's, the oldest, the
/// largest, the second and the median as codes, and the mean of their logarithms. Where there are none yet, the
/// largest level of a day stands in.
fn same_time(levels: &Levels, steps: i32) -> ([u16; 5], f32) {
    let (first, last) = (bucket::<6>(levels.step + 1), bucket::<6>(levels.step.saturating_add(steps)));
    let (mut tops, mut count, mut sum) = ([0u16; DAYS as usize], 0, 0.0);
    let (mut yesterday, mut oldest) = (0, 0);
    for day in 1..=DAYS {
        // The bucket of this half hour a week ago is this half hour's by now; it counts all the same. Before the
        // epoch there is nothing.
        let (first, last) = (first - HALF_HOURS_A_DAY * day, last - HALF_HOURS_A_DAY * day);
        if last < 0 {
            continue;
        }
        let top = levels.week.span(first.max(0), last);
        if top == 0 {
            continue;
        }
        if day == 1 {
            yesterday = top;
        }
        oldest = top;
        tops[count] = top;
        count += 1;
        sum += ln_of(top);
    }
    let [_, day, _, _] = levels.tops;
    let tops = &mut tops[..count];
    tops.sort_unstable_by(|a, b| b.cmp(a));
    let Some(&largest) = tops.first() else { return ([day; 5], ln_of(day)) };
    let second = tops.get(1).copied().unwrap_or(largest);
    let median = tops[count - 1 - count / 2];
    let yesterday = if yesterday == 0 { median } else { yesterday };
    ([yesterday, oldest, largest, second, median], sum / small(count))
}

/// The largest, second, median and smallest of the last eight days' maxima, of which the seven latest count.
fn last_days(levels: &Levels) -> [u16; 4] {
    let today = bucket::<288>(levels.step);
    let (mut tops, mut count) = ([0u16; 8], 0);
    for back in 0..8 {
        let top = levels.days.span(today - back, today - back);
        if top > 0 && count < 7 {
            tops[count] = top;
            count += 1;
        }
    }
    let tops = &mut tops[..count];
    tops.sort_unstable_by(|a, b| b.cmp(a));
    let Some(&largest) = tops.first() else { return [0; 4] };
    [largest, tops.get(1).copied().unwrap_or(largest), tops[count - 1 - count / 2], tops[count - 1]]
}

#[expect(clippy::cast_precision_loss, reason = "at most seven")]
const fn small(count: usize) -> f32 {
    count as f32
}
