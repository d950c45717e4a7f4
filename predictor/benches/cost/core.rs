//! Whole readings of hosts through the core, on one thread: both signals, both guards, judges and roll-ups. No network, no file.

use memharvest_predictor::boundary_set::BoundarySet;
use memharvest_predictor::host::{Context, HostState};
use memharvest_predictor::lease_set::LeaseSet;
use memharvest_predictor::model::Prices;

use crate::hosts::{Host, INTERVAL};
use crate::now;
use crate::page::{Bound, Page};
use crate::spent::{Each, Spent, real};

const MACHINES: u64 = 100;
/// Machines in one process: the last is what one predictor has to hold.
const FLEETS: [u64; 3] = [3_000, 30_000, 300_000];
/// Readings of each machine that are counted, after as many that are not.
const ROUNDS: u64 = 4;

pub(crate) fn tell(page: &mut Page) {
    page.section(
        "A reading of a machine through the core, both signals, by how many machines one process holds",
    );
    let mut first = None;
    for machines in FLEETS {
        let (each, bytes) = fleet(machines / MACHINES);
        page.figure(&format!("{machines} machines"), each.nanoseconds, "ns", Bound::None);
        page.figure(
            &format!("{machines} machines: memory of a machine, all in"),
            bytes,
            "bytes",
            Bound::None,
        );
        let alone = *first.get_or_insert(each.nanoseconds);
        if machines == FLEETS[FLEETS.len() - 1] {
            page.figure(
                "300000 machines ÷ 3000: cost of a reading",
                each.nanoseconds / alone,
                "",
                Bound::AtMost(1.5),
            );
        }
    }
}

/// What a reading of a machine costs with so many hosts, and what a machine takes of resident memory.
fn fleet(hosts: u64) -> (Each, f64) {
    let before = resident();
    let (boundaries, leases) = (BoundarySet::new(1, Vec::new()), LeaseSet::default());
    let (mut prices, budgets) = (Prices::default(), std::sync::Mutex::default());
    let started = now() - 72_000.0;
    let mut states: Vec<HostState> = (0..hosts).map(|_| HostState::default()).collect();
    let mut sources: Vec<Host> = (0..hosts).map(|number| Host::new(number, MACHINES, started)).collect();
    let readers = resident() - before;
    let mut took = Each { per_second: 0.0, nanoseconds: 0.0, allocations: 0.0 };
    for round in 0..2 * ROUNDS {
        for (state, source) in states.iter_mut().zip(&mut sources) {
            let reading = source.next();
            let context = Context {
                predictor_id: "bench",
                boundaries: &boundaries,
                leases: &leases,
                cold_start: 60.0,
                now: started + real(round + 1) * INTERVAL,
                tolerance: 5.0,
                traceparent: "",
                budgets: &budgets,
            };
            let spent = Spent::now();
            let outcome = state.observe(reading, &context, &mut prices);
            assert!(outcome.is_ok(), "a reading was refused");
            drop(outcome);
            if round >= ROUNDS {
                took.nanoseconds += spent.on(hosts * MACHINES * ROUNDS).nanoseconds;
            }
        }
    }
    (took, (resident() - before - readers) / real(hosts * MACHINES))
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * real(rustix::param::page_size() as u64)
}
