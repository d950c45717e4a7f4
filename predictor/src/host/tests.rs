use memharvest_proto::collector::v1::{GuestMemory, HostMemory, Quality, VmState as RunState};
use memharvest_proto::registry::v1::{
    Boundary, BoundaryValues, Lease, LeaseState, ModelSnapshot, Violation, ViolationState,
};

use super::*;
use crate::snapshot;

const GIB: u64 = 1 << 30;
const A: &str = "0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e01";
const START: Seconds = 1_700_000_100.0;

fn vm(vm_id: &str, rss: u64, at: Seconds) -> VmReading {
    VmReading {
        vm_id: vm_id.into(),
        name: format!("name-{vm_id}"),
        state: RunState::Running.into(),
        quality: Quality::Live.into(),
        allocated_bytes: Some(8 * GIB),
        maximum_bytes: Some(8 * GIB),
        rss_bytes: Some(rss),
        guest: Some(GuestMemory {
            total_bytes: Some(8 * GIB),
            available_bytes: Some(6 * GIB),
            last_update: Some(timestamp(at)),
            ..GuestMemory::default()
        }),
        stats_period: Some(duration(5.0)),
        generation: 1,
        ..VmReading::default()
    }
}

fn reading(at: Seconds, vms: Vec<VmReading>) -> HostReading {
    HostReading {
        host_id: "h".into(),
        host_name: "host".into(),
        read_at: Some(timestamp(at)),
        interval: Some(duration(5.0)),
        memory: Some(HostMemory {
            total_bytes: Some(64 * GIB),
            available_bytes: Some(32 * GIB),
            ..HostMemory::default()
        }),
        vms,
        ..HostReading::default()
    }
}

struct Bench {
    host: HostState,
    boundaries: BoundarySet,
    leases: LeaseSet,
    budgets: Mutex<Budgets>,
    records: Vec<Pending>,
}

impl Bench {
    fn new() -> Self {
        Self {
            host: HostState::default(),
            boundaries: BoundarySet::new(1, vec![]),
            leases: LeaseSet::complete(),
            budgets: Mutex::default(),
            records: Vec::new(),
        }
    }

    fn context(&self, now: Seconds) -> Context<'_> {
        Context {
            predictor_id: "p",
            boundaries: &self.boundaries,
            leases: &self.leases,
            cold_start: 60.0,
            now,
            tolerance: 5.0,
            traceparent: "",
            budgets: &self.budgets,
        }
    }

    fn observe(&mut self, reading: HostReading, now: Seconds) -> Result<Outgoing, Refusal> {
        let mut host = std::mem::take(&mut self.host);
        let outgoing = host.observe(reading, &self.context(now), &mut Prices::default());
        self.host = host;
        outgoing
    }

    fn read(&mut self, at: Seconds, vms: Vec<VmReading>) -> Result<Arc<pb::HostUpdate>, Refusal> {
        let outgoing = self.observe(reading(at, vms), at)?;
        self.records.extend(outgoing.records);
        Ok(outgoing.update)
    }

    /// Reads every 5 s for `span`, with the resident set that `rss` gives.
    fn run(&mut self, from: Seconds, span: u32, rss: impl Fn(u32) -> u64) -> Arc<pb::HostUpdate> {
        let steps = (0..span).step_by(5);
        let updates = steps.map(|step| {
            let at = from + f64::from(step);
            self.read(at, vec![vm(A, rss(step), at)]).unwrap()
        });
        updates.last().unwrap()
    }

    fn violations(&self) -> Vec<Violation> {
        let requests = self.records.iter().filter_map(|record| match record {
            Pending::Violations(request) => Some(request.violations.clone()),
            Pending::Harvest(_) => None,
        });
        requests.flatten().collect()
    }
}

fn adds_up(waterfall: &pb::Waterfall) -> bool {
    let taken: u64 = waterfall.terms.iter().map(|term| term.bytes).sum();
    waterfall.start_bytes - taken == waterfall.result_bytes
}

