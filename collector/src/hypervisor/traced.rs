//! What replay and simulation have in common: samples of the `trace` crate as readings.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_trace::{GuestSample, HostSample};

use super::Tick;
use crate::quality;
use crate::reading::{
    Definition, GuestMemory, Host, HostMemory, HostReading, Monitor, Quality, VmReading, VmState,
};

/// How far `tick` is into a source that began at `begins`. A clock that runs behind its origin has not begun.
pub(super) fn position(begins: Timestamp, tick: Tick) -> Duration {
    Duration::try_from(tick.at.duration_since(begins)).unwrap_or_default()
}

/// A host as a reading. `labels` are those of the collector: all its hosts share them.
pub(super) fn reading(
    sample: &HostSample,
    labels: &BTreeMap<String, String>,
    begins: Timestamp,
    tick: Tick,
) -> HostReading {
    HostReading {
        host: Host { id: sample.id.to_string(), name: sample.name.to_string(), labels: labels.clone() },
        read_at: tick.at,
        interval: tick.interval,
        // Nothing swaps in these worlds, which is known, and no kernel keeps pressure, which is not.
        memory: HostMemory {
            total: Some(sample.total_bytes),
            available: Some(sample.available_bytes),
            swap_total: Some(0),
            swap_free: Some(0),
            swapped_in: Some(0),
            pressure: None,
        },
        vms: sample.guests.iter().map(|guest| vm_reading(guest, begins, tick)).collect(),
        traceparent: String::new(),
    }
}

fn vm_reading(sample: &GuestSample, begins: Timestamp, tick: Tick) -> VmReading {
    let guest = sample.guest.map_or_else(GuestMemory::default, |stats| GuestMemory {
        total: Some(stats.total_bytes),
        free: stats.free_bytes,
        available: stats.available_bytes,
        disk_cache: stats.disk_cache_bytes,
        last_update: begins.checked_add(stats.last_update).ok(),
        ..GuestMemory::default()
    });
    let mut vm = VmReading {
        id: sample.vm,
        name: sample.name.to_string(),
        state: VmState::Running,
        quality: Quality::Unknown,
        allocated: Some(sample.allocated_bytes),
        maximum: Some(sample.maximum_bytes),
        rss: sample.rss_bytes,
        swap: Some(0),
        guest,
        definition: Some(Definition {
            balloon: sample.has_balloon,
            stats_period: sample.stats_period_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            // Nobody can edit the definition of a machine in a trace: no finding.
            free_page_reporting: true,
            ..Definition::default()
        }),
        generation: u64::from(sample.boots) + 1,
        monitor: Monitor::Answered,
    };
    vm.quality = quality::classify(&vm, vm.rss.map(|_| tick.at), tick.interval, tick.at);
    vm
}
