//! What every store does, whatever database it keeps: one suite, stamped on each.
#![cfg(test)]

#[path = "store_contract/copied.rs"]
mod copied;
#[path = "store_contract/leases.rs"]
mod leases;
#[path = "registry/postgres.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod postgres;
#[path = "registry/records.rs"]
mod records;
#[path = "store_contract/secrets.rs"]
mod secrets;

use std::collections::BTreeMap;

use memharvest_proto::collector::v1::Finding;
use memharvest_proto::registry::v1::{
    AgentKind, AgentState, BoundaryValues, HostRollup, RecordHarvestRequest, Violation, ViolationKind,
    ViolationState, VmRollup,
};
use memharvest_registry::scope::Scope;
use memharvest_registry::store::postgres::{Address, PostgresStore};
use memharvest_registry::store::sqlite::SqliteStore;
use memharvest_registry::store::{
    AuditFilter, BoundaryStore, Change, HarvestStore, Range, SignOfLife, Store, StoreError, ViolationFilter,
};
use proptest::prelude::*;
use records::{T0, at, batch_of, closed, coverage, harvest, host_window, registration, violation, vm_window};
use sqlx::Connection as _;
use uuid::Uuid;

use leases::*;
use secrets::*;

const NS: i64 = 1_000_000_000;

fn by(author: &str) -> Change {
    Change { author: author.to_owned(), reason: "because".to_owned(), at_ns: T0 * NS }
}

fn floor(bytes: u64) -> BoundaryValues {
    BoundaryValues { floor_bytes: Some(bytes), ..BoundaryValues::default() }
}

fn over(from_s: i64, to_s: i64) -> Range {
    Range { from_s, to_s, limit: 1000 }
}

async fn audited(store: &impl Store) -> Vec<(String, String)> {
    let events = store.audit_events(&AuditFilter::default(), 1000).await.unwrap();
    events.into_iter().map(|event| (event.action, event.subject)).collect()
}

async fn an_agent_is_registered_once_and_its_etag_follows_its_changes(store: impl Store) {
    let first = store.register_agent(&registration("h", "a"), NS).await.unwrap().agent;
    let again = store.register_agent(&registration("h", "a"), 2 * NS).await.unwrap().agent;
    assert_eq!(first.etag, again.etag, "nothing but the time is new");
    assert_eq!(again.registered_at, at(1));
    assert_eq!(again.last_seen_at, at(2));
    let restarted = store.register_agent(&registration("h", "b"), 3 * NS).await.unwrap().agent;
    assert_ne!(restarted.etag, again.etag);
    assert_eq!(restarted.capabilities, ["replay"]);
    assert_eq!(store.agents("", &[], 10).await.unwrap().len(), 1);
    assert_eq!(store.agents("", &[AgentKind::Gateway], 10).await.unwrap().len(), 0);
    assert!(matches!(store.agent("x").await, Err(StoreError::NotFound(_))));
}

async fn what_an_operator_orders_outlives_a_restart_of_the_agent(store: impl Store) {
    let first = store.register_agent(&registration("h", "a"), NS).await.unwrap().agent;
    let labels = BTreeMap::from([("rack".to_owned(), "z9".to_owned())]);
    let ordered = store.update_agent("h", &first.etag, Some(&labels), Some(NS), &by("ann")).await.unwrap();
    assert_eq!((&ordered.agent.labels, ordered.ordered_interval_ns), (&labels, Some(NS)));
    let restarted = store.register_agent(&registration("h", "b"), 3 * NS).await.unwrap();
    assert_eq!((&restarted.agent.labels, restarted.ordered_interval_ns), (&labels, Some(NS)));
    let stale = store.update_agent("h", &first.etag, None, Some(2 * NS), &by("bob")).await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
    let missing = store.update_agent("h", "", None, Some(2 * NS), &by("bob")).await;
    assert!(matches!(missing, Err(StoreError::EtagMissing { .. })));
    assert_eq!(
        audited(&store).await,
        [("agent.update".to_owned(), "h".to_owned())],
        "refused changes leave no trace"
    );
}

async fn a_decommissioned_agent_stays_so_until_it_is_started_again(store: impl Store) {
    store.register_agent(&registration("h", "a"), NS).await.unwrap();
    let gone = store.decommission_agent("h", &by("ann")).await.unwrap().agent;
    assert_eq!(gone.state(), AgentState::Decommissioned);
    store.decommission_agent("h", &by("ann")).await.unwrap();
    assert_eq!(audited(&store).await.len(), 1, "the second time changes nothing");
    let same = store.register_agent(&registration("h", "a"), 2 * NS).await;
    assert!(matches!(same, Err(StoreError::Decommissioned(_))));
    let back = store.register_agent(&registration("h", "b"), 3 * NS).await.unwrap().agent;
    assert_ne!(back.state(), AgentState::Decommissioned);
    assert_eq!(back.registered_at, at(1), "its history stays");
}

fn sign(agent_id: &str, instance_id: &str, seen_s: i64) -> SignOfLife {
    let (agent_id, instance_id) = (agent_id.to_owned(), instance_id.to_owned());
    SignOfLife { agent_id, instance_id, last_seen_ns: seen_s * NS, findings: None }
}