#[test]
fn a_steady_machine_yields_what_its_waterfall_says() {
    let mut bench = Bench::new();
    let cold = bench.run(START, 30, |_| 2 * GIB);
    assert_eq!(cold.vms[0].harvestable_bytes, Some(0));
    assert!(cold.vms[0].warm_at.is_some(), "a cold machine says when it is warm");
    let warm = bench.run(START + 30.0, 1800, |_| 2 * GIB);
    let harvest = warm.vms[0].harvestable_bytes.unwrap();
    assert!((3 * GIB..6 * GIB).contains(&harvest), "{harvest}");
    assert_eq!(warm.host.as_ref().unwrap().harvestable_bytes, Some(harvest));
    for signal in Signal::ALL {
        let waterfall = bench.host.explain(A, signal).unwrap();
        assert!(adds_up(&waterfall), "{waterfall:?}");
        assert!(waterfall.terms.iter().all(|term| (term.bytes > 0) != term.detail.is_empty()));
    }
    assert_eq!(bench.host.explain(A, Signal::Rss).unwrap().result_bytes, harvest);
}

#[test]
fn a_broken_promise_is_recorded_from_opening_to_closing() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    assert!(bench.violations().is_empty());
    bench.run(START + 1800.0, 600, |_| 7 * GIB);
    let opened = bench.violations();
    assert!(opened.iter().all(|violation| violation.state() == ViolationState::Open));
    let kinds: std::collections::BTreeSet<_> = opened.iter().map(Violation::kind).collect();
    assert_eq!(kinds.len(), 2, "a forecast and a promise: {kinds:?}");
    assert!(opened.iter().all(|violation| violation.overshoot_bytes > GIB && !violation.series.is_empty()));
    bench.run(START + 2400.0, 1800, |_| 7 * GIB);
    let closed = bench.violations();
    for violation in &opened {
        let last = closed.iter().rfind(|found| found.violation_id == violation.violation_id).unwrap();
        assert_eq!((last.state(), last.close_reason.as_str()), (ViolationState::Closed, "clean"));
        assert!(last.revision > violation.revision);
    }
}

#[test]
fn a_machine_that_is_gone_closes_what_it_left_open_and_is_shown_no_more() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    bench.run(START + 1800.0, 30, |_| 7 * GIB);
    let update = bench.read(START + 1830.0, vec![]).unwrap();
    assert!(update.vms.is_empty());
    assert_eq!(update.host.as_ref().unwrap().harvestable_bytes, Some(0));
    assert!(bench.violations().iter().any(|violation| violation.close_reason == "vm_gone"));
    assert_eq!(bench.host.explain(A, Signal::Rss), None);
}

#[test]
fn unknown_boundaries_yield_nothing_and_say_so() {
    let mut bench = Bench::new();
    bench.boundaries = BoundarySet::default();
    let update = bench.run(START, 1800, |_| 2 * GIB);
    assert_eq!(update.vms[0].harvestable_bytes, Some(0));
    let waterfall = bench.host.explain(A, Signal::Rss).unwrap();
    let excluded = waterfall.terms.iter().find(|term| term.name() == pb::TermName::Excluded).unwrap();
    assert!(excluded.bytes > 0 && excluded.detail.contains("not known yet"), "{excluded:?}");
}

#[test]
fn a_machine_that_consumes_a_lease_is_not_harvested_again() {
    let mut bench = Bench::new();
    let before = bench.run(START, 1800, |_| 2 * GIB);
    assert!(before.vms[0].harvestable_bytes.unwrap() > GIB);
    assert_eq!(before.host.as_ref().unwrap().leased_bytes, Some(0));
    let mut lease = Lease {
        lease_id: "l".into(),
        host_id: before.host.as_ref().unwrap().host_id.clone(),
        consumer_vm_id: A.into(),
        bytes: 4 * GIB,
        ..Lease::default()
    };
    lease.set_state(LeaseState::Live);
    bench.leases.apply(&lease);
    let leased = bench.run(START + 1800.0, 10, |_| 2 * GIB);
    assert_eq!(leased.vms[0].harvestable_bytes, Some(0));
    assert_eq!(leased.host.as_ref().unwrap().leased_bytes, Some(4 * GIB));
    let waterfall = bench.host.explain(A, Signal::Rss).unwrap();
    let excluded = waterfall.terms.iter().find(|term| term.name() == pb::TermName::Excluded).unwrap();
    assert!(excluded.bytes > 0 && excluded.detail.contains("it consumes a lease"), "{excluded:?}");
    assert!(adds_up(&waterfall));
    lease.set_state(LeaseState::Released);
    bench.leases.apply(&lease);
    let after = bench.run(START + 1810.0, 900, |_| 2 * GIB);
    assert!(after.vms[0].harvestable_bytes.unwrap() > GIB);
}

