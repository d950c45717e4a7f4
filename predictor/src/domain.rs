//! The plain words that the pure core speaks: signals, qualities, readings. Times are seconds since the epoch
//! ([`Seconds`]), amounts are bytes, and what is absent is `None`, never zero.

use serde::{Deserialize, Serialize};

/// A moment (seconds since the Unix epoch, mesh time) or a span (seconds); which one, its name says.
pub type Seconds = f64;

/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;

/// What is forecast for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// Resident set of the VM's process plus its swap where known, judged as min(rss, allocated).
    Rss,
    /// What the guest itself needs: `available − usable` of the balloon statistics.
    Demand,
}

impl Signal {
    /// Both signals, `rss` first.
    pub const ALL: [Self; 2] = [Self::Rss, Self::Demand];

    /// The lower-case word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rss => "rss",
            Self::Demand => "demand",
        }
    }
}

/// How far a VM's figures can be trusted. Ordered: the worst is the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Quality {
    /// The VM's monitor does not answer.
    Stuck,
    /// The state is not known, or is none that can be harvested (crashed, shutting down).
    Unknown,
    /// Paused: its usage says nothing about the moment it resumes.
    Paused,
    /// Being moved to another host.
    Migrating,
    /// No reading for three intervals.
    Stale,
    /// Backed by hugepages, which the resident set does not count.
    Hugepages,
    /// Private guest memory, which the resident set does not count.
    PrivateMemory,
    /// No balloon driver answers in the guest.
    NoBalloon,
    /// The balloon's statistics period is not set.
    NoPeriod,
    /// Everything is known.
    Live,
}

impl Quality {
    /// Every quality, worst first.
    pub const ALL: [Self; 10] = [
        Self::Stuck,
        Self::Unknown,
        Self::Paused,
        Self::Migrating,
        Self::Stale,
        Self::Hugepages,
        Self::PrivateMemory,
        Self::NoBalloon,
        Self::NoPeriod,
        Self::Live,
    ];

    /// The lower-case word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Unknown => "unknown",
            Self::Paused => "paused",
            Self::Migrating => "migrating",
            Self::Stale => "stale",
            Self::Hugepages => "hugepages",
            Self::PrivateMemory => "private_memory",
            Self::NoBalloon => "no_balloon",
            Self::NoPeriod => "no_period",
            Self::Live => "live",
        }
    }

    /// Whether a VM of this quality may be harvested for `signal` at all.
    #[must_use]
    pub fn allows(self, signal: Signal) -> bool {
        match signal {
            Signal::Rss => self > Self::PrivateMemory,
            Signal::Demand => self == Self::Live,
        }
    }

    /// Whether the VM was interrupted, so that promises made before say nothing about the time after.
    #[must_use]
    pub const fn interrupts(self) -> bool {
        matches!(self, Self::Paused | Self::Migrating | Self::Unknown)
    }
}

/// One sample of one VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When it was taken.
    pub at: Seconds,
    /// The interval at which the source samples, > 0.
    pub interval: Seconds,
    /// What the guest holds now: the balloon's size. `None` or zero is refused.
    pub allocated: Option<u64>,
    /// Resident set of the VM's process, raw: it may exceed the allocation.
    pub rss: Option<u64>,
    /// What the host has swapped out of the VM's process.
    pub swap: Option<u64>,
    /// What the guest needs, from [`demand`].
    pub demand: Option<u64>,
    /// When the guest last refreshed its statistics. An unchanged value is no new sample of demand.
    pub stats_updated_at: Option<Seconds>,
    /// The balloon's statistics period.
    pub stats_period: Option<Seconds>,
    /// How far the collector trusts the figures.
    pub quality: Quality,
    /// Whether the guest's memory is locked, or pinned by a passed-through device.
    pub pinned: bool,
    /// Anything that stays the same while the VM's process lives: any change is a restart.
    pub generation: Option<u64>,
    /// How long the guest has been up: a decrease is a restart.
    pub uptime: Option<Seconds>,
    /// A counter kept by the guest (major faults, swap-ins): a decrease is a restart of the guest.
    pub guest_counter: Option<u64>,
}

impl Reading {
    /// Usage of a signal in bytes as it is judged: at most the allocation; `rss` includes swap where known.
    #[must_use]
    pub fn usage(&self, signal: Signal) -> Option<u64> {
        let allocated = self.allocated?;
        let raw = match signal {
            Signal::Rss => self.rss.map(|rss| rss.saturating_add(self.swap.unwrap_or(0))),
            Signal::Demand => self.demand,
        };
        raw.map(|bytes| bytes.min(allocated))
    }
}

/// What the guest itself needs, from its balloon statistics; `None` where either part is absent.
#[must_use]
pub fn demand(available: Option<u64>, usable: Option<u64>) -> Option<u64> {
    Some(available?.saturating_sub(usable?))
}

/// Why a reading was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The same time as the reading before.
    #[error("a reading of this time was already taken")]
    Duplicate,
    /// Older than the reading before.
    #[error("the reading is older than the one before it")]
    OutOfOrder,
    /// Neither a number nor a possible time or interval.
    #[error("the reading's time or interval is not a usable number")]
    NotATime,
    /// No allocation was given.
    #[error("the reading does not say how much memory the vm holds")]
    AbsentAllocation,
    /// The allocation is zero.
    #[error("the reading says that the vm holds no memory")]
    ZeroAllocation,
}

/// Bytes as people read them, for sentences.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a sentence shows two digits")]
pub fn human_bytes(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= GIB {
        format!("{:.2} GiB", bytes as f64 / GIB as f64)
    } else if bytes >= MIB {
        format!("{:.1} MiB", bytes as f64 / MIB as f64)
    } else {
        format!("{bytes} bytes")
    }
}

/// A span as people read it, for sentences.
#[must_use]
pub fn human_span(span: Seconds) -> String {
    if span < 90.0 {
        format!("{span:.0} s")
    } else if span < 5400.0 {
        format!("{:.0} min", span / 60.0)
    } else {
        format!("{:.1} h", span / 3600.0)
    }
}

/// Bytes to the real line. Exact below 2^53 bytes (8 PiB).
#[expect(clippy::cast_precision_loss, reason = "no host has 8 PiB")]
pub(crate) const fn real(bytes: u64) -> f64 {
    bytes as f64
}

/// From the real line up to whole bytes; NaN and negative numbers are zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub(crate) fn whole(bytes: f64) -> u64 {
    bytes.ceil() as u64
}