async fn heartbeats_are_written_down_in_batches_and_never_go_back(store: impl Store) {
    store.register_agent(&registration("h", "a"), NS).await.unwrap();
    let etag = store.agent("h").await.unwrap().agent.etag;
    assert_eq!(store.listened_until_ns().await.unwrap(), 0);
    let finding = Finding { code: "no_period".to_owned(), ..Finding::default() };
    let told = SignOfLife { findings: Some(vec![finding.clone()]), ..sign("h", "a", 9) };
    store.checkpoint_agents(&[told, sign("unknown", "a", 9)], 10 * NS).await.unwrap();
    let stale = SignOfLife { findings: Some(vec![]), ..sign("h", "a", 5) };
    store.checkpoint_agents(&[stale], 11 * NS).await.unwrap();
    store.checkpoint_agents(&[], 7 * NS).await.unwrap();
    let agent = store.agent("h").await.unwrap().agent;
    assert_eq!((agent.last_seen_at, agent.etag, agent.findings), (at(9), etag, vec![finding]));
    assert_eq!(store.listened_until_ns().await.unwrap(), 11 * NS);
    let many: Vec<_> = (0..1100).map(|i| sign("h", "a", 20 + i)).collect();
    store.checkpoint_agents(&many, 12 * NS).await.unwrap();
    assert_ne!(store.agent("h").await.unwrap().agent.last_seen_at, at(9));
    store.register_agent(&registration("h", "b"), 3000 * NS).await.unwrap();
    assert!(
        store.agent("h").await.unwrap().agent.findings.is_empty(),
        "another process has found nothing yet"
    );
}

async fn processes_that_share_an_id_and_hosts_that_share_a_name_are_told(store: impl Store) {
    store.register_agent(&registration("h", "a"), NS).await.unwrap();
    store.checkpoint_agents(&[sign("h", "a", 2)], 2 * NS).await.unwrap();
    let second = store.register_agent(&registration("h", "b"), 3 * NS).await.unwrap();
    assert_eq!(second.others, BTreeMap::from([("a".to_owned(), 2 * NS)]));
    store.checkpoint_agents(&[sign("h", "a", 9), sign("h", "b", 8)], 10 * NS).await.unwrap();
    store.checkpoint_agents(&[sign("h", "a", 4)], 11 * NS).await.unwrap();
    let found = store.agent("h").await.unwrap();
    assert_eq!((found.agent.last_seen_at, &found.others["a"]), (at(8), &(9 * NS)));
    let back = store.register_agent(&registration("h", "a"), 12 * NS).await.unwrap();
    assert_eq!(back.others, BTreeMap::from([("b".to_owned(), 8 * NS)]));
    store.checkpoint_agents(&[], 90_000 * NS).await.unwrap();
    assert!(store.agent("h").await.unwrap().others.is_empty(), "forgotten after a day");

    let mut reinstalled = registration("i", "c");
    reinstalled.name = "h.example".to_owned();
    assert_eq!(store.register_agent(&reinstalled, 20 * NS).await.unwrap().namesake.as_deref(), Some("h"));
    let list = store.agents("", &[], 10).await.unwrap();
    let told: Vec<_> =
        list.iter().map(|one| (one.agent.agent_id.as_str(), one.namesake.as_deref())).collect();
    assert_eq!(told, [("h", None), ("i", Some("h"))]);
    store.decommission_agent("h", &by("ann")).await.unwrap();
    assert_eq!(store.agent("i").await.unwrap().namesake, None);
}

async fn a_boundary_is_versioned_and_guarded_by_its_etag(store: impl Store) {
    let fleet = Scope::Fleet;
    assert!(matches!(store.boundary(&fleet).await, Err(StoreError::NotFound(_))));
    let foreign = store.set_boundary(&fleet, &floor(1), "\"1\"", &by("ann")).await;
    assert!(
        matches!(foreign, Err(StoreError::Stale { .. })),
        "there is nothing that the etag could stand for"
    );
    let first = store.set_boundary(&fleet, &floor(1), "", &by("ann")).await.unwrap();
    assert_eq!((first.version, first.etag.as_str()), (1, "\"1\""));
    let unguarded = store.set_boundary(&fleet, &floor(2), "", &by("bob")).await;
    assert!(matches!(unguarded, Err(StoreError::EtagMissing { .. })));
    let second = store.set_boundary(&fleet, &floor(2), &first.etag, &by("bob")).await.unwrap();
    let stale = store.set_boundary(&fleet, &floor(3), &first.etag, &by("eve")).await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
    assert_eq!(store.boundary(&fleet).await.unwrap(), second);

    assert!(matches!(
        store.delete_boundary(&fleet, "", &by("ann")).await,
        Err(StoreError::EtagMissing { .. })
    ));
    let removed = store.delete_boundary(&fleet, &second.etag, &by("ann")).await.unwrap();
    assert_eq!((removed.version, removed.deleted), (3, true));
    assert!(matches!(store.boundary(&fleet).await, Err(StoreError::NotFound(_))));
    assert!(matches!(
        store.delete_boundary(&fleet, &removed.etag, &by("ann")).await,
        Err(StoreError::NotFound(_))
    ));
    let anew = store.set_boundary(&fleet, &floor(4), "", &by("ann")).await.unwrap();
    assert_eq!(anew.version, 4, "no etag stands for two states");

    let versions = store.boundary_versions(&fleet, u64::MAX, 10).await.unwrap();
    let told: Vec<_> = versions.iter().map(|one| (one.version, one.author.as_str(), one.deleted)).collect();
    assert_eq!(told, [(4, "ann", false), (3, "ann", true), (2, "bob", false), (1, "ann", false)]);
    assert_eq!(store.boundary_versions(&fleet, 3, 1).await.unwrap()[0].version, 2);
    let actions: Vec<String> = audited(&store).await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions, ["boundary.set", "boundary.delete", "boundary.set", "boundary.set"]);
    let of_fleet = AuditFilter { subject: "fleet".to_owned(), ..AuditFilter::default() };
    let newest = store.audit_events(&of_fleet, 3).await.unwrap();
    assert_eq!(
        (newest[2].before_json.as_str(), newest[2].after_json.as_str()),
        ("{\"floor_bytes\":1}", "{\"floor_bytes\":2}")
    );
    assert_eq!((newest[1].before_json.as_str(), newest[1].after_json.as_str()), ("{\"floor_bytes\":2}", ""));
}