#[test]
fn a_stuck_machine_yields_nothing_and_keeps_its_place() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    let at = START + 1800.0;
    let stuck = VmReading {
        quality: Quality::Stuck.into(),
        allocated_bytes: None,
        rss_bytes: None,
        guest: None,
        ..vm(A, 0, at)
    };
    let update = bench.read(at, vec![stuck]).unwrap();
    let shown = &update.vms[0];
    assert_eq!((shown.harvestable_bytes, shown.reclaimable_bytes), (Some(0), Some(0)));
    assert_eq!((shown.quality(), shown.allocated_bytes), (Quality::Stuck, None));
    let waterfall = bench.host.explain(A, Signal::Rss).unwrap();
    assert!(adds_up(&waterfall) && waterfall.result_bytes == 0);
    let healed = bench.run(at + 5.0, 900, |_| 2 * GIB);
    assert!(healed.vms[0].harvestable_bytes.unwrap() > GIB);
}

#[test]
fn silence_makes_a_host_stale_and_after_a_horizon_closes_what_was_open() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    bench.run(START + 1800.0, 30, |_| 7 * GIB);
    let mut absent = |after: Seconds| {
        let now = START + 1825.0 + after;
        let mut host = std::mem::take(&mut bench.host);
        let outgoing = host.absent(&bench.context(now));
        bench.host = host;
        outgoing
    };
    assert!(absent(14.0).is_none());
    let stale = absent(16.0).unwrap().update;
    assert_eq!(stale.host.as_ref().unwrap().state(), pb::HostState::Stale);
    assert_eq!(stale.vms[0].harvestable_bytes, Some(0));
    assert!(absent(20.0).is_none(), "told once");
    assert!(!absent(901.0).unwrap().records.is_empty());
    assert!(absent(902.0).is_none());
}

#[test]
fn readings_that_are_old_or_from_the_future_change_nothing() {
    let mut bench = Bench::new();
    bench.read(START, vec![vm(A, GIB, START)]).unwrap();
    assert_eq!(bench.read(START, vec![]).unwrap_err(), Refusal::NotNewer);
    let future = bench.observe(reading(START + 50.0, vec![]), START + 5.0).unwrap_err();
    assert_eq!(future.to_string(), "the reading lies 45 s in the future; check the clock of its host");
    let nameless = reading(START + 5.0, vec![vm("seven", GIB, START)]);
    let refused = bench.observe(nameless, START + 5.0).unwrap_err();
    assert_eq!(refused.to_string(), "vm_id `seven` of machine name-seven is no UUID");
    let timeless = HostReading { read_at: None, ..reading(START, vec![]) };
    assert_eq!(bench.observe(timeless, START + 5.0).unwrap_err(), Refusal::NoTime);
    assert!(bench.host.explain(A, Signal::Rss).is_some());
}

#[test]
fn a_uuid_in_capitals_is_the_same_machine() {
    let mut bench = Bench::new();
    let update = bench.read(START, vec![vm(&A.to_uppercase(), GIB, START)]).unwrap();
    assert_eq!(update.vms[0].vm_id, A);
}

#[test]
fn every_window_is_recorded_once_with_its_host_and_coverage() {
    let mut bench = Bench::new();
    bench.run(START, 3600, |_| 2 * GIB);
    let mut windows = Vec::new();
    let mut judged = 0;
    for record in &bench.records {
        let Pending::Harvest(request) = record else { continue };
        windows.extend(request.vms.iter().map(|window| window.window_start.unwrap().seconds));
        judged += request.coverage.iter().map(|window| window.judged).sum::<u64>();
    }
    let distinct: std::collections::BTreeSet<_> = windows.iter().collect();
    assert_eq!(windows.len(), distinct.len());
    assert!((11..=12).contains(&windows.len()), "{windows:?}");
    assert!(judged > 0);
    let last = bench.host.finish(&bench.context(START + 3600.0));
    assert!(
        matches!(&last[..], [Pending::Harvest(request)] if request.vms.len() == 1 && request.hosts.len() == 1)
    );
}

