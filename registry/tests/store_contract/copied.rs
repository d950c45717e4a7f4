//! A SQLite store copied to PostgreSQL: whatever can be asked of it is answered as before, and it goes on from there.

use std::fmt::Debug;

use memharvest_proto::registry::v1::{RecordHarvestRequest, Role};
use memharvest_registry::lease::{self, Moment, Reservation};
use memharvest_registry::store::postgres::ImportError;
use memharvest_registry::store::{AuditFilter, LeaseFilter, NewToken, Range, Store, ViolationFilter};
use uuid::Uuid;

use crate::records::{
    T0, batch_of, closed, coverage, harvest, host_window, registration, violation, vm_window,
};
use crate::secrets::snapshot;
use crate::{NS, by, ever, floor, fresh_postgres, fresh_sqlite, sign, until_done};

const NOW: Moment = Moment { store_ns: T0 * NS, mesh_ns: T0 * NS };
const MACHINES: u128 = 3;
const WINDOWS: i64 = 5 * 288;

fn reservation(id: &str) -> Reservation {
    Reservation {
        lease_id: id.to_owned(),
        host_id: "h".to_owned(),
        bytes: 1 << 20,
        ttl_ns: 600 * NS,
        holder: "scheduler".to_owned(),
        author: "scheduler".to_owned(),
        idempotency_key: format!("key of {id}"),
        consumer: Some(Uuid::from_u128(1)),
    }
}

/// Something of everything, with texts that a copy could trip over.
async fn fill(store: &impl Store) {
    for id in ["a", "b", "gone"] {
        store.register_agent(&registration(id, "one"), T0 * NS).await.unwrap();
    }
    store.register_agent(&registration("a", "two"), T0 * NS + 1).await.unwrap();
    store.checkpoint_agents(&[sign("b", "one", 9)], (T0 + 9) * NS).await.unwrap();
    store.decommission_agent("gone", &by("ann")).await.unwrap();

    let odd =
        memharvest_registry::store::Change { reason: "a\tb\\n\n\r\"ü 🐏 \\N".to_owned(), ..by("ann") };
    let fleet = "fleet".parse().unwrap();
    store.set_boundary(&fleet, &floor(1), "", &odd).await.unwrap();
    store.set_boundary(&fleet, &floor(2), "\"1\"", &odd).await.unwrap();
    let group = "group:rack=a1".parse().unwrap();
    store.set_boundary(&group, &floor(3), "", &by("bob")).await.unwrap();
    store.delete_boundary(&group, "\"1\"", &by("bob")).await.unwrap();

    let starts = || (0..WINDOWS).map(|i| T0 + i * 300);
    for vm in 0..MACHINES {
        let batch = RecordHarvestRequest {
            hosts: starts().map(|start| host_window("h", start)).collect(),
            coverage: starts().map(|start| coverage("h", start, 10, 9)).collect(),
            harvests: vec![harvest("h", T0, 1 << 40)],
            ..batch_of(starts().map(|start| vm_window(vm, start)).collect())
        };
        store.record_harvest(&batch).await.unwrap();
    }
    // The first days are merged to hours.
    until_done(async || store.fold_history(T0 + 2 * 86_400).await.unwrap()).await;

    let mut violations: Vec<_> = (0..40).map(|i| violation(&format!("v{i}"), 1, T0 + i, 1)).collect();
    violations[3] = closed(violations[3].clone(), T0 + 60);
    store.record_violations("p", &violations).await.unwrap();
    store.acknowledge_violation("v1", "tab\tand\\line\n", &odd).await.unwrap();
    store.explain_violation("v2", "a backup", &odd).await.unwrap();

    for id in ["l1", "l2"] {
        store.reserve(&reservation(id), NOW).await.unwrap();
    }
    let change = |lease: &memharvest_proto::registry::v1::Lease| lease::released(lease, "", NOW.store_ns);
    store.change_lease("l1", NOW, "lease.release", &by("scheduler"), change).await.unwrap();

    let every_byte: Vec<u8> = (0..=255).collect();
    store.put_snapshots(&[snapshot(1, T0, &every_byte), snapshot(2, T0, b"")]).await.unwrap();
    for (id, hash) in [("t1", 1), ("t2", 2)] {
        let token = NewToken {
            token_id: id.to_owned(),
            name: "ci".to_owned(),
            role: Role::Operator,
            secret_hash: [hash; 32],
            expires_ns: None,
        };
        store.create_token(&token, &by("ann")).await.unwrap();
    }
    store.tokens_used(&[("t1".to_owned(), T0 * NS)]).await.unwrap();
    store.revoke_token("t2", &by("ann")).await.unwrap();
}

