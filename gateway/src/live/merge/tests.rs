use std::collections::BTreeMap;

use memharvest_proto::collector::v1::Quality;
use memharvest_proto::predictor::v1::{Host, HostState};
use memharvest_proto::registry::v1::{Agent, AgentKind, AgentState, HostRollup, VmRollup};
use memharvest_services::proto_time::to_proto;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

/// Seconds after the beginning of these tests' time.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn vm(id: &str, read: i64, harvestable: Option<u64>) -> Vm {
    Vm {
        vm_id: id.into(),
        quality: Quality::Live.into(),
        allocated_bytes: Some(4 * GIB),
        harvestable_bytes: harvestable,
        reclaimable_bytes: harvestable.map(|bytes| bytes / 2),
        read_at: Some(to_proto(at(read))),
        valid_until: Some(to_proto(at(read + 15))),
        ..Vm::default()
    }
}

/// A host that is read every 5 s and was read at `read`.
fn update(host: &str, read: i64, vms: Vec<Vm>) -> HostUpdate {
    let sum = |figure: fn(&Vm) -> Option<u64>| {
        vms.iter().filter_map(figure).fold(None, |sum, bytes| Some(sum.unwrap_or(0) + bytes))
    };
    let host = Host {
        host_id: host.into(),
        name: format!("name-of-{host}"),
        state: HostState::Live.into(),
        vms_running: u32::try_from(vms.len()).unwrap(),
        allocated_bytes: sum(|vm| vm.allocated_bytes),
        harvestable_bytes: sum(|vm| vm.harvestable_bytes),
        reclaimable_bytes: sum(|vm| vm.reclaimable_bytes),
        read_at: Some(to_proto(at(read))),
        valid_until: Some(to_proto(at(read + 15))),
        interval: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..Host::default()
    };
    HostUpdate { host: Some(host), vms }
}

fn agent(id: &str, state: AgentState) -> Agent {
    Agent {
        agent_id: id.into(),
        kind: AgentKind::Collector.into(),
        name: format!("agent-of-{id}"),
        labels: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        state: state.into(),
        ..Agent::default()
    }
}

fn records(agents: Vec<Agent>) -> Records {
    let agents = agents.into_iter().map(|agent| (agent.agent_id.clone(), agent)).collect();
    Records { agents: Some(Arc::new(agents)), ..Records::default() }
}

fn host_ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.hosts.iter().map(|view| view.host.host_id.as_str()).collect()
}

#[test]
fn sums_are_those_of_the_hosts_and_unknown_is_not_zero() {
    let mut fleet = FleetState::new(2);
    fleet.update(0, update("b", 0, vec![vm("v2", 0, Some(GIB)), vm("v1", 0, None)]), at(1));
    fleet.update(1, update("a", 0, vec![vm("v3", 0, Some(2 * GIB))]), at(1));
    let snapshot = fleet.publish(at(1)).unwrap();
    assert_eq!(host_ids(&snapshot), ["a", "b"]);
    assert_eq!(snapshot.vms.iter().map(|vm| vm.vm_id.as_str()).collect::<Vec<_>>(), ["v1", "v2", "v3"]);
    assert_eq!(snapshot.fleet.harvestable_bytes, Some(3 * GIB));
    assert_eq!(snapshot.fleet.allocated_bytes, Some(12 * GIB));
    assert_eq!(snapshot.fleet.rss_bytes, None);
    assert_eq!((snapshot.fleet.hosts, snapshot.fleet.vms, snapshot.fleet.hosts_stale), (2, 3, 0));
    assert_eq!(snapshot.vm("v1").unwrap().host_id, "b");
    assert_eq!(snapshot.predictor_of(snapshot.vm("v3").unwrap()), Some(1));
    assert!(fleet.publish(at(1)).is_none(), "nothing changed since");
}

#[test]
fn the_newest_reading_wins_where_two_predictors_claim_a_host() {
    let mut fleet = FleetState::new(2);
    fleet.update(0, update("a", 10, vec![vm("v", 10, Some(GIB))]), at(10));
    fleet.update(1, update("a", 5, vec![vm("v", 5, Some(2 * GIB))]), at(10));
    let snapshot = fleet.publish(at(10)).unwrap();
    assert_eq!((snapshot.fleet.harvestable_bytes, snapshot.hosts[0].predictor), (Some(GIB), Some(0)));
    fleet.update(1, update("a", 15, vec![vm("v", 15, Some(2 * GIB))]), at(15));
    let snapshot = fleet.publish(at(15)).unwrap();
    assert_eq!((snapshot.fleet.harvestable_bytes, snapshot.hosts[0].predictor), (Some(2 * GIB), Some(1)));
    fleet.gone(1, "a", at(16));
    assert_eq!(fleet.publish(at(16)).unwrap().fleet.harvestable_bytes, Some(GIB));
}