/// A resident set that climbs in stairs and jumps beyond every promise now and then.
fn restless(step: u32) -> u64 {
    let stairs = u64::from(step / 400) * (GIB / 32);
    let noise = u64::from(step.wrapping_mul(2_654_435_761) >> 8) % (GIB / 64);
    let jump = if (2500..2700).contains(&step) { 4 * GIB } else { 0 };
    2 * GIB + stairs % GIB + noise + jump
}

fn sealed(host: &HostState) -> Vec<ModelSnapshot> {
    host.snapshots().into_iter().map(snapshot::seal).collect()
}

#[test]
fn a_restored_host_goes_on_bit_by_bit_as_if_nothing_had_happened() {
    // In the midst of a window, with violations open.
    let cut = 2600;
    let mut bench = Bench::new();
    bench.run(START, cut, restless);
    let restored = HostState::restore("h", &sealed(&bench.host), Choice::default(), START + f64::from(cut));
    assert_eq!((restored.machines, restored.refused.len()), (1, 0));
    let mut other = Bench { host: restored.host, ..Bench::new() };
    bench.records.clear();
    let from = START + f64::from(cut);
    for step in (0..4000).step_by(5) {
        let at = from + f64::from(step);
        let rss = restless(cut + step);
        assert_eq!(
            bench.read(at, vec![vm(A, rss, at)]),
            other.read(at, vec![vm(A, rss, at)]),
            "after {step} s"
        );
    }
    assert_eq!(bench.records, other.records);
    assert!(bench.violations().iter().any(|violation| violation.close_reason == "clean"));
}

#[test]
fn a_machine_runs_the_model_that_was_chosen_and_its_state_is_of_no_use_to_another() {
    let model = "max_1h:0.5".parse().unwrap();
    let mut bench = Bench { host: HostState::forecast_by(model), ..Bench::new() };
    bench.run(START, 1800, |_| 2 * GIB);
    let update = bench.read(START + 1800.0, vec![vm(A, GIB, START + 1800.0)]).unwrap();
    assert_eq!(update.vms[0].predicted_rss_bytes, Some(3 * GIB));
    let restored = |model| HostState::restore("h", &sealed(&bench.host), model, START + 1800.0);
    assert_eq!((restored(model).machines, restored(model).refused.len()), (1, 0));
    let other = restored(Choice::default());
    assert_eq!((other.machines, other.refused.len()), (0, 2));
    assert!(other.refused[0].1.to_string().contains("model max_1h:0.5"), "{:?}", other.refused);
}

#[test]
fn what_is_refused_starts_cold_and_the_rest_goes_on() {
    let other = "0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e02";
    let mut bench = Bench::new();
    for step in (0..1800).step_by(5) {
        let at = START + f64::from(step);
        bench.read(at, vec![vm(A, 2 * GIB, at), vm(other, 2 * GIB, at)]).unwrap();
    }
    let (whole, at) = (sealed(&bench.host), START + 1800.0);
    let refused = |snapshots: &[ModelSnapshot], now: Seconds| {
        let restored = HostState::restore("h", snapshots, Choice::default(), now);
        let mut bench = Bench { host: restored.host, ..Bench::new() };
        let update = bench.read(now, vec![vm(A, 2 * GIB, now), vm(other, 2 * GIB, now)]).unwrap();
        let harvest: Vec<_> = update.vms.iter().map(|vm| vm.harvestable_bytes.unwrap() > 0).collect();
        (restored.refused.len(), harvest)
    };
    assert_eq!(refused(&whole, at), (0, vec![true, true]));
    let mut damaged = whole.clone();
    damaged[1].state[40] ^= 1;
    assert_eq!(refused(&damaged, at), (1, vec![false, true]));
    let foreign = [&whole[..2], &[ModelSnapshot { host_id: "g".into(), ..whole[2].clone() }]].concat();
    assert_eq!(refused(&foreign, at), (1, vec![true, false]));
    assert_eq!(refused(&[], at), (0, vec![false, false]));
    assert_eq!(refused(&whole[1..], at), (0, vec![true, true]), "the host's own part is not needed");
    assert_eq!(refused(&whole, at + FORGOTTEN_AFTER).0, 3, "too old");
    assert_eq!(refused(&whole, at - 3600.0).0, 3, "from the future");
}

