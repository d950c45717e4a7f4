//! Whatever a collector sends: no panic, and every harvest is explained to the byte.
//!
//! Run by `make fuzz`.

#![no_main]

use std::sync::Mutex;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use memharvest_predictor::boundary_set::BoundarySet;
use memharvest_predictor::domain::Signal;
use memharvest_predictor::host::{Context, HostState};
use memharvest_predictor::lease_set::LeaseSet;
use memharvest_predictor::model::Prices;
use memharvest_proto::collector::v1::{GuestMemory, HostMemory, HostReading, VmReading};
use prost_types::{Duration, Timestamp};
use uuid::Uuid;

#[derive(Arbitrary, Debug)]
struct Step {
    seconds: u16,
    at: Option<(i64, i32)>,
    interval: Option<(i64, i32)>,
    available: Option<u64>,
    pressure: Option<f64>,
    vms: Vec<Machine>,
}

#[derive(Arbitrary, Debug)]
struct Machine {
    id: u8,
    quality: i32,
    allocated: Option<u64>,
    rss: Option<u64>,
    swap: Option<u64>,
    guest: [Option<u64>; 3],
    last_update: Option<(i64, i32)>,
    period: Option<(i64, i32)>,
    generation: u8,
    pinned: bool,
}

fn timestamp((seconds, nanos): (i64, i32)) -> Timestamp {
    Timestamp { seconds, nanos }
}

fn duration((seconds, nanos): (i64, i32)) -> Duration {
    Duration { seconds, nanos }
}

fn vm(machine: &Machine) -> VmReading {
    let [total_bytes, available_bytes, minor_faults] = machine.guest;
    VmReading {
        vm_id: Uuid::from_u128(u128::from(machine.id % 8)).to_string(),
        quality: machine.quality,
        allocated_bytes: machine.allocated,
        rss_bytes: machine.rss,
        swap_bytes: machine.swap,
        guest: Some(GuestMemory {
            total_bytes,
            available_bytes,
            minor_faults,
            last_update: machine.last_update.map(timestamp),
            ..GuestMemory::default()
        }),
        stats_period: machine.period.map(duration),
        generation: u64::from(machine.generation % 4),
        pinned: machine.pinned,
        ..VmReading::default()
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let (boundaries, leases, budgets) = (BoundarySet::new(1, Vec::new()), LeaseSet::default(), Mutex::default());
    let (mut host, mut prices) = (HostState::default(), Prices::default());
    let mut now = 1_700_000_000_i64;
    for step in steps {
        now += i64::from(step.seconds);
        let context = Context {
            predictor_id: "fuzz",
            boundaries: &boundaries,
            leases: &leases,
            cold_start: 10.0,
            now: now as f64,
            tolerance: 5.0,
            traceparent: "",
            budgets: &budgets,
        };
        let reading = HostReading {
            host_id: "h".into(),
            read_at: Some(step.at.map_or(Timestamp { seconds: now, nanos: 0 }, timestamp)),
            interval: Some(step.interval.map_or(Duration { seconds: 5, nanos: 0 }, duration)),
            memory: Some(HostMemory {
                total_bytes: Some(1 << 40),
                available_bytes: step.available,
                pressure_some_ratio: step.pressure,
                ..HostMemory::default()
            }),
            vms: step.vms.iter().map(vm).collect(),
            ..HostReading::default()
        };
        let Ok(outgoing) = host.observe(reading, &context, &mut prices) else { continue };
        for vm in &outgoing.update.vms {
            for signal in Signal::ALL {
                if let Some(waterfall) = host.explain(&vm.vm_id, signal) {
                    let taken: u128 = waterfall.terms.iter().map(|term| u128::from(term.bytes)).sum();
                    assert_eq!(u128::from(waterfall.start_bytes), taken + u128::from(waterfall.result_bytes));
                }
            }
        }
    }
});
