//! Readings as the messages carry them.

use memharvest_proto::collector::v1 as proto;
use memharvest_services::proto_time::{duration_to_proto, to_proto};

use crate::reading::{GuestMemory, HostMemory, HostReading, Quality, VmReading, VmState};

impl From<&HostReading> for proto::HostReading {
    fn from(reading: &HostReading) -> Self {
        Self {
            host_id: reading.host.id.clone(),
            host_name: reading.host.name.clone(),
            labels: reading.host.labels.clone(),
            read_at: Some(to_proto(reading.read_at)),
            interval: Some(duration_to_proto(reading.interval)),
            memory: Some((&reading.memory).into()),
            vms: reading.vms.iter().map(|vm| vm_reading(vm, reading)).collect(),
            traceparent: reading.traceparent.clone(),
        }
    }
}

impl From<&HostMemory> for proto::HostMemory {
    fn from(memory: &HostMemory) -> Self {
        Self {
            total_bytes: memory.total,
            available_bytes: memory.available,
            swap_total_bytes: memory.swap_total,
            swap_free_bytes: memory.swap_free,
            swap_in_bytes: memory.swapped_in,
            pressure_some_ratio: memory.pressure.map(|pressure| pressure.some.avg10),
            pressure_full_ratio: memory.pressure.map(|pressure| pressure.full.avg10),
            pressure_some_seconds: memory.pressure.map(|pressure| pressure.some.total_seconds),
            pressure_full_seconds: memory.pressure.map(|pressure| pressure.full.total_seconds),
        }
    }
}

impl From<VmState> for proto::VmState {
    fn from(state: VmState) -> Self {
        match state {
            VmState::Unknown => Self::Unspecified,
            VmState::Running => Self::Running,
            VmState::Paused => Self::Paused,
            VmState::Shutdown => Self::Shutdown,
            VmState::Crashed => Self::Crashed,
            VmState::Suspended => Self::Suspended,
            VmState::Migrating => Self::Migrating,
        }
    }
}

impl From<Quality> for proto::Quality {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::Stuck => Self::Stuck,
            Quality::Unknown => Self::Unknown,
            Quality::Paused => Self::Paused,
            Quality::Migrating => Self::Migrating,
            Quality::Stale => Self::Stale,
            Quality::Hugepages => Self::Hugepages,
            Quality::PrivateMemory => Self::PrivateMemory,
            Quality::NoBalloon => Self::NoBalloon,
            Quality::NoPeriod => Self::NoPeriod,
            Quality::Live => Self::Live,
        }
    }
}

fn vm_reading(vm: &VmReading, reading: &HostReading) -> proto::VmReading {
    proto::VmReading {
        vm_id: vm.id.to_string(),
        name: vm.name.clone(),
        state: proto::VmState::from(vm.state).into(),
        quality: proto::Quality::from(vm.quality).into(),
        allocated_bytes: vm.allocated,
        maximum_bytes: vm.maximum,
        rss_bytes: vm.rss,
        swap_bytes: vm.swap,
        guest: (vm.guest != GuestMemory::default()).then(|| guest_memory(&vm.guest)),
        stats_age: vm.stats_age(reading.read_at).map(duration_to_proto),
        stats_period: vm.stats_period().map(duration_to_proto),
        generation: vm.generation,
        pinned: vm.definition.is_some_and(|definition| definition.pinned()),
    }
}

fn guest_memory(guest: &GuestMemory) -> proto::GuestMemory {
    proto::GuestMemory {
        total_bytes: guest.total,
        free_bytes: guest.free,
        available_bytes: guest.available,
        disk_cache_bytes: guest.disk_cache,
        swap_in_bytes: guest.swap_in,
        swap_out_bytes: guest.swap_out,
        major_faults: guest.major_faults,
        minor_faults: guest.minor_faults,
        last_update: guest.last_update.map(to_proto),
    }
}