#[test]
fn the_ledger_has_the_last_word_on_what_is_open() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    bench.run(START + 1800.0, 30, |_| 7 * GIB);
    let opened = bench.violations();
    let at = START + 1830.0;
    let mut open: BTreeMap<_, _> =
        opened[..1].iter().map(|told| (told.violation_id.clone(), told.clone())).collect();
    let gone_on = "another".to_owned();
    open.insert(gone_on.clone(), Violation::default());
    let mut told = open[&opened[0].violation_id].clone();
    told.revision = 9;
    open.insert(told.violation_id.clone(), told);

    let mut restored = HostState::restore("h", &sealed(&bench.host), Choice::default(), at);
    restored.host.reconcile(&mut open);
    assert_eq!(
        open.into_keys().collect::<Vec<_>>(),
        [gone_on],
        "what nothing can judge is left to be closed"
    );
    let mut bench = Bench { host: restored.host, ..Bench::new() };
    bench.run(at, 1800, |_| 2 * GIB);
    let closed = bench.violations();
    assert_eq!(closed.len(), 1, "an episode that the ledger has closed does not come back: {closed:?}");
    assert_eq!((closed[0].violation_id.as_str(), closed[0].revision), (opened[0].violation_id.as_str(), 10));
}

#[test]
fn a_spent_error_budget_pauses_the_harvest_and_says_so() {
    let mut bench = Bench::new();
    let values = BoundaryValues { error_budget_per_1000_vm_days: Some(1.0), ..BoundaryValues::default() };
    let fleet = Boundary { scope: "fleet".into(), version: 1, values: Some(values), ..Boundary::default() };
    bench.boundaries = BoundarySet::new(1, vec![fleet]);
    let before = bench.run(START, 3600, |_| 2 * GIB);
    let budget = &before.host.as_ref().unwrap().error_budgets[0];
    assert_eq!((budget.scope.as_str(), budget.violations), ("fleet", 0));
    assert!(before.vms[0].harvestable_bytes.unwrap() > GIB && budget.remaining_ratio > 0.99);

    bench.run(START + 3600.0, 60, |_| 7 * GIB);
    let after = bench.run(START + 3660.0, 5400, |_| 2 * GIB);
    let budget = &after.host.as_ref().unwrap().error_budgets[0];
    assert_eq!((budget.violations, budget.remaining_ratio <= 0.0), (1, true), "{budget:?}");
    assert_eq!((after.vms[0].harvestable_bytes, after.vms[0].reclaimable_bytes), (Some(0), Some(0)));
    let waterfall = bench.host.explain(A, Signal::Rss).unwrap();
    let spent = waterfall.terms.iter().find(|term| term.name() == pb::TermName::Budget).unwrap();
    assert!(spent.bytes > 0 && adds_up(&waterfall), "{waterfall:?}");
    assert_eq!(
        spent.detail,
        "the error budget of 1 promise violations in 1,000 vm-days is spent, set for the fleet"
    );
}

/// Names of all types and fields that a value is made of.
fn names(value: &impl std::fmt::Debug) -> std::collections::BTreeSet<String> {
    let shown = format!("{value:?}");
    // What stands between quotes is content.
    let outside = shown.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(char::is_alphabetic)).map(str::to_owned).collect()
}

/// A state of another form may be read without an error, as something else: so the form has a number, which must not be forgotten.
#[test]
fn what_is_kept_has_the_form_that_its_number_stands_for() {
    let mut bench = Bench::new();
    bench.run(START, 1800, |_| 2 * GIB);
    bench.run(START + 1800.0, 60, |_| 7 * GIB);
    let machines: Vec<_> = bench.host.machines.iter().map(|entry| &entry.kept).collect();
    let budgets = bench.budgets.lock().unwrap();
    let lines: Vec<_> =
        names(&(&bench.host.kept, machines, Prices::default(), &*budgets)).into_iter().collect();
    let known = include_str!("kept.txt");
    let form = format!("form {}\n{}\n", snapshot::VERSION, lines.join("\n"));
    assert!(form == known, "raise the form's number and put this into predictor/src/host/kept.txt:\n{form}");
}
