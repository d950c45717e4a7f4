use memharvest_proto::collector::v1::{GuestMemory, HostMemory, Quality, VmState as RunState};
use memharvest_proto::registry::v1::ViolationState;

use super::*;

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
    records: Vec<Pending>,
}

impl Bench {
    fn new() -> Self {
        Self { host: HostState::default(), boundaries: BoundarySet::new(1, vec![]), records: Vec::new() }
    }

    fn context(boundaries: &BoundarySet, now: Seconds) -> Context<'_> {
        Context { predictor_id: "p", boundaries, cold_start: 60.0, now, tolerance: 5.0, traceparent: "" }
    }

    fn read(&mut self, at: Seconds, vms: Vec<VmReading>) -> Result<Arc<pb::HostUpdate>, Refusal> {
        let outgoing = self.host.observe(reading(at, vms), &Self::context(&self.boundaries, at))?;
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
        bench.host.absent(&Bench::context(&bench.boundaries, now))
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
    let context = Bench::context(&bench.boundaries, START + 5.0);
    let future = bench.host.observe(reading(START + 50.0, vec![]), &context).unwrap_err();
    assert_eq!(future.to_string(), "the reading lies 45 s in the future; check the clock of its host");
    let nameless = reading(START + 5.0, vec![vm("seven", GIB, START)]);
    let refused = bench.host.observe(nameless, &context).unwrap_err();
    assert_eq!(refused.to_string(), "vm_id `seven` of machine name-seven is no UUID");
    let timeless = HostReading { read_at: None, ..reading(START, vec![]) };
    assert_eq!(bench.host.observe(timeless, &context).unwrap_err(), Refusal::NoTime);
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
    let last = bench.host.finish(&Bench::context(&bench.boundaries, START + 3600.0));
    assert!(
        matches!(&last[..], [Pending::Harvest(request)] if request.vms.len() == 1 && request.hosts.len() == 1)
    );
}
