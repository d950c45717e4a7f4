//! One episode of broken expectations, however many readings it spans.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::{Seconds, Signal};

/// Points that an episode keeps: those before it and those since, thinned.
pub const SERIES: usize = 32;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The lowest raw forecast still open.
    Forecast,
    /// The lowest promise still open.
    Promise,
    /// The upper edge of the operator's band.
    BoundaryUpper,
    /// The lower edge of the operator's band.
    BoundaryLower,
}

impl Kind {
    /// The word used on every surface; both edges of the band are `boundary`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::Promise => "promise",
            Self::BoundaryUpper | Self::BoundaryLower => "boundary",
        }
    }

    /// How far `actual` is beyond `limit`, 0 where it is not.
    #[must_use]
    pub const fn overshoot(self, actual: u64, limit: u64) -> u64 {
        match self {
            Self::BoundaryLower => limit.saturating_sub(actual),
            Self::Forecast | Self::Promise | Self::BoundaryUpper => actual.saturating_sub(limit),
        }
    }
}

/// Why an episode closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Closing {
    /// One clean horizon has passed.
    Clean,
    /// The VM is gone.
    VmGone,
    /// A resize, a restart or an interruption made what was open meaningless, or an operator moved the band.
    Voided,
}

impl Closing {
    /// The word that the ledger keeps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::VmGone => "vm_gone",
            Self::Voided => "voided",
        }
    }
}

/// Usage at a time, and what it was judged against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When.
    pub at: Seconds,
    /// Usage.
    pub actual_bytes: u64,
    /// The lowest that was open, or the band's edge; `None` where nothing was.
    pub limit_bytes: Option<u64>,
}

/// A violation from its opening on. Kind, signal and opening time identify it within its VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// What was broken.
    pub kind: Kind,
    /// Whose usage broke it.
    pub signal: Signal,
    /// The first reading beyond the limit.
    pub opened_at: Seconds,
    /// When it closed, and why.
    pub closed: Option<(Seconds, Closing)>,
    /// What was predicted, promised or set when it opened.
    pub predicted_bytes: u64,
    /// The most extreme usage since.
    pub actual_bytes: u64,
    /// When that was.
    pub actual_at: Seconds,
    /// How far that is beyond `predicted_bytes`.
    pub overshoot_bytes: u64,
    /// Allocation at the opening.
    pub allocated_bytes: u64,
    /// Horizon at the opening.
    pub horizon: Seconds,
    /// Target violation rate at the opening.
    pub target: f64,
    /// The model in use at the opening.
    pub model_version: Cow<'static, str>,
    /// Grows with every change that was told.
    pub revision: u64,
    /// A few readings before the opening and those since, oldest first, at most [`SERIES`].
    pub series: Vec<Point>,
}

impl Episode {
    /// The overshoot as a share of the allocation.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub fn overshoot_ratio(&self) -> f64 {
        self.overshoot_bytes as f64 / (self.allocated_bytes.max(1)) as f64
    }

    /// Adds a point. A full series loses every second point after the opening, except the most extreme one.
    pub(crate) fn add(&mut self, point: Point) {
        if self.series.len() >= SERIES {
            let (opened_at, actual_at) = (self.opened_at, self.actual_at);
            let mut nth = 0usize;
            self.series.retain(|kept| {
                if kept.at <= opened_at || (kept.at - actual_at).abs() < f64::EPSILON {
                    return true;
                }
                nth += 1;
                nth.is_multiple_of(2)
            });
        }
        if self.series.len() < SERIES {
            self.series.push(point);
        }
    }
}

/// Readings that are remembered.
const RECENT: usize = 4;

/// The latest readings of a signal, for the time before an episode.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Recent {
    points: [(Seconds, u64); RECENT],
    /// Below twice the number of points; from the first round on it stays in the second.
    seen: usize,
}

impl Recent {
    /// Remembers a reading in place of the oldest.
    pub fn push(&mut self, at: Seconds, bytes: u64) {
        self.points[self.seen % RECENT] = (at, bytes);
        self.seen = if self.seen + 1 < 2 * RECENT { self.seen + 1 } else { RECENT };
    }

    /// What is remembered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Point> {
        (self.seen.saturating_sub(RECENT)..self.seen)
            .map(|place| self.points[place % RECENT])
            .map(|(at, actual_bytes)| Point { at, actual_bytes, limit_bytes: None })
    }
}

/// What happened to an episode.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It began.
    Opened(Episode),
    /// It got notably worse.
    Updated(Episode),
    /// It is over.
    Closed(Episode),
}

impl Change {
    /// The episode as it is after the change.
    #[must_use]
    pub const fn episode(&self) -> &Episode {
        match self {
            Self::Opened(episode) | Self::Updated(episode) | Self::Closed(episode) => episode,
        }
    }
}
