//! Leases as a scheduler meets them, and what the registry takes back by itself. The mesh clock is the wall clock here.

use jiff::Timestamp;
use memharvest_proto::registry::v1::{
    BoundaryValues, DecommissionAgentRequest, HostHarvest, Lease, LeaseState, ListAuditEventsRequest,
    ListLeasesRequest, RecordHarvestRequest, RecordViolationsRequest, ReleaseLeaseRequest, RenewLeaseRequest,
    ReserveMemoryRequest, SetBoundaryRequest, WatchLeasesRequest,
};
use prost_types::Duration;
use tonic::{Code, Status};

use crate::records::{at, batch_of, lasting, registration, violation, vm_id};
use crate::server::{TestRegistry, database, eventually, next, wrong_fields};

const GIB: u64 = 1 << 30;

fn reservation(host: &str, key: &str, bytes: u64) -> ReserveMemoryRequest {
    ReserveMemoryRequest {
        host_id: host.to_owned(),
        bytes,
        ttl: lasting(600),
        holder: "scheduler".to_owned(),
        idempotency_key: key.to_owned(),
        ..Default::default()
    }
}

/// A predictor tells what a host yields now, for a minute.
async fn tell(registry: &TestRegistry, host: &str, bytes: u64, breaker_open: bool) {
    let now = Timestamp::now();
    let told = HostHarvest {
        host_id: host.to_owned(),
        read_at: Some(prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }),
        harvestable_bytes: bytes,
        valid_until: at(now.as_second() + 60),
        breaker_open,
    };
    let batch = RecordHarvestRequest { harvests: vec![told], ..batch_of(vec![]) };
    registry.harvest().record_harvest(batch).await.unwrap();
}

async fn reserve(registry: &TestRegistry, host: &str, key: &str, bytes: u64) -> Result<Lease, Status> {
    let reserved = registry.leases().reserve_memory(reservation(host, key, bytes)).await?;
    Ok(reserved.into_inner().lease.unwrap())
}

async fn states(registry: &TestRegistry, host: &str) -> Vec<(String, LeaseState)> {
    let request = ListLeasesRequest { host_id: host.to_owned(), ..Default::default() };
    let found = registry.leases().list_leases(request).await.unwrap().into_inner().leases;
    found.into_iter().map(|lease| (lease.idempotency_key.clone(), lease.state())).collect()
}

#[tokio::test]
async fn a_lease_is_made_extended_and_given_back() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    tell(&registry, "h", 10 * GIB, false).await;
    let mut client = registry.leases();
    let lease = reserve(&registry, "h", "one", 4 * GIB).await.unwrap();
    assert_eq!((lease.state(), lease.bytes, lease.held_back_bytes), (LeaseState::Live, 4 * GIB, 4 * GIB));
    assert_eq!(reserve(&registry, "h", "one", 4 * GIB).await.unwrap(), lease);
    assert_eq!(reserve(&registry, "h", "one", GIB).await.unwrap_err().code(), Code::AlreadyExists);
    let too_much = reserve(&registry, "h", "two", 7 * GIB).await.unwrap_err();
    assert_eq!(too_much.code(), Code::ResourceExhausted);
    assert!(too_much.message().contains(&format!("{} bytes left to lease", 6 * GIB)), "{too_much}");
    assert_eq!(reserve(&registry, "nowhere", "three", 1).await.unwrap_err().code(), Code::NotFound);

    let renewal = |holder: &str, consumer: String| RenewLeaseRequest {
        lease_id: lease.lease_id.clone(),
        ttl: lasting(3600),
        holder: holder.to_owned(),
        consumer_vm_id: consumer,
        author: "ann".to_owned(),
    };
    let longer =
        client.renew_lease(renewal("scheduler", vm_id(1))).await.unwrap().into_inner().lease.unwrap();
    assert!(longer.expires_at.unwrap().seconds >= lease.expires_at.unwrap().seconds + 2990);
    assert_eq!(longer.consumer_vm_id, vm_id(1));
    let foreign = client.renew_lease(renewal("eve", String::new())).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let other = client.renew_lease(renewal("scheduler", vm_id(2))).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);

    let release = ReleaseLeaseRequest {
        lease_id: lease.lease_id.clone(),
        author: "ann".to_owned(),
        reason: "the host is needed".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        let over = client.release_lease(release.clone()).await.unwrap().into_inner().lease.unwrap();
        assert_eq!((over.state(), over.held_back_bytes), (LeaseState::Released, 0));
    }
    let late = client.renew_lease(renewal("scheduler", String::new())).await.unwrap_err();
    assert_eq!(
        (late.code(), late.message().contains("released")),
        (Code::FailedPrecondition, true),
        "{late}"
    );
    reserve(&registry, "h", "four", 10 * GIB).await.unwrap();

    let audit = ListAuditEventsRequest { subject: lease.lease_id.clone(), ..Default::default() };
    let events = registry.audit().list_audit_events(audit).await.unwrap().into_inner().events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.action.as_str(), event.author.as_str(), event.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("lease.release", "ann", "the host is needed"),
            ("lease.renew", "ann", ""),
            ("lease.reserve", "scheduler", "")
        ]
    );
    assert!(events[1].before_json.contains("\"state\":\"live\"") && events[1].after_json.contains(&vm_id(1)));
    drop(client);
    registry.stop().await;
}

