//! What one look at a host yields. Bytes throughout; an absent figure is `None`, never zero.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

/// One sample of a host and of all its running machines, taken at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct HostReading {
    /// Who was sampled.
    pub host: Host,
    /// When, in mesh time.
    pub read_at: Timestamp,
    /// How long until the next sample, in mesh time.
    pub interval: Duration,
    /// The host's own memory.
    pub memory: HostMemory,
    /// All running machines; one that is missing is gone.
    pub vms: Vec<VmReading>,
    /// W3C trace context of the sample; empty where none is recorded.
    pub traceparent: String,
}

/// Who a reading speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Stable identity.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Labels; they make the host's groups.
    pub labels: BTreeMap<String, String>,
}

/// Memory of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostMemory {
    /// Physical memory.
    pub total: Option<u64>,
    /// What new work could get without swapping (`MemAvailable`).
    pub available: Option<u64>,
    /// Swap space.
    pub swap_total: Option<u64>,
    /// Unused swap space.
    pub swap_free: Option<u64>,
    /// Bytes swapped in since boot.
    pub swapped_in: Option<u64>,
    /// Stall information; absent where the kernel keeps none.
    pub pressure: Option<Pressure>,
}

impl HostMemory {
    /// Bytes of swap in use.
    #[must_use]
    pub fn swap_used(&self) -> Option<u64> {
        self.swap_total?.checked_sub(self.swap_free?)
    }
}

/// How long tasks waited for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// One line of the kernel's pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Share of the last ten seconds, 0 to 1.
    pub avg10: f64,
    /// Seconds since boot.
    pub total_seconds: f64,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VmState {
    /// The hypervisor does not say.
    #[default]
    Unknown,
    /// Runs.
    Running,
    /// Suspended by a person or a program.
    Paused,
    /// Is being shut down.
    Shutdown,
    /// Crashed.
    Crashed,
    /// Suspended by the guest's power management.
    Suspended,
    /// Paused for, or running in the middle of, a migration.
    Migrating,
}

impl VmState {
    /// Every state, for metrics that list them all.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Running,
        Self::Paused,
        Self::Shutdown,
        Self::Crashed,
        Self::Suspended,
        Self::Migrating,
    ];

    /// The word used in metrics and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Crashed => "crashed",
            Self::Suspended => "suspended",
            Self::Migrating => "migrating",
        }
    }
}

/// How far the figures of a machine can be trusted, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quality {
    /// Its monitor does not answer.
    Stuck,
    /// Its state or its memory is not known.
    Unknown,
    /// Paused, suspended or crashed.
    Paused,
    /// Being migrated.
    Migrating,
    /// No fresh figures for three intervals.
    Stale,
    /// Backed by huge pages.
    Hugepages,
    /// Backed by private memory.
    PrivateMemory,
    /// No balloon driver answers.
    NoBalloon,
    /// A balloon device that is never asked for statistics.
    NoPeriod,
    /// All figures are fresh.
    Live,
}

impl Quality {
    /// Every class, worst first.
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

    /// The word used in metrics and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
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
}

/// One machine at the time of a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct VmReading {
    /// Identity of the machine.
    pub id: Uuid,
    /// Name that the host knows it by.
    pub name: String,
    /// What it is doing.
    pub state: VmState,
    /// How far these figures can be trusted.
    pub quality: Quality,
    /// What the guest holds now.
    pub allocated: Option<u64>,
    /// What it was defined with.
    pub maximum: Option<u64>,
    /// Resident set of its process.
    pub rss: Option<u64>,
    /// Part of the process that the host swapped out.
    pub swap: Option<u64>,
    /// The guest's own view.
    pub guest: GuestMemory,
    /// What its definition says; absent until it could be read.
    pub definition: Option<Definition>,
    /// Changes with every new process of the machine and with every reset of its guest.
    pub generation: u64,
    /// Whether its monitor answered.
    pub monitor: Monitor,
}

impl VmReading {
    /// Age of the guest's figures at `now`; absent where the guest never reported.
    #[must_use]
    pub fn stats_age(&self, now: Timestamp) -> Option<Duration> {
        let age = now.duration_since(self.guest.last_update?);
        // A clock that differs by a moment between two readers must not make a negative age.
        Some(Duration::try_from(age).unwrap_or_default())
    }

    /// How often the guest is asked to report; absent: never, or not known.
    #[must_use]
    pub fn stats_period(&self) -> Option<Duration> {
        self.definition.as_ref()?.stats_period
    }
}

/// Whether the monitor of a machine answered when the sample was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// It did.
    #[default]
    Answered,
    /// Passed over once: something else talks to it just now.
    Busy,
    /// It does not answer.
    Silent,
}

/// The guest's own view of its memory, from the balloon driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// Memory that the guest's kernel manages (libvirt: `available`).
    pub total: Option<u64>,
    /// Memory that holds nothing (libvirt: `unused`).
    pub free: Option<u64>,
    /// What new work could get without swapping (libvirt: `usable`).
    pub available: Option<u64>,
    /// Page cache (libvirt: `disk_caches`).
    pub disk_cache: Option<u64>,
    /// Bytes swapped in since boot.
    pub swap_in: Option<u64>,
    /// Bytes swapped out since boot.
    pub swap_out: Option<u64>,
    /// Page faults that needed disk, since boot.
    pub major_faults: Option<u64>,
    /// Page faults that did not, since boot.
    pub minor_faults: Option<u64>,
    /// When the guest last reported; absent: never.
    pub last_update: Option<Timestamp>,
}

/// What a machine's definition says about its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state machine")]
pub struct Definition {
    /// It has a balloon device.
    pub balloon: bool,
    /// How often the guest is asked for statistics; absent: never.
    pub stats_period: Option<Duration>,
    /// The guest hands back pages that it frees.
    pub free_page_reporting: bool,
    /// Backed by huge pages.
    pub hugepages: bool,
    /// Backed by memory that the host cannot see (SEV, TDX, protected virtualisation).
    pub private_memory: bool,
    /// Locked into the host's memory.
    pub locked: bool,
    /// A device is passed through, which pins all of the guest's memory.
    pub passthrough: bool,
}

impl Definition {
    /// A balloon gains nothing.
    #[must_use]
    pub fn pinned(&self) -> bool {
        self.locked || self.passthrough
    }
}
