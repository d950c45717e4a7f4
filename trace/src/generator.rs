//! Invents hosts with believable guests out of a seed.
//!
//! What a guest does at a moment follows from (seed, guest, moment) alone: nothing is remembered from one moment to the next,
//! so any two ways of stepping through time show the same, and whoever restarts goes on where it was.

mod dice;
mod guest;
mod pattern;
mod profile;

use std::sync::Arc;
use std::time::Duration;

use crate::sample::{HostSample, host_total_bytes};
pub(crate) use dice::mix;
use guest::Guest;
pub use profile::Profile;

/// A fleet of invented guests.
pub struct Simulation {
    hosts: Vec<Host>,
}

struct Host {
    id: Arc<str>,
    total_bytes: u64,
    guests: Vec<Guest>,
}

impl Simulation {
    /// Hosts named `sim-1` and so on, each with this many guests. Ten guests of a host show every [`Profile`] once; of the
    /// next ten, the common ones come again. Sizes, levels, phases and times follow from the seed, and so do the guests' UUIDs.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, vms_per_host: usize) -> Self {
        let host = |index: usize| {
            let guests: Vec<Guest> = (0..vms_per_host).map(|nth| Guest::new(seed, index, nth)).collect();
            let maximum = guests.iter().map(Guest::maximum_bytes).sum();
            Host { id: format!("sim-{}", index + 1).into(), total_bytes: host_total_bytes(maximum), guests }
        };
        Self { hosts: (0..hosts).map(host).collect() }
    }

    /// All hosts at `elapsed` since the origin. Takes no history into account and leaves none.
    #[must_use]
    pub fn at(&self, elapsed: Duration) -> Vec<HostSample> {
        self.hosts.iter().map(|host| host.at(elapsed)).collect()
    }

    /// One host, by its index, at `elapsed` since the origin; `None` where there are fewer.
    #[must_use]
    pub fn host_at(&self, index: usize, elapsed: Duration) -> Option<HostSample> {
        Some(self.hosts.get(index)?.at(elapsed))
    }
}

impl Host {
    fn at(&self, elapsed: Duration) -> HostSample {
        // The host itself needs a fiftieth.
        let own = self.total_bytes / 50;
        let guests: Vec<_> = self.guests.iter().map(|guest| guest.at(elapsed)).collect();
        let occupied: u64 = guests.iter().filter_map(|guest| guest.rss_bytes).sum();
        HostSample {
            id: Arc::clone(&self.id),
            name: Arc::clone(&self.id),
            total_bytes: self.total_bytes,
            available_bytes: self.total_bytes.saturating_sub(own + occupied),
            guests,
        }
    }
}
