//! Hosts whose machines wander.

use memharvest_predictor::convert;
use memharvest_proto::collector::v1::{GuestMemory, HostMemory, HostReading, Quality, VmReading, VmState};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const GIB: u64 = 1 << 30;
pub(crate) const INTERVAL: f64 = 5.0;

/// A host and its newest reading.
pub(crate) struct Host {
    reading: HostReading,
    at: f64,
    chance: StdRng,
}

impl Host {
    pub(crate) fn new(number: u64, machines: u64, at: f64) -> Self {
        let vm = |machine: u64| VmReading {
            vm_id: uuid::Uuid::from_u64_pair(number, machine).to_string(),
            name: format!("machine-{number}-{machine}"),
            state: VmState::Running.into(),
            quality: Quality::Live.into(),
            allocated_bytes: Some(8 * GIB),
            maximum_bytes: Some(8 * GIB),
            rss_bytes: Some(GIB + machine % 4 * GIB),
            swap_bytes: Some(0),
            guest: Some(GuestMemory { total_bytes: Some(8 * GIB), ..GuestMemory::default() }),
            stats_period: Some(convert::duration(INTERVAL)),
            generation: 1,
            ..VmReading::default()
        };
        let reading = HostReading {
            host_id: format!("host-{number}"),
            host_name: format!("host-{number}"),
            interval: Some(convert::duration(INTERVAL)),
            memory: Some(HostMemory {
                total_bytes: Some(16 * GIB * machines),
                available_bytes: Some(8 * GIB * machines),
                ..HostMemory::default()
            }),
            vms: (0..machines).map(vm).collect(),
            ..HostReading::default()
        };
        Self { reading, at, chance: StdRng::seed_from_u64(number) }
    }

    /// What is read an interval later.
    pub(crate) fn next(&mut self) -> HostReading {
        self.at += INTERVAL;
        let at = convert::timestamp(self.at);
        self.reading.read_at = Some(at);
        for vm in &mut self.reading.vms {
            let rss = vm.rss_bytes.unwrap_or(GIB);
            let grown = if self.chance.random_ratio(1, 200) { rss + (1 << 24) } else { rss };
            vm.rss_bytes = Some(grown.min(6 * GIB));
            if let Some(guest) = &mut vm.guest {
                guest.available_bytes = Some(8 * GIB - rss / 2 - self.chance.random_range(0..GIB / 8));
                guest.last_update = Some(at);
            }
        }
        self.reading.clone()
    }
}