async fn changes_of_boundaries_can_be_followed_from_any_revision(store: impl Store) {
    let hint = store.boundary_revision();
    let scopes: Vec<Scope> = (0..4).map(|i| Scope::Host(format!("h{i}"))).collect();
    let writers = scopes.iter().map(|scope| async {
        let mut etag = String::new();
        for i in 0..10 {
            etag = store.set_boundary(scope, &floor(i), &etag, &by("ann")).await.unwrap().etag;
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(*hint.borrow(), 40);
    let (revision, boundaries) = store.boundary_snapshot().await.unwrap();
    assert_eq!((revision, boundaries.len()), (40, 4));
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let changes = store.boundary_changes(after, 7).await.unwrap();
        let Some((last, _)) = changes.last() else { break };
        after = *last;
        seen.extend(changes.into_iter().map(|(revision, _)| revision));
    }
    assert_eq!(seen, (1..=40).collect::<Vec<u64>>(), "in order, none missed");
    let layers = store.boundaries_at(&[scopes[2].clone(), Scope::Fleet, scopes[0].clone()]).await.unwrap();
    assert_eq!(layers.iter().map(|one| one.scope.as_str()).collect::<Vec<_>>(), ["host:h2", "host:h0"]);
    let page = store.boundaries("host:h1", 10).await.unwrap();
    assert_eq!(page.iter().map(|one| one.scope.as_str()).collect::<Vec<_>>(), ["host:h2", "host:h3"]);
}

async fn a_batch_sent_twice_is_stored_once(store: impl Store) {
    let vms: Vec<_> = (0..900).flat_map(|vm| [vm_window(vm, T0), vm_window(vm, T0 + 300)]).collect();
    let batch = RecordHarvestRequest {
        hosts: vec![host_window("h", T0), host_window("h", T0 + 300)],
        harvests: vec![harvest("h", T0, 7)],
        coverage: vec![coverage("h", T0, 10, 9)],
        ..batch_of(vms.clone())
    };
    assert_eq!(store.record_harvest(&batch).await.unwrap(), 1804);
    assert_eq!(store.record_harvest(&batch).await.unwrap(), 1804);
    let history = store.vm_history(Uuid::from_u128(5), over(T0, T0 + 3600)).await.unwrap();
    assert_eq!(history, [vm_window(5, T0), vm_window(5, T0 + 300)], "every field comes back as it was");
    let hosts = store.host_history("h", over(T0, T0 + 3600)).await.unwrap();
    assert_eq!(hosts, batch.hosts);
    let stored = store.stored().await.unwrap();
    assert_eq!((stored.vms, stored.hosts), (900, 1));
    assert!(stored.bytes > 0);
}

async fn the_fleets_history_is_the_sum_of_its_hosts(store: impl Store) {
    let alone =
        HostRollup { total_bytes: None, pooled_harvestable_bytes: None, ..host_window("a", T0 + 300) };
    let unknown = HostRollup { total_bytes: None, reclaimable_bytes: None, ..host_window("b", T0) };
    let batch = RecordHarvestRequest {
        hosts: vec![host_window("a", T0), unknown.clone(), alone.clone(), host_window("a", T0 + 3600)],
        ..RecordHarvestRequest::default()
    };
    store.record_harvest(&batch).await.unwrap();
    let found = store.fleet_history(over(T0, T0 + 3600)).await.unwrap();
    let nameless =
        |host: &HostRollup| HostRollup { host_id: String::new(), host_name: String::new(), ..host.clone() };
    let one = host_window("a", T0);
    let twice = |figure: Option<u64>| figure.map(|bytes| 2 * bytes);
    let both = HostRollup {
        readings: 2 * one.readings,
        vms_running: 2 * one.vms_running,
        available_min_bytes: twice(one.available_min_bytes),
        allocated_bytes: twice(one.allocated_bytes),
        rss_max_bytes: twice(one.rss_max_bytes),
        harvestable_bytes: twice(one.harvestable_bytes),
        pooled_harvestable_bytes: twice(one.pooled_harvestable_bytes),
        ..nameless(&one)
    };
    assert_eq!(found, [both, nameless(&alone)], "what one host does not know is not guessed");
    let short = store.fleet_history(Range { from_s: T0, to_s: T0 + 7200, limit: 2 }).await;
    assert!(matches!(short, Err(StoreError::TooMany(2))));
}

async fn the_same_batches_from_many_at_once_are_stored_once(store: impl Store) {
    let batch = |reverse: bool| {
        let mut vms: Vec<_> = (0..300).map(|vm| vm_window(vm, T0)).collect();
        if reverse {
            vms.reverse();
        }
        let hosts = (0..50).map(|host| host_window(&format!("h{host}"), T0)).collect();
        RecordHarvestRequest { hosts, ..batch_of(vms) }
    };
    let senders = (0..8).map(|i| {
        let batch = batch(i % 2 == 1);
        let store = &store;
        async move { store.record_harvest(&batch).await }
    });
    for stored in futures::future::join_all(senders).await {
        assert_eq!(stored.unwrap(), 350);
    }
    let stored = store.stored().await.unwrap();
    assert_eq!((stored.vms, stored.hosts), (300, 51));
    assert_eq!(store.vm_history(Uuid::from_u128(5), ever()).await.unwrap(), [vm_window(5, T0)]);
    let series = store.vm_series(Uuid::from_u128(5), ever()).await.unwrap();
    let VmRollup { vm_id, vm_name, host_id, .. } = vm_window(5, T0);
    assert_eq!((series.vm_id, series.vm_name, series.host_id), (vm_id, vm_name, host_id));
    let bare =
        VmRollup { vm_id: String::new(), vm_name: String::new(), host_id: String::new(), ..vm_window(5, T0) };
    assert_eq!(series.windows, [bare]);
}

async fn a_record_of_the_same_window_replaces_the_former(store: impl Store) {
    let mut window = vm_window(1, T0);
    store.record_harvest(&batch_of(vec![window.clone()])).await.unwrap();
    window.demand_max_bytes = Some(5);
    window.harvestable_bytes = None;
    window.window = records::lasting(120);
    store.record_harvest(&batch_of(vec![window.clone()])).await.unwrap();
    let history = store.vm_history(Uuid::from_u128(1), over(T0, T0 + 1)).await.unwrap();
    assert_eq!(history, [window]);
}

async fn history_is_read_by_its_range_over_gaps_and_hours(store: impl Store) {
    let starts = [T0, T0 + 300, T0 + 3600, T0 + 50 * 3600, T0 + 50 * 3600 + 3300];
    let windows: Vec<_> = starts.iter().map(|start| vm_window(1, *start)).collect();
    store.record_harvest(&batch_of(windows.iter().rev().cloned().collect())).await.unwrap();
    store.record_harvest(&batch_of(vec![vm_window(2, T0 + 7200)])).await.unwrap();
    let vm = Uuid::from_u128(1);
    let read = async |from, to| {
        let found = store.vm_history(vm, over(from, to)).await.unwrap();
        found.into_iter().map(|window| window.window_start.unwrap().seconds - T0).collect::<Vec<_>>()
    };
    assert_eq!(read(0, i64::from(u32::MAX)).await, [0, 300, 3600, 180_000, 183_300]);
    assert_eq!(read(T0 + 1, T0 + 3600).await, [300]);
    assert_eq!(read(T0 + 300, T0 + 3601).await, [300, 3600]);
    assert_eq!(read(T0 + 183_301, T0 + 200_000).await, Vec::<i64>::new());
    assert_eq!(read(T0, T0).await, Vec::<i64>::new());
    let short = store.vm_history(vm, Range { from_s: 0, to_s: i64::from(u32::MAX), limit: 4 }).await;
    assert!(matches!(short, Err(StoreError::TooMany(4))));
    assert!(matches!(store.vm_history(Uuid::from_u128(9), over(0, 1)).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.host_history("x", over(0, 1)).await, Err(StoreError::NotFound(_))));
}

async fn the_newest_window_is_known_whatever_order_records_come_in(store: impl Store) {
    let mut moved = vm_window(1, T0 + 600);
    moved.host_id = "i".to_owned();
    store.record_harvest(&batch_of(vec![moved.clone(), vm_window(2, T0)])).await.unwrap();
    store.record_harvest(&batch_of(vec![vm_window(1, T0 + 300), vm_window(3, T0)])).await.unwrap();
    let latest = store.latest_vms(None, "", 10).await.unwrap();
    assert_eq!(latest, [moved, vm_window(2, T0), vm_window(3, T0)]);
    assert_eq!(store.latest_vms(Some(Uuid::from_u128(1)), "", 1).await.unwrap(), [vm_window(2, T0)]);
    assert_eq!(store.latest_vms(None, "i", 10).await.unwrap().len(), 1);
    assert_eq!(store.latest_vms(None, "nowhere", 10).await.unwrap().len(), 0);
    assert_eq!(store.host_of(Uuid::from_u128(1)).await.unwrap().as_deref(), Some("i"));
    assert_eq!(store.host_of(Uuid::from_u128(9)).await.unwrap(), None);

    let hosts = |hosts| RecordHarvestRequest { hosts, ..batch_of(vec![]) };
    store.record_harvest(&hosts(vec![host_window("h", T0 + 600), host_window("b", T0)])).await.unwrap();
    store.record_harvest(&hosts(vec![host_window("h", T0)])).await.unwrap();
    let latest = store.latest_hosts("").await.unwrap();
    assert_eq!(latest, [host_window("b", T0), host_window("h", T0 + 600)]);
    assert_eq!(store.latest_hosts("b").await.unwrap().len(), 1);
}

async fn a_part_of_a_window_does_not_take_the_place_of_the_whole(store: impl Store) {
    let (whole, host) = (vm_window(1, T0), host_window("h", T0));
    let hosts = |host: &HostRollup| RecordHarvestRequest { hosts: vec![host.clone()], ..batch_of(vec![]) };
    let covered = |judged| RecordHarvestRequest {
        coverage: vec![coverage("h", T0, judged, judged)],
        ..batch_of(vec![])
    };
    let part = VmRollup { readings: whole.readings - 1, rss_max_bytes: Some(1), ..whole.clone() };
    let part_of_host = HostRollup { readings: host.readings - 1, rss_max_bytes: Some(1), ..host.clone() };
    for batch in [batch_of(vec![whole.clone()]), hosts(&host), covered(9)] {
        assert_eq!(store.record_harvest(&batch).await.unwrap(), 1);
    }
    for batch in [batch_of(vec![part]), hosts(&part_of_host), covered(8)] {
        assert_eq!(store.record_harvest(&batch).await.unwrap(), 0);
    }
    let history = store.vm_history(Uuid::from_u128(1), over(T0, T0 + 1)).await.unwrap();
    assert_eq!(history, [whole]);
    assert_eq!(store.host_history("h", over(T0, T0 + 1)).await.unwrap(), [host]);
    assert_eq!(store.coverage("h", T0).await.unwrap()[0].judged, 9);
}

async fn an_older_harvest_is_passed_over(store: impl Store) {
    let harvests = |harvests| RecordHarvestRequest { harvests, ..batch_of(vec![]) };
    assert_eq!(store.record_harvest(&harvests(vec![harvest("h", T0 + 5, 1)])).await.unwrap(), 1);
    assert_eq!(store.record_harvest(&harvests(vec![harvest("h", T0, 2)])).await.unwrap(), 0);
    assert_eq!(store.record_harvest(&harvests(vec![harvest("h", T0 + 6, 3)])).await.unwrap(), 1);
}

async fn coverage_is_summed_and_a_retry_does_not_count_twice(store: impl Store) {
    let batch = RecordHarvestRequest {
        coverage: vec![
            coverage("h", T0, 100, 99),
            coverage("h", T0 + 300, 50, 50),
            coverage("i", T0 + 300, 10, 1),
        ],
        ..batch_of(vec![])
    };
    store.record_harvest(&batch).await.unwrap();
    store.record_harvest(&batch).await.unwrap();
    let sum = |found: Vec<memharvest_proto::registry::v1::CoverageRollup>| {
        found.into_iter().map(|one| (one.judged, one.held, one.target_violation_rate)).collect::<Vec<_>>()
    };
    assert_eq!(sum(store.coverage("", T0).await.unwrap()), [(160, 150, 0.01)]);
    assert_eq!(sum(store.coverage("", T0 + 300).await.unwrap()), [(60, 51, 0.01)]);
    assert_eq!(sum(store.coverage("h", T0).await.unwrap()), [(150, 149, 0.01)]);
    assert!(store.coverage("", T0 + 301).await.unwrap().is_empty());
}

const DAY: i64 = 86_400;

/// Takes one kind of step until nothing is left to do; the rows that each touched.
async fn until_done(mut step: impl AsyncFnMut() -> u64) -> Vec<u64> {
    let mut steps = Vec::new();
    loop {
        match step().await {
            0 => return steps,
            rows => steps.push(rows),
        }
    }
}

fn ever() -> Range {
    over(0, i64::from(u32::MAX))
}

async fn old_history_goes_and_the_rest_stays(store: impl Store) {
    let days = [0, 1, 40, 70];
    let vms = days.iter().flat_map(|day| (0..3).map(move |vm| vm_window(vm, T0 + day * DAY))).collect();
    let batch = RecordHarvestRequest {
        hosts: days.iter().map(|day| host_window("h", T0 + day * DAY)).collect(),
        coverage: days.iter().map(|day| coverage("h", T0 + day * DAY, 1, 1)).collect(),
        ..batch_of(vms)
    };
    store.record_harvest(&batch).await.unwrap();
    store.prepare_history(T0).await.unwrap();
    let before = T0 + 70 * DAY;
    until_done(async || store.fold_history(T0 + DAY).await.unwrap()).await;
    let steps = until_done(async || store.prune_history(before).await.unwrap()).await;
    assert!(!steps.is_empty());
    let left = store.vm_history(Uuid::from_u128(2), ever()).await.unwrap();
    assert_eq!(left, [vm_window(2, before)]);
    assert_eq!(store.host_history("h", ever()).await.unwrap().len(), 1);
    assert_eq!(store.latest_vms(None, "", 10).await.unwrap().len(), 3);
    assert_eq!(store.prune_history(before).await.unwrap(), 0);
    // What is late for its time is taken, and goes again.
    assert_eq!(store.record_harvest(&batch).await.unwrap(), 20);
    assert!(store.vm_history(Uuid::from_u128(2), ever()).await.unwrap().len() > 1);
    until_done(async || store.prune_history(before).await.unwrap()).await;
    assert_eq!(store.vm_history(Uuid::from_u128(2), ever()).await.unwrap(), [vm_window(2, before)]);
}

async fn old_windows_are_merged_to_hourly_ones(store: impl Store) {
    let window = |vm, start: i64| VmRollup {
        rss_mean_bytes: Some(5 << 30),
        demand_mean_bytes: (start % 3600 == 0).then_some(7),
        quality: if start % 3600 == 300 { 4 } else { 10 },
        harvestable_bytes: (start % 3600 != 3300).then_some(1),
        ..vm_window(vm, start)
    };
    // Three whole days before the one that T0 lies in, and some of it.
    let first = T0 / DAY * DAY - 3 * DAY;
    let starts: Vec<i64> = (first..=T0).step_by(300).collect();
    let vms: Vec<_> = (0..130).flat_map(|vm| [window(vm, first), window(vm, first + 3300)]).collect();
    store.record_harvest(&batch_of(vms)).await.unwrap();
    let batch = RecordHarvestRequest {
        hosts: starts.iter().map(|start| host_window("h", *start)).collect(),
        ..batch_of(starts.iter().map(|start| window(7, *start)).collect())
    };
    store.record_harvest(&batch).await.unwrap();
    let before = first + 2 * DAY;
    assert!(!until_done(async || store.fold_history(before).await.unwrap()).await.is_empty());
    assert_eq!(store.fold_history(before).await.unwrap(), 0, "all is merged");

    let history = store.vm_history(Uuid::from_u128(7), Range { limit: 2000, ..ever() }).await.unwrap();
    let (old, new): (Vec<_>, Vec<_>) =
        history.into_iter().partition(|one| one.window_start.unwrap().seconds < before);
    assert_eq!((old.len(), new.len()), (48, starts.len() - 2 * 288));
    let hour = VmRollup {
        window: records::lasting(3600),
        readings: 12 * 60,
        quality: 4,
        rss_max_bytes: window(7, first + 3300).rss_max_bytes,
        predicted_rss_bytes: window(7, first + 3300).predicted_rss_bytes,
        demand_mean_bytes: Some(7),
        harvestable_bytes: None,
        ..window(7, first)
    };
    assert_eq!(old[0], hour);
    assert_eq!(new[0], window(7, before));
    let hosts = store.host_history("h", over(first, first + 7200)).await.unwrap();
    let of_hour =
        |start| HostRollup { window: records::lasting(3600), readings: 720, ..host_window("h", start) };
    assert_eq!(hosts, [of_hour(first), of_hour(first + 3600)]);
    let latest = store.latest_vms(None, "", 1000).await.unwrap();
    assert_eq!(latest.len(), 130, "those of which nothing but old windows is there are not forgotten");
    assert_eq!(latest[7], window(7, T0));
    assert_eq!(latest[8].window, records::lasting(3600));
    assert_eq!(store.latest_hosts("").await.unwrap(), [host_window("h", T0)]);

    // One that comes late may be in its hour already.
    store.record_harvest(&batch_of(vec![window(7, first + 600)])).await.unwrap();
    until_done(async || store.fold_history(before).await.unwrap()).await;
    let again = store.vm_history(Uuid::from_u128(7), over(first, first + 3600)).await.unwrap();
    assert_eq!(again, [hour]);
}

async fn of_two_records_of_one_window_in_a_batch_the_fuller_one_stays(store: impl Store) {
    let (vm, host) = (vm_window(1, T0), host_window("h", T0));
    let batch = RecordHarvestRequest {
        hosts: vec![host.clone(), HostRollup { readings: 1, ..host.clone() }],
        harvests: vec![harvest("h", T0, 7), harvest("h", T0 - 5, 8)],
        coverage: vec![coverage("h", T0, 9, 9), coverage("h", T0, 1, 1)],
        ..batch_of(vec![vm.clone(), VmRollup { readings: 1, ..vm.clone() }])
    };
    store.record_harvest(&batch).await.unwrap();
    assert_eq!(store.vm_history(Uuid::from_u128(1), ever()).await.unwrap(), [vm]);
    assert_eq!(store.host_history("h", ever()).await.unwrap(), [host]);
    assert_eq!(store.coverage("", T0).await.unwrap()[0].judged, 9);
}

async fn an_episode_goes_forward_only(store: impl Store) {
    let open = violation("v", 1, T0, 1);
    assert_eq!(store.record_violations("p", std::slice::from_ref(&open)).await.unwrap(), 1);
    assert_eq!(
        store.record_violations("p", std::slice::from_ref(&open)).await.unwrap(),
        0,
        "a retry changes nothing"
    );
    assert_eq!(store.violation("v").await.unwrap(), open, "every field comes back as it was");
    let over = closed(violation("v", 1, T0, 3), T0 + 60);
    assert_eq!(store.record_violations("p", std::slice::from_ref(&over)).await.unwrap(), 1);
    assert_eq!(
        store.record_violations("p", &[violation("v", 1, T0, 2), violation("v", 1, T0, 9)]).await.unwrap(),
        0
    );
    assert_eq!(store.violation("v").await.unwrap(), over);
    assert!(matches!(store.violation("w").await, Err(StoreError::NotFound(_))));
}

async fn what_people_say_of_a_violation_outlives_later_reports(store: impl Store) {
    store.record_violations("p", &[violation("v", 1, T0, 1)]).await.unwrap();
    let seen = store.acknowledge_violation("v", "seen", &by("ann")).await.unwrap();
    assert_eq!(
        (seen.acknowledged_by.as_str(), seen.note.as_str(), seen.acknowledged_at),
        ("ann", "seen", at(T0))
    );
    store.explain_violation("v", "a backup", &by("bob")).await.unwrap();
    store.record_violations("p", &[closed(violation("v", 1, T0, 2), T0 + 60)]).await.unwrap();
    let stored = store.violation("v").await.unwrap();
    assert_eq!((stored.acknowledged_by.as_str(), stored.note.as_str()), ("ann", "seen"));
    assert_eq!((stored.explained_by.as_str(), stored.explanation.as_str()), ("bob", "a backup"));
    assert_eq!(stored.state(), ViolationState::Closed);
    assert_eq!(stored.series.len(), 1);
    let unknown = store.acknowledge_violation("w", "", &by("ann")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    let actions: Vec<String> = audited(&store).await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions, ["violation.explain", "violation.acknowledge"]);
}

async fn violations_are_listed_newest_first_by_any_filter(store: impl Store) {
    let mut all: Vec<Violation> = (0_i64..6)
        .map(|i| violation(&format!("v{i}"), u128::from(i.unsigned_abs() % 2), T0 + i / 2, 1))
        .collect();
    all[1] = closed(all[1].clone(), T0 + 60);
    all[2].set_kind(ViolationKind::Forecast);
    all[3].host_id = "i".to_owned();
    store.record_violations("p", &all).await.unwrap();
    store.acknowledge_violation("v4", "", &by("ann")).await.unwrap();
    let list = async |filter: ViolationFilter, limit| {
        let found = store.violations(&filter, limit).await.unwrap();
        assert!(found.iter().all(|one| one.series.is_empty()), "lists come without series");
        found.into_iter().map(|one| one.violation_id).collect::<Vec<_>>()
    };
    let any = ViolationFilter::default;
    assert_eq!(list(any(), 10).await, ["v5", "v4", "v3", "v2", "v1", "v0"]);
    let older_than = Some((T0 * NS + NS + 123_456_789, "v3".to_owned()));
    assert_eq!(list(ViolationFilter { older_than, ..any() }, 2).await, ["v2", "v1"]);
    assert_eq!(list(ViolationFilter { state: Some(ViolationState::Closed), ..any() }, 10).await, ["v1"]);
    assert_eq!(list(ViolationFilter { state: Some(ViolationState::Open), ..any() }, 2).await, ["v5", "v4"]);
    assert_eq!(list(ViolationFilter { kind: Some(ViolationKind::Forecast), ..any() }, 10).await, ["v2"]);
    assert_eq!(list(ViolationFilter { host_id: "i".to_owned(), ..any() }, 10).await, ["v3"]);
    assert_eq!(list(ViolationFilter { vm: Some(Uuid::from_u128(1)), ..any() }, 10).await, ["v5", "v3", "v1"]);
    assert_eq!(list(ViolationFilter { since_ns: Some((T0 + 2) * NS), ..any() }, 10).await, ["v5", "v4"]);
    assert_eq!(list(ViolationFilter { acknowledged: Some(true), ..any() }, 10).await, ["v4"]);
    assert_eq!(list(ViolationFilter { acknowledged: Some(false), ..any() }, 10).await.len(), 5);
    let counts: Vec<_> = store
        .violation_counts()
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one.kind, one.state, one.count))
        .collect();
    assert_eq!(counts, [(1, 1, 1), (2, 1, 4), (2, 2, 1)]);
}

