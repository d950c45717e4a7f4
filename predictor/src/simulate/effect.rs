//! Adds up what a simulation came to.

use super::{Machine, Terms, Window};
use crate::boundary::Effective;
use crate::domain::{Seconds, real};
use crate::violation::{Change, Kind};
use crate::vm::Outcome;

const DAY: Seconds = 86_400.0;

/// Points of a course.
const POINTS: usize = 96;

/// Sums of one side of one machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tally {
    /// Time observed.
    seconds: Seconds,
    /// Of it, time in windows that can hold a promise to account.
    judged: Seconds,
    /// Bytes times seconds.
    harvest: f64,
    reclaimable: f64,
    promises_broken: u64,
    band_left: u64,
}

impl Tally {
    pub(super) const ZERO: Self =
        Self { seconds: 0.0, judged: 0.0, harvest: 0.0, reclaimable: 0.0, promises_broken: 0, band_left: 0 };

    pub(super) fn add(&mut self, window: &Window, effective: &Effective, outcome: Option<&Outcome>) {
        self.seconds += window.length;
        if window.length <= effective.horizon.value {
            self.judged += window.length;
        }
        let Some(outcome) = outcome else { return };
        self.harvest += real(outcome.harvestable) * window.length;
        self.reclaimable += real(outcome.reclaimable) * window.length;
        for change in &outcome.violations {
            if let Change::Opened(episode) = change {
                match episode.kind {
                    Kind::Promise => self.promises_broken += 1,
                    Kind::BoundaryUpper | Kind::BoundaryLower => self.band_left += 1,
                    Kind::Forecast => {}
                }
            }
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Gain and cost of one machine. Of every pair the first is under the boundaries as they are, the second under the
/// simulated one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// The machine's UUID; empty for all.
    pub vm_id: String,
    /// Its name.
    pub name: String,
    /// The host that it was on last.
    pub host_id: String,
    /// Time observed.
    pub seconds: Seconds,
    /// Of it, time in windows that can hold a promise to account.
    pub judged: Seconds,
    /// Harvest in bytes times seconds.
    pub harvest: [f64; 2],
    /// What a balloon could add, in bytes times seconds.
    pub reclaimable: [f64; 2],
    /// Promise violations, of both signals.
    pub promises_broken: [u64; 2],
    /// Violations of the operator's band.
    pub band_left: [u64; 2],
}

impl Effect {
    pub(super) fn of(machine: &Machine, [before, after]: [Tally; 2]) -> Self {
        Self {
            vm_id: machine.vm_id.clone(),
            name: machine.name.clone(),
            host_id: machine.host_id.clone(),
            seconds: before.seconds,
            judged: before.judged.min(after.judged),
            harvest: [before.harvest, after.harvest],
            reclaimable: [before.reclaimable, after.reclaimable],
            promises_broken: [before.promises_broken, after.promises_broken],
            band_left: [before.band_left, after.band_left],
        }
    }

    /// Adds another machine to the sum of all.
    pub fn absorb(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.judged += other.judged;
        for side in 0..2 {
            self.harvest[side] += other.harvest[side];
            self.reclaimable[side] += other.reclaimable[side];
            self.promises_broken[side] += other.promises_broken[side];
            self.band_left[side] += other.band_left[side];
        }
    }

    /// How much changes, for an order: what is gained or lost in bytes times seconds, then violations.
    #[must_use]
    pub fn change(&self) -> (f64, u64) {
        let moved = |[before, after]: [f64; 2]| (after - before).abs();
        let counted = |[before, after]: [u64; 2]| after.abs_diff(before);
        (
            moved(self.harvest) + moved(self.reclaimable),
            counted(self.promises_broken) + counted(self.band_left),
        )
    }

    /// Days of machines that were observed, and of these those that could be judged.
    #[must_use]
    pub fn days(&self) -> [f64; 2] {
        [self.seconds / DAY, self.judged / DAY]
    }
}

/// The harvest of all machines over time, in equal spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    from: Seconds,
    span: Seconds,
    /// Bytes times seconds of each span, by side.
    sums: Vec<[f64; 2]>,
    /// From the begin of the first window that counts to the end of the last.
    observed: Option<(Seconds, Seconds)>,
}

impl Course {
    pub(super) fn over(terms: &Terms) -> Self {
        let length = (terms.to - terms.from).max(1.0);
        Self {
            from: terms.from,
            span: length / real(POINTS as u64),
            sums: vec![[0.0; 2]; POINTS],
            observed: None,
        }
    }

    /// A window may reach over several spans.
    pub(super) fn add(&mut self, window: &Window, side: usize, bytes: u64) {
        let mut at = (window.end - window.length).max(self.from);
        self.observe(at, window.end);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the points")]
        let mut index = ((at - self.from) / self.span).floor() as u64;
        while at < window.end {
            let next = (self.from + real(index + 1) * self.span).min(window.end);
            let Some(sum) = usize::try_from(index).ok().and_then(|index| self.sums.get_mut(index)) else {
                return;
            };
            sum[side] += real(bytes) * (next - at).max(0.0);
            at = next.max(at);
            index += 1;
        }
    }

    fn observe(&mut self, begin: Seconds, end: Seconds) {
        let (first, last) = self.observed.unwrap_or((begin, end));
        self.observed = Some((first.min(begin), last.max(end)));
    }

    /// From the begin of the first window that counts to the end of the last; `None` where none does.
    #[must_use]
    pub const fn observed(&self) -> Option<(Seconds, Seconds)> {
        self.observed
    }

    /// Adds the course of other machines over the same time.
    pub fn absorb(&mut self, other: &Self) {
        if let Some((begin, end)) = other.observed {
            self.observe(begin, end);
        }
        for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
            sum[0] += other[0];
            sum[1] += other[1];
        }
    }

    /// When each span begins in which anything was observed, and the mean bytes in it on both sides.
    pub fn points(&self) -> impl Iterator<Item = (Seconds, [f64; 2])> + '_ {
        let (first, last) = self.observed.unwrap_or_default();
        let points = (0u64..).zip(&self.sums).map(|(index, sum)| (self.from + real(index) * self.span, sum));
        points.filter(move |(begin, _)| *begin < last && *begin + self.span > first).map(
            move |(begin, sum)| {
                // At the edges a span is observed in part.
                let seen = (begin + self.span).min(last) - begin.max(first);
                (begin, sum.map(|sum| sum / seen))
            },
        )
    }
}