#[tokio::test]
async fn leases_are_listed_by_pages_and_watched_from_any_revision() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    for host in ["h", "i"] {
        tell(&registry, host, 10 * GIB, false).await;
        for i in 0..3 {
            reserve(&registry, host, &format!("{host}{i}"), GIB).await.unwrap();
        }
    }
    let mut client = registry.leases();
    let mut request = ListLeasesRequest { page_size: 2, host_id: "h".to_owned(), ..Default::default() };
    let first = client.list_leases(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = client.list_leases(request.clone()).await.unwrap().into_inner();
    let keys: Vec<_> =
        first.leases.iter().chain(&second.leases).map(|lease| lease.idempotency_key.as_str()).collect();
    assert_eq!((keys, second.next_page_token.as_str()), (vec!["h2", "h1", "h0"], ""));
    request.host_id = "i".to_owned();
    assert_eq!(wrong_fields(&client.list_leases(request).await.unwrap_err()), ["page_token"]);

    let all = WatchLeasesRequest { include_live: true, host_id: "i".to_owned(), ..Default::default() };
    let mut watch = client.watch_leases(all).await.unwrap().into_inner();
    let mut live = Vec::new();
    let revision = loop {
        let event = next(&mut watch).await;
        match event.lease {
            Some(lease) => live.push(lease),
            None if event.snapshot_complete => break event.revision,
            None => panic!("neither a lease nor the mark"),
        }
    };
    assert_eq!(live.len(), 3);
    let release =
        |lease: &Lease| ReleaseLeaseRequest { lease_id: lease.lease_id.clone(), ..Default::default() };
    client.release_lease(release(&first.leases[0])).await.unwrap();
    client.release_lease(release(&live[1])).await.unwrap();
    let seen = next(&mut watch).await;
    let lease = seen.lease.unwrap();
    assert_eq!((lease.idempotency_key.as_str(), lease.state()), ("i1", LeaseState::Released));

    let resume = WatchLeasesRequest { after_revision: revision, ..Default::default() };
    let mut resumed = client.watch_leases(resume).await.unwrap().into_inner();
    let missed = [next(&mut resumed).await, next(&mut resumed).await];
    assert_eq!(missed.map(|event| event.lease.unwrap().idempotency_key), ["h2", "i1"]);
    let ahead = WatchLeasesRequest { after_revision: 99, ..Default::default() };
    assert_eq!(wrong_fields(&client.watch_leases(ahead).await.unwrap_err()), ["after_revision"]);
    drop((client, watch, resumed));
    registry.stop().await;
}