async fn changes_of_violations_can_be_followed(store: impl Store) {
    let hint = store.violation_sequence();
    store.record_violations("p", &[violation("a", 1, T0, 1), violation("b", 1, T0, 1)]).await.unwrap();
    let (sequence, open) = store.open_violations().await.unwrap();
    assert_eq!((sequence, open.len()), (2, 2));
    store.record_violations("p", &[closed(violation("a", 1, T0, 2), T0 + 1)]).await.unwrap();
    store.acknowledge_violation("b", "", &by("ann")).await.unwrap();
    store.record_violations("p", &[violation("b", 1, T0, 1)]).await.unwrap();
    assert_eq!(*hint.borrow(), 4, "a retry is no change");
    let changes = store.violation_changes(sequence, 10).await.unwrap();
    let told: Vec<_> = changes.iter().map(|(at, one)| (*at, one.violation_id.as_str())).collect();
    assert_eq!(told, [(3, "a"), (4, "b")]);
    assert_eq!(store.open_violations().await.unwrap().1.len(), 1);
}

async fn a_batch_that_fails_leaves_nothing(store: impl Store) {
    let broken = Violation { vm_id: "no uuid".to_owned(), ..violation("b", 1, T0, 1) };
    assert!(store.record_violations("p", &[violation("a", 1, T0, 1), broken]).await.is_err());
    assert!(store.violation_counts().await.unwrap().is_empty());
    let broken = memharvest_proto::registry::v1::VmRollup { vm_id: "no uuid".to_owned(), ..vm_window(1, T0) };
    let batch = RecordHarvestRequest {
        hosts: vec![host_window("h", T0)],
        ..batch_of(vec![vm_window(1, T0), broken])
    };
    assert!(store.record_harvest(&batch).await.is_err());
    assert!(store.latest_hosts("").await.unwrap().is_empty());
    assert_eq!(store.stored().await.unwrap().hosts, 0);
}

