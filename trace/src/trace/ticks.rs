//! Groups readings that were taken at nearly the same time: what one look at the fleet would have shown.

use super::Trace;

/// The readings of a trace by tick. A tick is one [`Trace::step`] long, counted from 0 at the first reading.
///
/// A reading belongs to the tick in which it falls, but a VM whose readings come a little early or late, as they do in reality,
/// keeps having one in each tick for as long as that is at most one and a half ticks off: jitter is not a gap.
pub struct Ticks {
    /// Indices of readings, by tick, then VM.
    order: Vec<u32>,
    /// Each tick that has readings, and where they begin in `order`. A trace may have holes of any length.
    starts: Vec<(u64, usize)>,
}

impl Ticks {
    pub(super) fn of(trace: &Trace) -> Self {
        let mut placed: Vec<(u64, u32)> = Vec::with_capacity(trace.len());
        let mut vms = vec![Place::default(); trace.vms().len()];
        let (start, step) = (trace.start_seconds(), trace.step().as_secs_f64());
        for (reading, index) in trace.readings().zip(0u32..) {
            placed.push((vms[reading.vm].next((reading.t_seconds - start) / step), index));
        }
        // Within a tick the order of time stays, so that of two readings of one VM the later one comes later.
        placed.sort_unstable();
        let mut starts: Vec<(u64, usize)> = Vec::new();
        for (position, (tick, _)) in placed.iter().enumerate() {
            if starts.last().is_none_or(|(last, _)| last != tick) {
                starts.push((*tick, position));
            }
        }
        Self { order: placed.into_iter().map(|(_, index)| index).collect(), starts }
    }

    /// The tick of the last reading.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.starts.last().map_or(0, |(tick, _)| *tick)
    }

    /// Indices (for [`Trace::reading`]) of the readings of one tick, by time; none in a hole. A VM that was read more often
    /// than once a step is there more than once.
    #[must_use]
    pub fn get(&self, tick: u64) -> impl ExactSizeIterator<Item = usize> + '_ {
        let range = match self.starts.binary_search_by_key(&tick, |(tick, _)| *tick) {
            Ok(found) => self.range(found),
            Err(_) => 0..0,
        };
        self.order[range].iter().map(|index| *index as usize)
    }

    /// All ticks that have readings, in order, each with the indices of its readings.
    #[must_use]
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (u64, impl ExactSizeIterator<Item = usize> + '_)> + '_ {
        self.starts
            .iter()
            .enumerate()
            .map(|(nth, (tick, _))| (*tick, self.order[self.range(nth)].iter().map(|index| *index as usize)))
    }

    fn range(&self, nth: usize) -> std::ops::Range<usize> {
        self.starts[nth].1..self.starts.get(nth + 1).map_or(self.order.len(), |(_, start)| *start)
    }
}

/// How many steps a reading's tick may lie from its time before the tick follows the time again: a VM's phase takes up to one,
/// jitter the rest.
const FURTHEST_OFF: f64 = 1.5;

/// Where a VM's last reading went.
#[derive(Clone, Copy, Default)]
struct Place {
    /// The last reading's time in steps since the start, and its tick.
    last: Option<(f64, u64)>,
}

impl Place {
    /// The tick of the reading at `time` (in steps since the start).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "time is 0 or more, and at most 1e14 (1e11 s in steps of 1 ms): far below 2^53"
    )]
    fn next(&mut self, time: f64) -> u64 {
        // A time that arithmetic leaves a hair before its tick belongs to it.
        let falls_in = (time + 1e-6).floor() as u64;
        let tick = match self.last {
            None => falls_in,
            Some((before, tick)) => {
                let regular = tick + (time - before).round() as u64;
                if (regular as f64 - time).abs() <= FURTHEST_OFF { regular } else { falls_in.max(tick) }
            }
        };
        self.last = Some((time, tick));
        tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(times: &[f64]) -> Vec<u64> {
        let mut place = Place::default();
        times.iter().map(|time| place.next(*time)).collect()
    }

    #[test]
    fn jitter_is_no_gap_and_a_gap_is_one() {
        assert_eq!(ticks(&[0.0, 0.97, 2.04, 2.99, 4.0]), [0, 1, 2, 3, 4]);
        assert_eq!(ticks(&[0.97, 2.05, 2.93, 4.95]), [0, 1, 2, 4]);
    }

    #[test]
    fn a_slow_drift_never_leads_away() {
        let drifting: Vec<f64> = (0..1000).map(|n| f64::from(n) * 1.01).collect();
        for (tick, time) in ticks(&drifting).into_iter().zip(&drifting) {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let off = tick as f64 - time;
            assert!(off.abs() <= FURTHEST_OFF, "tick {tick} for {time}");
        }
    }

    #[test]
    fn a_vm_read_more_often_than_the_step_is_in_every_tick() {
        let often: Vec<f64> = (0..40).map(|n| f64::from(n) / 3.0).collect();
        let mut seen = ticks(&often);
        seen.dedup();
        assert_eq!(seen, (0..=*seen.last().unwrap()).collect::<Vec<_>>());
    }
}
