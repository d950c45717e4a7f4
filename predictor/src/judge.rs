//! Holds usage against the lowest bound that is still open, and makes episodes of what exceeds it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, Signal},
    violation::{Change, Closing, Episode, Kind, Point, Recent},
};

/// Bounds kept at most in one queue: every signal of every machine has two.
const LIMIT: usize = 8;

/// The bounds that are open, as a monotone queue: a bound that is older and not lower than another can never be the
/// lowest again and is dropped. When more than 8 remain, the two made closest together become one with the lower
/// bytes and the later end, which errs on the side of an accusation.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct OpenBounds {
    /// When each was made, in milliseconds since the epoch, of which the lowest bits tell any span of some weeks.
    made: [u32; LIMIT],
    bytes: [u64; LIMIT],
    len: u8,
}

impl OpenBounds {
    /// Drops every bound whose horizon ended before `at`: a bound made at t is open over (t, t + horizon].
    pub fn expire(&mut self, at: Seconds, horizon: Seconds) {
        let (now, horizon) = (milliseconds(at), milliseconds(horizon));
        let len = self.len();
        let ended = self.made[..len].iter().take_while(|made| now.wrapping_sub(**made) > horizon).count();
        self.made.copy_within(ended..len, 0);
        self.bytes.copy_within(ended..len, 0);
        self.set_len(len - ended);
    }

    /// The lowest bound that is open.
    #[must_use]
    pub fn lowest(&self) -> Option<u64> {
        (self.len > 0).then(|| self.bytes[0])
    }

    /// Opens a bound. Call it after the reading of the same time was judged.
    pub fn push(&mut self, made_at: Seconds, bytes: u64) {
        let mut len = self.bytes[..self.len()].iter().take_while(|open| **open < bytes).count();
        if len == LIMIT {
            self.merge_closest();
            len -= 1;
        }
        self.made[len] = milliseconds(made_at);
        self.bytes[len] = bytes;
        self.set_len(len + 1);
    }

    /// Voids all that is open.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// How many bounds are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len).min(LIMIT)
    }

    /// Whether nothing is open.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
    fn set_len(&mut self, len: usize) {
        self.len = len.min(LIMIT) as u8;
    }

    fn merge_closest(&mut self) {
        let gap = |at: usize| self.made[at + 1].wrapping_sub(self.made[at]);
        let closest = (0..LIMIT - 1).min_by_key(|at| gap(*at)).unwrap_or(0);
        self.made.copy_within(closest + 1.., closest);
        self.bytes.copy_within(closest + 2.., closest + 1);
    }
}

/// A moment or a span in whole milliseconds: of a moment the lowest bits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the lowest bits are wanted")]
fn milliseconds(at: Seconds) -> u32 {
    (at * 1000.0).round() as i64 as u32
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

    /// Lets go of the open episode, untold, unless `keep` says so.
    pub fn retain(&mut self, keep: impl FnOnce(&mut Episode) -> bool) {
        if let Some(mut episode) = self.episode.take()
            && keep(&mut episode)
        {
            self.told = self.told.max(episode.overshoot_bytes);
            self.episode = Some(episode);
        }
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
