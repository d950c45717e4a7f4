//! Readings as no collector should send them.

use std::collections::BTreeSet;

use memharvest_proto::collector::v1::{GuestMemory, HostMemory};
use proptest::prelude::*;
use prost_types::{Duration, Timestamp};

use super::*;

const GIB: u64 = 1 << 30;
const START: i64 = 1_700_000_000;
const NOW: f64 = 1_700_000_000.0;

#[derive(Clone, Debug)]
struct Step {
    time: Time,
    interval: Option<Duration>,
    vms: Vec<VmReading>,
}

/// When a reading says that it was taken.
#[derive(Clone, Debug)]
enum Time {
    /// This long after the one before that was taken in.
    After(i64),
    /// Whatever.
    At(Option<Timestamp>),
}

fn any_size() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.9, prop_oneof![8 => 0..10 * GIB, 1 => Just(0), 1 => any::<u64>()])
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (START - 100..START + 5000).prop_map(|seconds| Timestamp { seconds, nanos: 0 }),
        1 => (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
    ]
}

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        9 => Just(Duration { seconds: 5, nanos: 0 }),
        1 => (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Duration { seconds, nanos }),
    ]
}

prop_compose! {
    fn any_vm()(
        machine in prop_oneof![20 => 0u128..3, 1 => Just(u128::MAX)],
        allocated_bytes in prop_oneof![8 => Just(Some(8 * GIB)), 1 => any_size()],
        sizes in prop::array::uniform4(any_size()),
        quality in prop_oneof![9 => Just(10), 1 => -1..20i32],
        generation in prop_oneof![20 => Just(1u64), 1 => any::<u64>()],
        last_update in prop::option::of(any_time()),
        stats_period in prop::option::of(any_span()),
        minor_faults in prop::option::weighted(0.1, any::<u64>()),
        pinned in prop::bool::weighted(0.1),
    ) -> VmReading {
        let [rss_bytes, swap_bytes, total_bytes, available_bytes] = sizes;
        let vm_id = if machine == u128::MAX { "nobody".into() } else { uuid::Uuid::from_u128(machine).to_string() };
        let guest = GuestMemory { total_bytes, available_bytes, last_update, minor_faults, ..GuestMemory::default() };
        VmReading {
            vm_id,
            quality,
            allocated_bytes,
            rss_bytes,
            swap_bytes,
            guest: Some(guest),
            stats_period,
            generation,
            pinned,
            ..VmReading::default()
        }
    }
}

prop_compose! {
    fn any_step()(
        time in prop_oneof![
            9 => (1..20i64).prop_map(Time::After),
            1 => (-1000..100_000i64).prop_map(Time::After),
            1 => prop::option::of(any_time()).prop_map(Time::At),
        ],
        interval in prop::option::weighted(0.97, any_span()),
        vms in prop::collection::vec(any_vm(), 0..4),
    ) -> Step {
        Step { time, interval, vms }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_reading_breaks_anything_and_nothing_rests_on_a_bad_one(steps in prop::collection::vec(any_step(), 1..120)) {
        let (boundaries, leases, budgets) =
            (BoundarySet::new(1, Vec::new()), LeaseSet::default(), Mutex::default());
        let (mut host, mut prices, mut at) = (HostState::default(), Prices::default(), START);
        for step in steps {
            let read_at = match step.time {
                Time::After(seconds) => Some(Timestamp { seconds: at + seconds, nanos: 0 }),
                Time::At(time) => time,
            };
            // The mesh's clock stands a day ahead of the start, and a host's may be ahead of it by five seconds.
            let context = Context {
                predictor_id: "p",
                boundaries: &boundaries,
                leases: &leases,
                cold_start: 30.0,
                now: NOW + 86_400.0,
                tolerance: 5.0,
                traceparent: "",
                budgets: &budgets,
            };
            let reading = HostReading {
                host_id: "h".into(),
                read_at,
                interval: step.interval,
                memory: Some(HostMemory { total_bytes: Some(64 * GIB), ..HostMemory::default() }),
                vms: step.vms.clone(),
                ..HostReading::default()
            };
            let before = format!("{host:?}");
            let Ok(outgoing) = host.observe(reading, &context, &mut prices) else {
                prop_assert_eq!(format!("{host:?}"), before, "a refused reading changes nothing");
                continue;
            };
            at = read_at.unwrap().seconds;
            prop_assert!(at <= START + 86_405);
            let shown = outgoing.update.host.as_ref().unwrap();
            let vms = &outgoing.update.vms;
            let named: BTreeSet<_> = step.vms.iter().map(|vm| &vm.vm_id).collect();
            prop_assert_eq!(named.len(), vms.len(), "each machine is shown once");
            let sum = vms.iter().map(|vm| vm.harvestable_bytes.unwrap()).fold(0, u64::saturating_add);
            prop_assert_eq!(shown.harvestable_bytes, Some(sum));
            for vm in vms {
                let said = step.vms.iter().find(|said| said.vm_id == vm.vm_id).unwrap();
                let harvest = vm.harvestable_bytes.unwrap();
                let live = said.quality() > collector::Quality::PrivateMemory;
                prop_assert!(harvest == 0 || (live && said.rss_bytes.is_some()), "{vm:?}");
                if let (Some(allocated @ 1..), Some(rss)) = (said.allocated_bytes, said.rss_bytes) {
                    prop_assert!(harvest <= allocated.saturating_sub(rss), "{vm:?}");
                }
                for signal in Signal::ALL {
                    let Some(waterfall) = host.explain(&vm.vm_id, signal) else {
                        prop_assert_eq!((vm.harvestable_bytes, vm.reclaimable_bytes), (Some(0), Some(0)));
                        continue;
                    };
                    let taken: u128 = waterfall.terms.iter().map(|term| u128::from(term.bytes)).sum();
                    prop_assert_eq!(u128::from(waterfall.start_bytes), taken + u128::from(waterfall.result_bytes));
                    for term in &waterfall.terms {
                        let said = (term.limited_by() != pb::LimitedBy::Unspecified, !term.detail.is_empty());
                        prop_assert_eq!(said, (term.bytes > 0, term.bytes > 0), "{:?}", term);
                    }
                    let shown = if signal == Signal::Rss { vm.harvestable_bytes } else { vm.reclaimable_bytes };
                    prop_assert_eq!(shown, Some(waterfall.result_bytes));
                }
            }
        }
        // Whatever was read can be kept and comes back.
        if host.read_at().is_some() {
            let sealed: Vec<_> = host.snapshots().into_iter().map(crate::snapshot::seal).collect();
            let restored = HostState::restore("h", &sealed, Choice::default(), NOW + 86_400.0);
            let fresh = NOW + 86_400.0 - host.read_at().unwrap() <= FORGOTTEN_AFTER;
            prop_assert!(!fresh || restored.refused.iter().all(|(vm_id, _)| !vm_id.is_empty()), "{:?}", restored.refused);
        }
    }
}