/// Whatever order reports come in, and however often, the ledger ends at the newest state and never goes back on the way.
async fn any_order_of_reports_ends_alike(store: impl Store, order: Vec<usize>) {
    let reports = [
        violation("v", 1, T0, 1),
        violation("v", 1, T0, 2),
        closed(violation("v", 1, T0, 3), T0 + 60),
        closed(violation("v", 1, T0, 4), T0 + 70),
    ];
    let mut newest = None;
    for i in order {
        store.record_violations("p", &reports[i..=i]).await.unwrap();
        newest = newest.max(Some(i));
        let stored = store.violation("v").await.unwrap();
        assert_eq!(Some(&stored), newest.map(|i| &reports[i]));
    }
}

macro_rules! stamp {
    ($database:ident, $fresh:expr, $($behaviour:ident),* $(,)?) => {
        mod $database {
            use super::*;
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let (store, _kept) = $fresh.await;
                    super::$behaviour(store).await;
                }
            )*

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(12))]
                #[test]
                fn any_order_of_reports_ends_alike(order in prop::collection::vec(0_usize..4, 1..10)) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let (store, _kept) = $fresh.await;
                        super::any_order_of_reports_ends_alike(store, order).await;
                    });
                }
            }
        }
    };
}

macro_rules! store_contract {
    ($($behaviour:ident),* $(,)?) => {
        stamp!(sqlite, fresh_sqlite(), $($behaviour),*);
        stamp!(postgresql, fresh_postgres(), $($behaviour),*);
    };
}