#[test]
fn a_machine_that_migrates_is_shown_where_it_was_read_last() {
    let mut fleet = FleetState::new(1);
    fleet.update(0, update("a", 0, vec![vm("v", 0, Some(GIB))]), at(0));
    fleet.update(0, update("b", 2, vec![vm("v", 2, Some(GIB))]), at(2));
    assert_eq!(fleet.publish(at(2)).unwrap().vm("v").unwrap().host_id, "b");
    fleet.update(0, update("a", 5, vec![]), at(5));
    let snapshot = fleet.publish(at(5)).unwrap();
    assert_eq!((snapshot.fleet.vms, snapshot.vm("v").unwrap().host_id.as_str()), (1, "b"));
}

#[test]
fn figures_run_out_by_the_passing_of_time() {
    let mut fleet = FleetState::new(1);
    fleet.update(0, update("a", 0, vec![vm("known", 0, Some(GIB)), vm("unknown", 0, None)]), at(0));
    assert_eq!(fleet.publish(at(15)).unwrap().fleet.harvestable_bytes, Some(GIB));
    assert!(fleet.publish(at(15)).is_none());
    let snapshot = fleet.publish(at(16)).unwrap();
    let host = &snapshot.hosts[0].host;
    assert_eq!((host.state, host.harvestable_bytes), (HostState::Stale.into(), Some(0)));
    assert_eq!(host.allocated_bytes, Some(8 * GIB));
    let (known, unknown) = (snapshot.vm("known").unwrap(), snapshot.vm("unknown").unwrap());
    assert_eq!((known.harvestable_bytes, known.quality), (Some(0), Quality::Stale.into()));
    assert_eq!((known.reclaimable_bytes, unknown.harvestable_bytes), (Some(0), None));
    assert_eq!((snapshot.fleet.hosts_stale, snapshot.fleet.vms_live), (1, 0));
    fleet.update(0, update("a", 20, vec![vm("known", 20, Some(GIB))]), at(20));
    let snapshot = fleet.publish(at(20)).unwrap();
    assert_eq!((snapshot.hosts[0].host.state, snapshot.fleet.vms), (HostState::Live.into(), 1));
}

#[test]
fn one_machine_can_run_out_before_its_host() {
    let mut fleet = FleetState::new(1);
    let mut silent = vm("silent", 0, Some(GIB));
    silent.quality = Quality::Stuck.into();
    fleet.update(0, update("a", 10, vec![silent, vm("fresh", 10, Some(2 * GIB))]), at(10));
    let snapshot = fleet.publish(at(16)).unwrap();
    assert_eq!(snapshot.hosts[0].host.state, i32::from(HostState::Live));
    assert_eq!(snapshot.fleet.harvestable_bytes, Some(2 * GIB));
    assert_eq!(snapshot.vm("silent").unwrap().quality, i32::from(Quality::Stuck), "a worse word stays");
}

#[test]
fn a_new_snapshot_replaces_a_predictors_hosts_and_nobody_elses() {
    let mut fleet = FleetState::new(2);
    fleet.update(1, update("other", 0, vec![]), at(0));
    fleet.snapshot_begins(0);
    fleet.update(0, update("a", 0, vec![vm("v1", 0, None)]), at(0));
    fleet.update(0, update("b", 0, vec![vm("v2", 0, None)]), at(0));
    fleet.snapshot_complete(0, at(0));
    assert_eq!(host_ids(&fleet.publish(at(0)).unwrap()), ["a", "b", "other"]);
    fleet.snapshot_begins(0);
    fleet.update(0, update("b", 1, vec![vm("v2", 1, None)]), at(1));
    assert_eq!(host_ids(&fleet.publish(at(1)).unwrap()), ["a", "b", "other"], "not before it is complete");
    fleet.snapshot_complete(0, at(1));
    let snapshot = fleet.publish(at(1)).unwrap();
    assert_eq!((host_ids(&snapshot), snapshot.vms.len()), (vec!["b", "other"], 1));
}

