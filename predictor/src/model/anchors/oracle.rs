//! Who knows the future: the most that any predictor could harvest without a miss.

use std::{borrow::Cow, collections::VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    domain::Seconds,
    labels::{LATE, Label},
    model::{Forecast, Model, Prices, Sample, Terms},
};

/// Forecasts the peak that comes, from readings of its machine that it was given. Where it knows none within the
/// horizon, the allocation is the forecast. For backtests only: nobody has these readings live.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Oracle {
    known: Vec<(Seconds, u64)>,
    /// The first that lies ahead.
    next: usize,
    /// The first that lies beyond the horizon.
    end: usize,
    /// Those in between that can become the largest, in order and falling.
    falling: VecDeque<usize>,
    horizon: Seconds,
    /// The latest sample.
    latest: Option<Sample>,
}

impl Oracle {
    /// One that knows these readings of its signal: when, and how many bytes were used. In the order of time.
    #[must_use]
    pub fn knowing(readings: impl IntoIterator<Item = (Seconds, u64)>) -> Self {
        Self { known: readings.into_iter().collect(), ..Self::default() }
    }

    /// The largest usage after `at`, up to `until`.
    fn peak_within(&mut self, at: Seconds, until: Seconds) -> Option<u64> {
        while self.known.get(self.next).is_some_and(|(when, _)| *when <= at) {
            self.next += 1;
        }
        while self.falling.pop_front_if(|index| *index < self.next).is_some() {}
        self.end = self.end.max(self.next);
        while let Some((when, bytes)) = self.known.get(self.end)
            && *when <= until
        {
            while self.falling.pop_back_if(|index| self.known[*index].1 <= *bytes).is_some() {}
            self.falling.push_back(self.end);
            self.end += 1;
        }
        self.falling.front().map(|index| self.known[*index].1)
    }
}

impl Model for Oracle {
    fn version(&self) -> Cow<'static, str> {
        "oracle".into()
    }

    fn observe(&mut self, sample: &Sample) {
        self.latest = Some(*sample);
    }

    fn learn(&mut self, _: &Label, _: &Terms, _: &mut Prices) {}

    fn forecast(&mut self, terms: &Terms, _: &Prices) -> Option<Forecast> {
        let latest = self.latest?;
        if (terms.horizon - self.horizon).abs() > f64::EPSILON {
            self.falling.clear();
            self.end = self.next;
            self.horizon = terms.horizon;
        }
        // As forecasts are judged: a reading that is a little late still belongs to the horizon.
        let until = latest.at + terms.horizon + LATE * latest.interval;
        let peak = self.peak_within(latest.at, until).unwrap_or(latest.allocated);
        Some(Forecast {
            made_at: latest.at,
            horizon: terms.horizon,
            predicted_bytes: peak.min(latest.allocated),
            level_bytes: latest.bytes,
        })
    }

    fn reset(&mut self) {
        self.latest = None;
    }
}