async fn fresh_sqlite() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.db")).await.unwrap();
    (store, folder)
}

async fn fresh_postgres() -> (PostgresStore, ()) {
    let url = postgres::database().await;
    (PostgresStore::open(&Address::parse(&url).unwrap()).await.unwrap(), ())
}

store_contract!(
    an_agent_is_registered_once_and_its_etag_follows_its_changes,
    what_an_operator_orders_outlives_a_restart_of_the_agent,
    a_decommissioned_agent_stays_so_until_it_is_started_again,
    heartbeats_are_written_down_in_batches_and_never_go_back,
    processes_that_share_an_id_and_hosts_that_share_a_name_are_told,
    a_boundary_is_versioned_and_guarded_by_its_etag,
    changes_of_boundaries_can_be_followed_from_any_revision,
    a_batch_sent_twice_is_stored_once,
    the_same_batches_from_many_at_once_are_stored_once,
    a_record_of_the_same_window_replaces_the_former,
    history_is_read_by_its_range_over_gaps_and_hours,
    the_fleets_history_is_the_sum_of_its_hosts,
    the_newest_window_is_known_whatever_order_records_come_in,
    a_part_of_a_window_does_not_take_the_place_of_the_whole,
    an_older_harvest_is_passed_over,
    coverage_is_summed_and_a_retry_does_not_count_twice,
    old_history_goes_and_the_rest_stays,
    old_windows_are_merged_to_hourly_ones,
    of_two_records_of_one_window_in_a_batch_the_fuller_one_stays,
    an_episode_goes_forward_only,
    what_people_say_of_a_violation_outlives_later_reports,
    violations_are_listed_newest_first_by_any_filter,
    changes_of_violations_can_be_followed,
    a_batch_that_fails_leaves_nothing,
    leases_come_out_of_the_harvest_and_no_further,
    hundreds_of_reservations_at_once_never_spend_a_byte_twice,
    one_key_is_one_lease,
    what_a_consumer_takes_is_not_held_back_any_more,
    no_data_means_no_new_lease_and_no_change_of_old_ones,
    leases_end_by_the_stores_clock,
    changes_of_leases_can_be_followed,
    the_newest_snapshot_of_a_machine_stays,
    a_token_is_found_by_the_hash_of_its_secret,
    the_audit_log_is_searched_by_any_filter,
    broken_promises_and_machine_time_are_summed,
);

