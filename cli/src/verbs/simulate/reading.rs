//! An invented host as the message that a collector would send.

use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::collector::v1::{GuestMemory, HostMemory, HostReading, Quality, VmReading, VmState};
use memharvest_services::proto_time::{duration_to_proto, to_proto};
use memharvest_trace::{GuestSample, HostSample};

/// What a collector of `id` would read at `at`, of a world that began at `begins`.
pub(super) fn reading(
    id: &str,
    sample: &HostSample,
    begins: Timestamp,
    at: Timestamp,
    interval: Duration,
) -> HostReading {
    HostReading {
        host_id: id.to_owned(),
        host_name: id.to_owned(),
        read_at: Some(to_proto(at)),
        interval: Some(duration_to_proto(interval)),
        // Nothing swaps in that world, which is known, and no kernel keeps pressure, which is not.
        memory: Some(HostMemory {
            total_bytes: Some(sample.total_bytes),
            available_bytes: Some(sample.available_bytes),
            swap_total_bytes: Some(0),
            swap_free_bytes: Some(0),
            swap_in_bytes: Some(0),
            ..HostMemory::default()
        }),
        vms: sample.guests.iter().map(|guest| vm_reading(guest, begins, at)).collect(),
        ..HostReading::default()
    }
}

fn vm_reading(sample: &GuestSample, begins: Timestamp, at: Timestamp) -> VmReading {
    let updated = sample.guest.and_then(|stats| begins.checked_add(stats.last_update).ok());
    let quality = match (sample.has_balloon, sample.stats_period_seconds, sample.guest) {
        (true, Some(_), Some(_)) => Quality::Live,
        (true, None, _) => Quality::NoPeriod,
        _ => Quality::NoBalloon,
    };
    VmReading {
        vm_id: sample.vm.to_string(),
        name: sample.name.to_string(),
        state: VmState::Running.into(),
        quality: quality.into(),
        allocated_bytes: Some(sample.allocated_bytes),
        maximum_bytes: Some(sample.maximum_bytes),
        rss_bytes: sample.rss_bytes,
        swap_bytes: Some(0),
        guest: sample.guest.map(|stats| GuestMemory {
            total_bytes: Some(stats.total_bytes),
            free_bytes: stats.free_bytes,
            available_bytes: stats.available_bytes,
            disk_cache_bytes: stats.disk_cache_bytes,
            last_update: updated.map(to_proto),
            ..GuestMemory::default()
        }),
        stats_age: updated
            .and_then(|updated| Duration::try_from(at.duration_since(updated)).ok())
            .map(duration_to_proto),
        stats_period: sample
            .stats_period_seconds
            .map(|seconds| duration_to_proto(Duration::from_secs(seconds.into()))),
        generation: u64::from(sample.boots) + 1,
        ..VmReading::default()
    }
}

#[cfg(test)]
mod tests {
    use memharvest_trace::Simulation;

    use super::*;

    #[test]
    fn machines_of_every_kind_are_sent_and_what_is_not_known_stays_absent() {
        let (begins, elapsed) = (Timestamp::UNIX_EPOCH, Duration::from_hours(1));
        let sample = Simulation::new(1, 1, 10).host_at(0, elapsed).unwrap();
        let sent = reading("load-1", &sample, begins, begins + elapsed, Duration::from_secs(5));
        assert_eq!((sent.host_id.as_str(), sent.vms.len()), ("load-1", 10));
        for quality in [Quality::Live, Quality::NoPeriod, Quality::NoBalloon] {
            let of_kind: Vec<_> = sent.vms.iter().filter(|vm| vm.quality() == quality).collect();
            assert!(!of_kind.is_empty(), "{quality:?}");
            assert!(
                of_kind.iter().all(|vm| vm.stats_period.is_some() == (quality == Quality::Live)
                    || quality == Quality::NoBalloon)
            );
        }
        assert!(sent.memory.is_some_and(|memory| memory.pressure_some_ratio.is_none()));
    }
}
