//! Holds usage against the lowest bound that is still open, and makes episodes of what exceeds it.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::{
    domain::{Seconds, Signal},
    violation::{Change, Closing, Episode, Kind, Point, Recent},
};

/// Bounds kept at most in one queue.
const LIMIT: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Bound {
    made_at: Seconds,
    bytes: u64,
}

/// The bounds that are open, as a monotone queue: a bound that is older and not lower than another can never be the
/// lowest again and is dropped. When more than 64 remain, the two made closest together become one with the lower
/// bytes and the later end, which errs on the side of an accusation.
#[derive(Clone, Debug, Default)]
pub struct OpenBounds {
    bounds: VecDeque<Bound>,
}

impl OpenBounds {
    /// Drops every bound whose horizon ended before `at`: a bound made at t is open over (t, t + horizon].
    pub fn expire(&mut self, at: Seconds, horizon: Seconds) {
        while self.bounds.front().is_some_and(|bound| bound.made_at + horizon < at) {
            self.bounds.pop_front();
        }
    }

    /// The lowest bound that is open.
    #[must_use]
    pub fn lowest(&self) -> Option<u64> {
        self.bounds.front().map(|bound| bound.bytes)
    }

    /// Opens a bound. Call it after the reading of the same time was judged.
    pub fn push(&mut self, made_at: Seconds, bytes: u64) {
        while self.bounds.back().is_some_and(|bound| bound.bytes >= bytes) {
            self.bounds.pop_back();
        }
        self.bounds.push_back(Bound { made_at, bytes });
        if self.bounds.len() > LIMIT {
            self.merge_closest();
        }
    }

    /// Voids all that is open.
    pub fn clear(&mut self) {
        self.bounds.clear();
    }

    /// How many bounds are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    fn merge_closest(&mut self) {
        let gap = |at: usize| self.bounds[at + 1].made_at - self.bounds[at].made_at;
        let closest = (0..self.bounds.len() - 1).min_by(|a, b| gap(*a).total_cmp(&gap(*b)));
        if let Some(closest) = closest
            && let Some(higher) = self.bounds.remove(closest + 1)
        {
            self.bounds[closest].made_at = higher.made_at;
        }
    }
}

/// What an episode needs to know about its VM when it opens.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// The time of the reading.
    pub at: Seconds,
    /// Usage, at most the allocation.
    pub actual_bytes: u64,
    /// Allocation.
    pub allocated_bytes: u64,
    /// The horizon in force.
    pub horizon: Seconds,
    /// The target violation rate in force.
    pub target: f64,
    /// The model in use.
    pub model_version: Cow<'static, str>,
    /// Readings before this one.
    pub recent: &'a Recent,
}

/// Makes episodes of one kind for one signal: opened by usage beyond the limit, closed after one clean horizon.
#[derive(Clone, Debug)]
pub struct Judge {
    kind: Kind,
    signal: Signal,
    episode: Option<Box<Episode>>,
    last_beyond: Seconds,
    told: u64,
}

impl Judge {
    /// A judge without an episode.
    #[must_use]
    pub const fn of(kind: Kind, signal: Signal) -> Self {
        Self { kind, signal, episode: None, last_beyond: 0.0, told: 0 }
    }

    /// The episode that is open.
    #[must_use]
    pub fn open(&self) -> Option<&Episode> {
        self.episode.as_deref()
    }

    /// Holds a reading against `limit`; `None` where nothing is open.
    pub fn observe(&mut self, scene: &Scene<'_>, limit: Option<u64>) -> Option<Change> {
        let beyond = limit.filter(|limit| self.kind.overshoot(scene.actual_bytes, *limit) > 0);
        let point = Point { at: scene.at, actual_bytes: scene.actual_bytes, limit_bytes: limit };
        if beyond.is_some() {
            self.last_beyond = scene.at;
        }
        let Some(episode) = &mut self.episode else {
            let episode = begin(self.kind, self.signal, scene, point, beyond?);
            self.told = episode.overshoot_bytes;
            self.episode = Some(Box::new(episode.clone()));
            return Some(Change::Opened(episode));
        };
        let overshoot = self.kind.overshoot(scene.actual_bytes, episode.predicted_bytes);
        if beyond.is_some() && overshoot > episode.overshoot_bytes {
            episode.overshoot_bytes = overshoot;
            episode.actual_bytes = scene.actual_bytes;
            episode.actual_at = scene.at;
        }
        episode.add(point);
        if beyond.is_none() && scene.at - self.last_beyond >= scene.horizon {
            return self.close(scene.at, Closing::Clean);
        }
        // Told only when it got worse by a hundredth of the allocation: a ramp sampled each second is no news each second.
        if episode.overshoot_bytes - self.told >= (episode.allocated_bytes / 100).max(1) {
            self.told = episode.overshoot_bytes;
            episode.revision += 1;
            return Some(Change::Updated((**episode).clone()));
        }
        None
    }

    /// Closes the episode that is open.
    pub fn close(&mut self, at: Seconds, closing: Closing) -> Option<Change> {
        let mut episode = *self.episode.take()?;
        episode.closed = Some((at, closing));
        episode.revision += 1;
        Some(Change::Closed(episode))
    }
}

fn begin(kind: Kind, signal: Signal, scene: &Scene<'_>, point: Point, limit: u64) -> Episode {
    let mut series = Vec::with_capacity(crate::violation::SERIES);
    series.extend(scene.recent.iter());
    series.push(point);
    Episode {
        kind,
        signal,
        opened_at: scene.at,
        closed: None,
        predicted_bytes: limit,
        actual_bytes: scene.actual_bytes,
        actual_at: scene.at,
        overshoot_bytes: kind.overshoot(scene.actual_bytes, limit),
        allocated_bytes: scene.allocated_bytes,
        horizon: scene.horizon,
        target: scene.target,
        model_version: scene.model_version.clone(),
        revision: 1,
        series,
    }
}

#[cfg(test)]
mod tests;
