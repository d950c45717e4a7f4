//! How far the figures of a machine can be trusted. Pure.
//!
//! The class gates the resident set. Old guest statistics alone do not change it: the reading carries their age
//! and period, and whoever uses `demand` judges it by [`demand_is_fresh`].

use std::time::Duration;

use jiff::Timestamp;

use crate::reading::{Monitor, Quality, VmReading, VmState};

/// Intervals without a figure after which it is stale.
const STALE_AFTER: u32 = 3;

/// The worst class that holds for `vm` at `now`.
///
/// `rss_read_at` is when its resident set was last read; `interval` is how often it should be.
#[must_use]
pub fn classify(
    vm: &VmReading,
    rss_read_at: Option<Timestamp>,
    interval: Duration,
    now: Timestamp,
) -> Quality {
    let fresh = rss_read_at.map(|at| age(now, at) <= interval * STALE_AFTER);
    let Some(definition) = vm.definition.filter(|_| vm.allocated.is_some() && vm.state != VmState::Unknown)
    else {
        return if vm.monitor == Monitor::Silent { Quality::Stuck } else { Quality::Unknown };
    };
    match vm.state {
        _ if vm.monitor == Monitor::Silent => Quality::Stuck,
        _ if fresh.is_none() => Quality::Unknown,
        VmState::Paused | VmState::Suspended | VmState::Crashed | VmState::Shutdown => Quality::Paused,
        VmState::Migrating => Quality::Migrating,
        _ if fresh == Some(false) => Quality::Stale,
        _ if definition.hugepages => Quality::Hugepages,
        _ if definition.private_memory => Quality::PrivateMemory,
        _ if !definition.balloon => Quality::NoBalloon,
        _ if definition.stats_period.is_none() => Quality::NoPeriod,
        // Asked for statistics, and never an answer: nothing in the guest drives the device.
        _ if vm.guest.last_update.is_none() => Quality::NoBalloon,
        _ => Quality::Live,
    }
}

/// Whether the guest's figures are young enough to be used: at most three of its periods, where a sample that is
/// taken less often than the guest reports cannot see more.
#[must_use]
pub fn demand_is_fresh(vm: &VmReading, interval: Duration, now: Timestamp) -> bool {
    match (vm.stats_age(now), vm.stats_period()) {
        (Some(age), Some(period)) => age <= period.max(interval) * STALE_AFTER,
        _ => false,
    }
}

/// The class of a reading that was made earlier: what was fresh then may be stale at `now`.
#[must_use]
pub fn aged(quality: Quality, read_at: Timestamp, interval: Duration, now: Timestamp) -> Quality {
    if age(now, read_at) > interval * STALE_AFTER { quality.min(Quality::Stale) } else { quality }
}

fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Definition, GuestMemory};
    use uuid::Uuid;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn live() -> VmReading {
        VmReading {
            id: Uuid::nil(),
            name: "web".into(),
            state: VmState::Running,
            quality: Quality::Unknown,
            allocated: Some(1 << 30),
            maximum: Some(1 << 30),
            rss: Some(1 << 29),
            swap: Some(0),
            guest: GuestMemory { last_update: Some(at(0)), ..GuestMemory::default() },
            definition: Some(Definition {
                balloon: true,
                stats_period: Some(Duration::from_secs(2)),
                ..Definition::default()
            }),
            generation: 1,
            monitor: Monitor::Answered,
        }
    }

    fn class(change: impl FnOnce(&mut VmReading)) -> Quality {
        let mut vm = live();
        change(&mut vm);
        classify(&vm, Some(at(0)), INTERVAL, at(1))
    }

    fn define(change: impl FnOnce(&mut Definition)) -> Quality {
        class(|vm| change(vm.definition.as_mut().unwrap()))
    }

    #[test]
    fn each_cause_has_its_class() {
        assert_eq!(class(|_| ()), Quality::Live);
        assert_eq!(class(|vm| vm.monitor = Monitor::Silent), Quality::Stuck);
        assert_eq!(class(|vm| vm.definition = None), Quality::Unknown);
        assert_eq!(class(|vm| vm.allocated = None), Quality::Unknown);
        assert_eq!(class(|vm| vm.state = VmState::Unknown), Quality::Unknown);
        assert_eq!(class(|vm| vm.state = VmState::Paused), Quality::Paused);
        assert_eq!(class(|vm| vm.state = VmState::Suspended), Quality::Paused);
        assert_eq!(class(|vm| vm.state = VmState::Crashed), Quality::Paused);
        assert_eq!(class(|vm| vm.state = VmState::Migrating), Quality::Migrating);
        assert_eq!(define(|d| d.hugepages = true), Quality::Hugepages);
        assert_eq!(define(|d| d.private_memory = true), Quality::PrivateMemory);
        assert_eq!(define(|d| d.balloon = false), Quality::NoBalloon);
        assert_eq!(define(|d| d.stats_period = None), Quality::NoPeriod);
        assert_eq!(class(|vm| vm.guest.last_update = None), Quality::NoBalloon);
        assert_eq!(define(|d| d.locked = true), Quality::Live);
    }

    #[test]
    fn the_worst_cause_wins() {
        let worst = class(|vm| {
            vm.monitor = Monitor::Silent;
            vm.state = VmState::Paused;
            vm.definition = None;
        });
        assert_eq!(worst, Quality::Stuck);
        let paused = class(|vm| {
            vm.state = VmState::Paused;
            vm.definition.as_mut().unwrap().hugepages = true;
        });
        assert_eq!(paused, Quality::Paused);
        assert!(Quality::ALL.is_sorted());
    }

    #[test]
    fn one_busy_moment_costs_nothing() {
        let busy = class(|vm| {
            vm.monitor = Monitor::Busy;
            vm.rss = None;
        });
        assert_eq!(busy, Quality::Live);
    }

    #[test]
    fn a_resident_set_is_stale_after_three_intervals() {
        let vm = live();
        assert_eq!(classify(&vm, Some(at(0)), INTERVAL, at(15)), Quality::Live);
        assert_eq!(classify(&vm, Some(at(0)), INTERVAL, at(16)), Quality::Stale);
        assert_eq!(classify(&vm, None, INTERVAL, at(1)), Quality::Unknown);
        assert_eq!(aged(Quality::Live, at(0), INTERVAL, at(16)), Quality::Stale);
        assert_eq!(aged(Quality::Stuck, at(0), INTERVAL, at(16)), Quality::Stuck);
        assert_eq!(aged(Quality::Live, at(0), INTERVAL, at(15)), Quality::Live);
    }

    #[test]
    fn old_guest_figures_spoil_demand_alone() {
        let mut vm = live();
        assert!(demand_is_fresh(&vm, INTERVAL, at(15)));
        assert!(!demand_is_fresh(&vm, INTERVAL, at(16)));
        assert_eq!(classify(&vm, Some(at(60)), INTERVAL, at(60)), Quality::Live);
        vm.definition.as_mut().unwrap().stats_period = Some(Duration::from_secs(10));
        assert!(demand_is_fresh(&vm, INTERVAL, at(30)));
        vm.definition.as_mut().unwrap().stats_period = None;
        assert!(!demand_is_fresh(&vm, INTERVAL, at(0)));
    }
}