#[tokio::test]
async fn sqlite_removes_and_merges_in_small_steps() {
    let (store, _folder) = fresh_sqlite().await;
    for vm in 0..100 {
        let windows = (0..72).map(|i| vm_window(vm, T0 + i * 300)).collect();
        store.record_harvest(&batch_of(windows)).await.unwrap();
    }
    let merged = until_done(async || store.fold_history(T0 + 2 * 3600).await.unwrap()).await;
    assert_eq!(merged.iter().sum::<u64>(), 100 * 24);
    assert!(merged.iter().all(|rows| *rows <= 720), "{merged:?}");
    let removed = until_done(async || store.prune_history(T0 + 6 * 3600).await.unwrap()).await;
    assert_eq!(removed.iter().sum::<u64>(), 100 * (2 + 48));
    assert!(removed.iter().all(|rows| *rows <= 2000), "{removed:?}");
}

#[tokio::test]
async fn postgresql_makes_partitions_ahead_and_drops_them() {
    let url = postgres::database().await;
    let store = PostgresStore::open(&Address::parse(&url).unwrap()).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut partitions = async || -> Vec<String> {
        let sql =
            "SELECT relname::text FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY relname";
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
    };
    store.prepare_history(T0).await.unwrap();
    let ahead =
        ["coverage_679", "host_rollups_20370", "host_rollups_20371", "vm_rollups_20370", "vm_rollups_20371"];
    assert_eq!(partitions().await, ahead);
    store.record_harvest(&batch_of(vec![vm_window(1, T0), vm_window(1, T0 - 90 * DAY)])).await.unwrap();
    until_done(async || store.fold_history(T0).await.unwrap()).await;
    let old = vm_window(1, T0 - 90 * DAY).window_start.unwrap().seconds;
    assert!(!partitions().await.contains(&format!("vm_rollups_{}", old / DAY)), "dropped once it is merged");
    assert!(partitions().await.contains(&format!("vm_hours_{}", old / (30 * DAY))));
    until_done(async || store.prune_history(T0).await.unwrap()).await;
    assert!(
        !partitions().await.contains(&format!("vm_hours_{}", old / (30 * DAY))),
        "dropped when it is too old"
    );
}

#[tokio::test]
async fn the_ledgers_of_sqlite_can_only_be_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.set_boundary(&Scope::Fleet, &floor(1), "", &by("ann")).await.unwrap();
    store.close().await;
    drop(store);
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    for forbidden in [
        "DELETE FROM audit_events",
        "UPDATE audit_events SET author = 'eve'",
        "DELETE FROM boundary_versions",
        "UPDATE boundary_versions SET author = 'eve'",
    ] {
        assert!(sqlx::query(forbidden).execute(&pool).await.is_err(), "{forbidden}");
    }
}

#[tokio::test]
async fn the_ledgers_of_postgresql_can_only_be_appended_to() {
    let url = postgres::database().await;
    let store = PostgresStore::open(&Address::parse(&url).unwrap()).await.unwrap();
    store.set_boundary(&Scope::Fleet, &floor(1), "", &by("ann")).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    for forbidden in [
        "DELETE FROM audit_events",
        "UPDATE audit_events SET author = 'eve'",
        "TRUNCATE audit_events",
        "DELETE FROM boundary_versions",
        "UPDATE boundary_versions SET author = 'eve'",
    ] {
        let refused = sqlx::query(forbidden).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains("is only ever appended to"), "{forbidden}: {refused}");
    }
}
