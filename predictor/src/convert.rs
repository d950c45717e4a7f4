//! Between the messages of the mesh and the words of the pure core.

use memharvest_proto::collector::v1 as collector;
use memharvest_proto::predictor::v1 as predictor;
use prost_types::Timestamp;

use crate::domain::{Quality, Reading, Seconds, Signal, demand};

/// A time as a message carries it.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "whole seconds fit, the rest is below one second")]
pub fn timestamp(at: Seconds) -> Timestamp {
    let whole = at.floor();
    let nanos = ((at - whole) * 1e9).round().min(999_999_999.0);
    Timestamp { seconds: whole as i64, nanos: nanos as i32 }
}

/// A span as a message carries it.
#[must_use]
pub fn duration(span: Seconds) -> prost_types::Duration {
    let Timestamp { seconds, nanos } = timestamp(span);
    prost_types::Duration { seconds, nanos }
}

/// A message's time in seconds since the epoch.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for thousands of years")]
pub fn seconds(at: &Timestamp) -> Seconds {
    at.seconds as f64 + f64::from(at.nanos) * 1e-9
}

/// A message's span in seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for thousands of years")]
pub fn span(span: &prost_types::Duration) -> Seconds {
    span.seconds as f64 + f64::from(span.nanos) * 1e-9
}

/// The core's word for a signal; `None` where none was said.
#[must_use]
pub const fn signal(signal: collector::Signal) -> Option<Signal> {
    match signal {
        collector::Signal::Unspecified => None,
        collector::Signal::Rss => Some(Signal::Rss),
        collector::Signal::Demand => Some(Signal::Demand),
    }
}

/// The mesh's word for a signal.
#[must_use]
pub const fn signal_to_proto(signal: Signal) -> collector::Signal {
    match signal {
        Signal::Rss => collector::Signal::Rss,
        Signal::Demand => collector::Signal::Demand,
    }
}

/// The core's word for a quality; what was not said is not known.
#[must_use]
pub const fn quality(quality: collector::Quality) -> Quality {
    match quality {
        collector::Quality::Stuck => Quality::Stuck,
        collector::Quality::Unspecified | collector::Quality::Unknown => Quality::Unknown,
        collector::Quality::Paused => Quality::Paused,
        collector::Quality::Migrating => Quality::Migrating,
        collector::Quality::Stale => Quality::Stale,
        collector::Quality::Hugepages => Quality::Hugepages,
        collector::Quality::PrivateMemory => Quality::PrivateMemory,
        collector::Quality::NoBalloon => Quality::NoBalloon,
        collector::Quality::NoPeriod => Quality::NoPeriod,
        collector::Quality::Live => Quality::Live,
    }
}

/// One machine of a host's reading, for the core.
#[must_use]
pub fn reading(vm: &collector::VmReading, at: Seconds, interval: Seconds) -> Reading {
    let guest = vm.guest.as_ref();
    Reading {
        at,
        interval,
        allocated: vm.allocated_bytes,
        rss: vm.rss_bytes,
        swap: vm.swap_bytes,
        demand: guest.and_then(|guest| demand(guest.total_bytes, guest.available_bytes)),
        stats_updated_at: guest.and_then(|guest| guest.last_update.as_ref()).map(seconds),
        stats_period: vm.stats_period.as_ref().map(span),
        quality: quality(vm.quality()),
        pinned: vm.pinned,
        generation: Some(vm.generation),
        uptime: None,
        guest_counter: guest.and_then(|guest| guest.minor_faults),
    }
}

/// The machine's figures of now, before anything is forecast.
#[must_use]
pub fn vm(reading: collector::VmReading, host_id: &str, read_at: Timestamp) -> predictor::Vm {
    let guest = reading.guest.as_ref();
    predictor::Vm {
        vm_id: reading.vm_id,
        name: reading.name,
        host_id: host_id.to_owned(),
        state: reading.state,
        quality: reading.quality,
        allocated_bytes: reading.allocated_bytes,
        maximum_bytes: reading.maximum_bytes,
        rss_bytes: reading.rss_bytes,
        demand_bytes: guest.and_then(|guest| demand(guest.total_bytes, guest.available_bytes)),
        read_at: Some(read_at),
        stats_age_seconds: reading.stats_age.as_ref().map(span),
        guest: reading.guest,
        ..predictor::Vm::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_there_and_back() {
        for at in [0.0, 1.5, 1_795_000_000.25, 12.999_999_999_9] {
            assert!((seconds(&timestamp(at)) - at).abs() < 1e-6, "{at}");
        }
        assert!((span(&duration(900.0)) - 900.0).abs() < 1e-9);
    }

    #[test]
    fn what_a_reading_does_not_say_stays_absent() {
        let silent = collector::VmReading::default();
        let reading = reading(&silent, 1.0, 5.0);
        assert_eq!((reading.rss, reading.demand, reading.allocated), (None, None, None));
        assert_eq!(reading.quality, Quality::Unknown);
        assert_eq!(vm(silent, "h", Timestamp::default()).rss_bytes, None);
    }
}