#[test]
fn a_host_that_only_the_registry_knows_is_lost() {
    let mut fleet = FleetState::new(1);
    let mut known = records(vec![agent("a", AgentState::Lost), agent("b", AgentState::Live)]);
    let rollup = |window_start| HostRollup {
        host_id: "a".into(),
        host_name: "old-name".into(),
        window_start: Some(to_proto(at(window_start))),
        window: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        harvestable_bytes: Some(GIB),
        rss_max_bytes: Some(3 * GIB),
        ..HostRollup::default()
    };
    let machine = |id: &str, window_start| VmRollup {
        vm_id: id.into(),
        host_id: "a".into(),
        window_start: Some(to_proto(at(window_start))),
        window: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        quality: Quality::Live.into(),
        harvestable_bytes: Some(GIB),
        ..VmRollup::default()
    };
    known.set_rollups(vec![rollup(300)], vec![machine("here", 300), machine("gone", 0)]);
    fleet.set_records(known, at(1000));
    let snapshot = fleet.publish(at(1000)).unwrap();
    assert_eq!(host_ids(&snapshot), ["a", "b"]);
    let (with_history, without) = (&snapshot.hosts[0].host, &snapshot.hosts[1].host);
    assert_eq!((with_history.state, without.state), (HostState::Lost.into(), HostState::Lost.into()));
    assert_eq!((with_history.harvestable_bytes, with_history.rss_bytes), (Some(0), Some(3 * GIB)));
    assert_eq!((without.harvestable_bytes, without.rss_bytes, without.read_at), (None, None, None));
    assert_eq!((with_history.name.as_str(), with_history.labels["rack"].as_str()), ("agent-of-a", "r1"));
    assert_eq!(with_history.read_at, Some(to_proto(at(600))));
    let vm = snapshot.vm("here").unwrap();
    assert_eq!((vm.quality, vm.harvestable_bytes), (Quality::Stale.into(), Some(0)));
    assert_eq!((snapshot.fleet.vms, snapshot.predictor_of(vm)), (1, None));

    fleet.update(0, update("a", 1000, vec![vm_of_reading()]), at(1001));
    let snapshot = fleet.publish(at(1001)).unwrap();
    assert_eq!(snapshot.hosts[0].host.state, i32::from(HostState::Live));
    assert_eq!(snapshot.vms.len(), 1, "the live host's machines replace the recorded ones");
}

fn vm_of_reading() -> Vm {
    vm("new", 1000, Some(GIB))
}

#[test]
fn a_decommissioned_host_is_shown_only_while_it_is_live() {
    let mut fleet = FleetState::new(1);
    fleet.update(0, update("a", 0, vec![]), at(0));
    fleet.set_records(records(vec![agent("a", AgentState::Live), agent("b", AgentState::Lost)]), at(1));
    assert_eq!(host_ids(&fleet.publish(at(1)).unwrap()), ["a", "b"]);
    let both = vec![agent("a", AgentState::Decommissioned), agent("b", AgentState::Decommissioned)];
    fleet.set_records(records(both), at(2));
    assert_eq!(host_ids(&fleet.publish(at(2)).unwrap()), ["a"]);
    assert!(fleet.publish(at(20)).unwrap().hosts.is_empty());
}

#[test]
fn a_host_without_a_time_is_not_trusted() {
    let mut fleet = FleetState::new(1);
    let mut timeless = update("a", 0, vec![vm("v", 0, Some(GIB))]);
    let host = timeless.host.as_mut().unwrap();
    (host.read_at, host.valid_until) = (None, None);
    fleet.update(0, timeless, at(0));
    assert_eq!(fleet.publish(at(0)).unwrap().fleet.harvestable_bytes, Some(0));
    fleet.update(0, HostUpdate::default(), at(0));
    assert!(fleet.publish(at(0)).is_none(), "an update without a host says nothing");
}

proptest! {
    /// Whatever order updates come in, the index of machines holds exactly the machines of the hosts shown.
    #[test]
    fn the_index_follows_the_hosts(
        steps in prop::collection::vec((0..2_usize, 0..4_u8, 0..40_i64, prop::collection::vec(0..6_u8, 0..4), any::<bool>()), 0..40)
    ) {
        let mut fleet = FleetState::new(2);
        let mut now = 0;
        for (predictor, host, step, vms, gone) in steps {
            now += step;
            let host = format!("h{host}");
            if gone {
                fleet.gone(predictor, &host, at(now));
            } else {
                let mut ids: Vec<String> = vms.into_iter().map(|vm| format!("v{vm}")).collect();
                ids.sort();
                ids.dedup();
                let vms = ids.iter().map(|id| vm(id, now, Some(GIB))).collect();
                fleet.update(predictor, update(&host, now, vms), at(now));
            }
            let Some(snapshot) = fleet.publish(at(now)) else { continue };
            let mut expected: Vec<&str> =
                snapshot.hosts.iter().flat_map(|view| view.vms.iter().map(|vm| vm.vm_id.as_str())).collect();
            expected.sort_unstable();
            expected.dedup();
            let indexed: Vec<&str> = snapshot.vms.iter().map(|vm| vm.vm_id.as_str()).collect();
            prop_assert_eq!(indexed, expected);
            let promised: u64 = snapshot.hosts.iter().filter_map(|view| view.host.harvestable_bytes).sum();
            prop_assert_eq!(snapshot.fleet.harvestable_bytes.unwrap_or(0), promised);
            for view in &snapshot.hosts {
                let of_vms: u64 = view.vms.iter().filter_map(|vm| vm.harvestable_bytes).sum();
                prop_assert_eq!(view.host.harvestable_bytes.unwrap_or(0), of_vms);
            }
        }
    }
}