/// The answers to all that can be asked.
async fn told(store: &impl Store) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, answer: &dyn Debug| told.push(format!("{what}: {answer:?}"));
    tell("agents", &store.agents("", &[], 100).await.unwrap());
    tell("listened until", &store.listened_until_ns().await.unwrap());
    tell("boundaries", &store.boundary_snapshot().await.unwrap());
    tell("versions", &store.boundary_changes(0, 100).await.unwrap());
    let all = Range { limit: 100_000, ..ever() };
    for vm in 0..MACHINES {
        tell("machine", &store.vm_history(Uuid::from_u128(vm), all).await.unwrap());
        tell("series", &store.vm_series(Uuid::from_u128(vm), all).await.unwrap());
    }
    tell("host", &store.host_history("h", all).await.unwrap());
    tell("latest", &store.latest_vms(None, "", 100).await.unwrap());
    tell("latest hosts", &store.latest_hosts("").await.unwrap());
    tell("coverage", &store.coverage("", T0 + 86_400).await.unwrap());
    tell("machine time", &store.machine_time(T0).await.unwrap());
    let violations = store.violations(&ViolationFilter::default(), 100).await.unwrap();
    for one in &violations {
        tell("violation", &store.violation(&one.violation_id).await.unwrap());
    }
    tell("violations", &violations);
    tell("counts", &store.violation_counts().await.unwrap());
    tell("changes of violations", &store.violation_changes(0, 100).await.unwrap());
    tell("leases", &store.leases(&LeaseFilter::default(), 100, NOW).await.unwrap());
    tell("changes of leases", &store.lease_changes(0, 100, NOW).await.unwrap());
    tell("leased harvests", &store.leased_harvests().await.unwrap());
    tell("snapshots", &store.snapshots_of(&[1, 2].map(Uuid::from_u128)).await.unwrap());
    tell("tokens", &store.tokens(u64::MAX, 100).await.unwrap());
    tell("token", &store.token_by_hash(&[1; 32]).await.unwrap());
    tell("audit", &store.audit_events(&AuditFilter::default(), 1000).await.unwrap());
    told
}

/// Numbers are never given twice.
async fn goes_on(store: &impl Store) {
    let newest_event = async || store.audit_events(&AuditFilter::default(), 1).await.unwrap()[0].event_id;
    let before = newest_event().await;
    let fleet = "fleet".parse().unwrap();
    let set = store.set_boundary(&fleet, &floor(9), "\"2\"", &by("ann")).await.unwrap();
    assert_eq!(set.version, 3);
    assert!(newest_event().await > before);
    assert_eq!(store.boundary_changes(4, 10).await.unwrap().len(), 1);
    store.reserve(&reservation("l3"), NOW).await.unwrap();
    assert_eq!(store.leases(&LeaseFilter::default(), 1, NOW).await.unwrap()[0].1.lease_id, "l3");
    store.record_violations("p", &[violation("new", 1, T0, 1)]).await.unwrap();
    store.record_harvest(&batch_of(vec![vm_window(77, T0 + WINDOWS * 300)])).await.unwrap();
}

#[tokio::test]
async fn a_copy_answers_everything_as_the_original_and_goes_on_from_there() {
    let (sqlite, _folder) = fresh_sqlite().await;
    let (postgres, ()) = fresh_postgres().await;
    fill(&sqlite).await;
    let mut rows = 0;
    postgres.import(&sqlite, |_, count| rows += count).await.unwrap();
    let (original, copy) = (told(&sqlite).await, told(&postgres).await);
    for (original, copy) in original.iter().zip(&copy) {
        assert_eq!(original, copy);
    }
    assert_eq!(original.len(), copy.len());
    assert!(rows > 4 * 288 * 3, "{rows}");

    goes_on(&postgres).await;
    let again = postgres.import(&sqlite, |_, _| {}).await;
    assert!(matches!(again, Err(ImportError::NotEmpty("agents"))), "{again:?}");
}
