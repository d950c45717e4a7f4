//! The state of hosts and their guests at one moment, as replay and generator show it: everything that a collector reads
//! from a hypervisor, without the hypervisor.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::trace_file::TraceRow;

const GIB: u64 = 1 << 30;

/// One host with its guests.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSample {
    /// Stable id, such as `replay-1`.
    pub id: Arc<str>,
    /// Name for people.
    pub name: Arc<str>,
    /// The host's memory.
    pub total_bytes: u64,
    /// What the host could still hand out: total − what its guests (and, when simulated, the host itself) occupy.
    pub available_bytes: u64,
    /// The guests that run at this moment, always in the same order.
    pub guests: Vec<GuestSample>,
}

/// One guest.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestSample {
    /// The VM.
    pub vm: Uuid,
    /// Its name for people.
    pub name: Arc<str>,
    /// Index of its host.
    pub host: usize,
    /// What the guest holds now (balloon size).
    pub allocated_bytes: u64,
    /// The size that it was defined with.
    pub maximum_bytes: u64,
    /// Resident set of its process on the host; may exceed the allocation.
    pub rss_bytes: Option<u64>,
    /// What the guest says itself, where a driver runs and is asked.
    pub guest: Option<GuestStats>,
    /// Whether the VM is defined with a balloon device.
    pub has_balloon: bool,
    /// How often the guest is asked, where that is set.
    pub stats_period_seconds: Option<u32>,
    /// Since it started.
    pub uptime: Duration,
    /// How often it has restarted since its origin: a new number is a new guest in the same shell.
    pub boots: u32,
}

/// Balloon statistics: the guest's own view of its memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuestStats {
    /// All memory that the guest's system manages (libvirt: `available`).
    pub total_bytes: u64,
    /// Memory that nothing uses, not even as page cache (libvirt: `unused`).
    pub free_bytes: Option<u64>,
    /// Memory that the guest could give to a program without swapping (libvirt: `usable`).
    pub available_bytes: Option<u64>,
    /// Page cache (libvirt: `disk_caches`).
    pub disk_cache_bytes: Option<u64>,
    /// When the guest said so, counted from the same origin as the moment asked for; never later than that moment.
    pub last_update: Duration,
}

impl GuestStats {
    /// The signal `demand`: what the guest itself needs.
    #[must_use]
    pub fn demand_bytes(&self) -> Option<u64> {
        Some(self.total_bytes.saturating_sub(self.available_bytes?))
    }
}

impl GuestSample {
    /// The sample as a row of a trace at the moment `at`, for writing simulated guests to a file.
    #[must_use]
    pub fn to_trace_row(&self, at: Duration) -> TraceRow {
        TraceRow {
            vm: self.vm,
            name: Arc::clone(&self.name),
            t_seconds: at.as_secs_f64(),
            allocated_bytes: self.allocated_bytes,
            used_bytes: self.guest.and_then(|guest| guest.demand_bytes()),
            rss_bytes: self.rss_bytes,
        }
    }
}

/// A host's memory for guests that hold this much in all: allocations fill four fifths of it, rounded up to GiB.
pub(crate) fn host_total_bytes(allocated_bytes: u64) -> u64 {
    allocated_bytes.saturating_add(allocated_bytes / 4).div_ceil(GIB).max(1).saturating_mul(GIB)
}