#[tokio::test]
async fn leases_run_out_and_outlive_a_restart() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    tell(&registry, "h", 10 * GIB, false).await;
    let short = ReserveMemoryRequest { ttl: lasting(1), ..reservation("h", "short", GIB) };
    registry.leases().reserve_memory(short).await.unwrap();
    reserve(&registry, "h", "long", GIB).await.unwrap();
    registry.stop().await;
    let registry = TestRegistry::start(&path, &[]).await;
    let expected = [("long".to_owned(), LeaseState::Live), ("short".to_owned(), LeaseState::Expired)];
    eventually("the short one to run out", async || (states(&registry, "h").await == expected).then_some(()))
        .await;
    registry.stop().await;
}

/// A host whose harvest has fallen below what its three leases hold back.
async fn short_of_memory(registry: &TestRegistry) {
    tell(registry, "h", 10 * GIB, false).await;
    for key in ["old", "middle", "new"] {
        reserve(registry, "h", key, 3 * GIB).await.unwrap();
    }
    tell(registry, "h", 4 * GIB, false).await;
}

fn all(old: LeaseState, middle: LeaseState, new: LeaseState) -> Vec<(String, LeaseState)> {
    [("new", new), ("middle", middle), ("old", old)].map(|(key, state)| (key.to_owned(), state)).to_vec()
}

use LeaseState::{Live, Revoked, Revoking};

async fn turn(registry: &TestRegistry, expected: Vec<(String, LeaseState)>) {
    eventually("the leases to be as expected", async || {
        (states(registry, "h").await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_promise_takes_back_the_newest_leases_after_their_notice() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &["--revoke-notice", "1s"]).await;
    short_of_memory(&registry).await;
    let mut watch = registry.leases().watch_leases(WatchLeasesRequest::default()).await.unwrap().into_inner();
    let broken = RecordViolationsRequest {
        predictor_id: "p".to_owned(),
        violations: vec![violation("v1", 1, Timestamp::now().as_second(), 1)],
    };
    registry.violations().record_violations(broken).await.unwrap();
    let noticed = [next(&mut watch).await, next(&mut watch).await].map(|event| event.lease.unwrap());
    for (lease, key) in noticed.iter().zip(["new", "middle"]) {
        assert_eq!((lease.idempotency_key.as_str(), lease.state()), (key, Revoking));
        assert_eq!(lease.revoke_reason, "a promise was broken: violation v1");
        assert!(lease.revoke_at.is_some() && lease.ended_at.is_none());
    }
    turn(&registry, all(Live, Revoked, Revoked)).await;
    drop(watch);
    registry.stop().await;
}

#[tokio::test]
async fn a_cut_by_an_operator_takes_back_as_little_as_it_takes() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    tell(&registry, "h", 10 * GIB, false).await;
    for key in ["old", "middle", "new"] {
        reserve(&registry, "h", key, 3 * GIB).await.unwrap();
    }
    let cut = SetBoundaryRequest {
        scope: "host:h".to_owned(),
        values: Some(BoundaryValues { max_harvest_ratio: Some(0.1), ..BoundaryValues::default() }),
        author: "ann".to_owned(),
        ..Default::default()
    };
    registry.boundaries().set_boundary(cut).await.unwrap();
    tell(&registry, "h", 6 * GIB, false).await;
    turn(&registry, all(Live, Live, Revoking)).await;
    registry.stop().await;
}

#[tokio::test]
async fn pressure_an_exclusion_and_the_end_of_service_are_evidence() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    short_of_memory(&registry).await;
    tell(&registry, "h", 6 * GIB, true).await;
    turn(&registry, all(Live, Live, Revoking)).await;
    let refused = reserve(&registry, "h", "more", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    tell(&registry, "i", 10 * GIB, false).await;
    reserve(&registry, "i", "i", GIB).await.unwrap();
    let excluded = SetBoundaryRequest {
        scope: "host:i".to_owned(),
        values: Some(BoundaryValues { excluded: Some(true), ..BoundaryValues::default() }),
        ..Default::default()
    };
    registry.boundaries().set_boundary(excluded).await.unwrap();
    eventually("the excluded host's lease", async || {
        (states(&registry, "i").await == [("i".to_owned(), Revoking)]).then_some(())
    })
    .await;

    registry.agents().register_agent(registration("h", "one")).await.unwrap();
    let order = DecommissionAgentRequest { agent_id: "h".to_owned(), ..Default::default() };
    registry.agents().decommission_agent(order).await.unwrap();
    turn(&registry, all(Revoking, Revoking, Revoking)).await;
    registry.stop().await;
}

#[tokio::test]
async fn a_harvest_that_falls_by_itself_takes_nothing_back() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    short_of_memory(&registry).await;
    // A lease that runs out tells that the leases were looked at meanwhile.
    tell(&registry, "i", GIB, false).await;
    let short =
        ReserveMemoryRequest { ttl: Some(Duration { seconds: 1, nanos: 0 }), ..reservation("i", "short", 1) };
    registry.leases().reserve_memory(short).await.unwrap();
    let looked = [("short".to_owned(), LeaseState::Expired)];
    eventually("the short one to run out", async || (states(&registry, "i").await == looked).then_some(()))
        .await;
    assert_eq!(states(&registry, "h").await, all(Live, Live, Live));
    registry.stop().await;
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.leases();
    let good = || reservation("h", "k", GIB);
    for (bad, field) in [
        (ReserveMemoryRequest { host_id: String::new(), ..good() }, "host_id"),
        (ReserveMemoryRequest { host_id: "a b".to_owned(), ..good() }, "host_id"),
        (ReserveMemoryRequest { bytes: 0, ..good() }, "bytes"),
        (ReserveMemoryRequest { bytes: u64::MAX, ..good() }, "bytes"),
        (ReserveMemoryRequest { ttl: lasting(0), ..good() }, "ttl"),
        (ReserveMemoryRequest { ttl: lasting(30 * 86_400 + 1), ..good() }, "ttl"),
        (ReserveMemoryRequest { holder: String::new(), ..good() }, "holder"),
        (ReserveMemoryRequest { holder: "x".repeat(10 << 20), ..good() }, "holder"),
        (ReserveMemoryRequest { author: "x".repeat(129), ..good() }, "author"),
        (ReserveMemoryRequest { idempotency_key: "x".repeat(129), ..good() }, "idempotency_key"),
        (ReserveMemoryRequest { consumer_vm_id: "web-1".to_owned(), ..good() }, "consumer_vm_id"),
    ] {
        match client.reserve_memory(bad).await.unwrap_err() {
            refused if refused.code() == Code::OutOfRange => assert_eq!(field, "holder", "{refused}"),
            refused => assert_eq!(wrong_fields(&refused), [field]),
        }
    }
    let renew = |lease_id: &str, seconds| RenewLeaseRequest {
        lease_id: lease_id.to_owned(),
        ttl: lasting(seconds),
        ..Default::default()
    };
    assert_eq!(wrong_fields(&client.renew_lease(renew("", 1)).await.unwrap_err()), ["lease_id"]);
    assert_eq!(wrong_fields(&client.renew_lease(renew("l", -1)).await.unwrap_err()), ["ttl"]);
    assert_eq!(client.renew_lease(renew("none", 1)).await.unwrap_err().code(), Code::NotFound);
    let release = ReleaseLeaseRequest { lease_id: "none".to_owned(), ..Default::default() };
    assert_eq!(client.release_lease(release.clone()).await.unwrap_err().code(), Code::NotFound);
    let silent = ReleaseLeaseRequest { reason: "x".repeat(10_000), ..release };
    assert_eq!(wrong_fields(&client.release_lease(silent).await.unwrap_err()), ["reason"]);
    let list = ListLeasesRequest { state: 9, host_id: "a b".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(&client.list_leases(list).await.unwrap_err()), ["host_id", "state"]);
    assert!(states(&registry, "").await.is_empty(), "nothing was written");
    drop(client);
    registry.stop().await;
}
