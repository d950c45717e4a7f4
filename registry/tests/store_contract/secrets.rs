//! What every store does with snapshots of models, tokens, the audit log and what budgets are worked out from.

use memharvest_proto::registry::v1::{HostRollup, ModelSnapshot, RecordHarvestRequest, Role, ViolationKind};
use memharvest_registry::snapshot::checksum;
use memharvest_registry::store::{AuditFilter, Change, NewToken, Store, StoreError};
use memharvest_registry::time::instant_from_ns;
use uuid::Uuid;

use crate::records::{T0, at, batch_of, host_window, lasting, violation, vm_id};
use crate::{NS, by};

pub(crate) fn snapshot(number: u128, taken_at: i64, state: &[u8]) -> ModelSnapshot {
    ModelSnapshot {
        vm_id: vm_id(number),
        host_id: format!("h{}", number % 2),
        model_version: "cqd@1".to_owned(),
        taken_at: at(taken_at),
        state: state.to_vec(),
        checksum: checksum(state).to_vec(),
    }
}

pub(crate) async fn the_newest_snapshot_of_a_machine_stays(store: impl Store) {
    let first: Vec<_> = (0..5).map(|number| snapshot(number, T0, b"first")).collect();
    assert!(store.put_snapshots(&first).await.unwrap().is_empty());
    assert!(store.put_snapshots(&first).await.unwrap().is_empty(), "a retry is no older one");
    let moved = ModelSnapshot { host_id: "h0".to_owned(), ..snapshot(1, T0 + 9, &[7; 10_000]) };
    let passed_over = store.put_snapshots(&[moved.clone(), snapshot(2, T0 - 1, b"older")]).await.unwrap();
    assert_eq!(passed_over, [vm_id(2)]);

    let named = store.snapshots_of(&[1, 3, 9].map(Uuid::from_u128)).await.unwrap();
    assert_eq!(named, [moved.clone(), first[3].clone()]);
    let of_host = store.snapshots_of_host("h0", None, 10).await.unwrap();
    assert_eq!(of_host, [first[0].clone(), moved, first[2].clone(), first[4].clone()]);
    let page = store.snapshots_of_host("h0", Some(Uuid::from_u128(1)), 1).await.unwrap();
    assert_eq!(page, [first[2].clone()]);
    assert!(store.snapshots_of_host("nowhere", None, 10).await.unwrap().is_empty());

    assert_eq!(store.prune_snapshots((T0 + 1) * NS).await.unwrap(), 4);
    assert_eq!(store.prune_snapshots((T0 + 1) * NS).await.unwrap(), 0);
    assert_eq!(store.snapshots_of_host("h0", None, 10).await.unwrap().len(), 1);
}

fn token(id: &str, secret_hash: [u8; 32]) -> NewToken {
    NewToken {
        token_id: id.to_owned(),
        name: format!("{id}'s"),
        role: Role::Operator,
        secret_hash,
        expires_ns: Some((T0 + 60) * NS),
    }
}

pub(crate) async fn a_token_is_found_by_the_hash_of_its_secret(store: impl Store) {
    let made = store.create_token(&token("a", [1; 32]), &by("ann")).await.unwrap();
    assert_eq!((made.name.as_str(), made.role(), made.created_at), ("a's", Role::Operator, at(T0)));
    assert_eq!((made.expires_at, made.last_used_at, made.revoked_at), (at(T0 + 60), None, None));
    store.create_token(&token("b", [2; 32]), &by("ann")).await.unwrap();
    assert_eq!(store.token_by_hash(&[1; 32]).await.unwrap(), Some(made));
    assert_eq!(store.token_by_hash(&[3; 32]).await.unwrap(), None);

    store.tokens_used(&[("a".to_owned(), 7), ("gone".to_owned(), 7)]).await.unwrap();
    store.tokens_used(&[("a".to_owned(), 5)]).await.unwrap();
    store.tokens_used(&[]).await.unwrap();
    let later = Change { at_ns: (T0 + 1) * NS, ..by("bob") };
    let revoked = store.revoke_token("a", &later).await.unwrap();
    assert_eq!((revoked.last_used_at, revoked.revoked_at), (Some(instant_from_ns(7)), at(T0 + 1)));
    let again = store.revoke_token("a", &Change { at_ns: (T0 + 2) * NS, ..by("eve") }).await.unwrap();
    assert_eq!(again, revoked, "it was over already");
    assert!(matches!(store.revoke_token("c", &later).await, Err(StoreError::NotFound(_))));

    let listed = store.tokens(u64::MAX, 10).await.unwrap();
    assert_eq!(listed.iter().map(|(_, token)| token.token_id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(store.tokens(listed[0].0, 10).await.unwrap()[0].1, revoked);
    let events = store.audit_events(&AuditFilter::default(), 10).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.action.as_str(), event.subject.as_str(), event.author.as_str()))
        .collect();
    assert_eq!(
        told,
        [("token.revoke", "a", "bob"), ("token.create", "b", "ann"), ("token.create", "a", "ann")]
    );
}

pub(crate) async fn broken_promises_and_machine_time_are_summed(store: impl Store) {
    let mut all: Vec<_> =
        (0_u128..5).map(|i| violation(&format!("v{i}"), i % 2, T0 + i64::try_from(i).unwrap(), 1)).collect();
    all[4].set_kind(ViolationKind::Forecast);
    all[3].host_id = "i".to_owned();
    store.record_violations("p", &all).await.unwrap();
    let mut broken = store.broken_promises((T0 + 1) * NS).await.unwrap();
    broken.sort_by_key(|one| (one.vm, one.host_id.clone()));
    let told: Vec<_> = broken.iter().map(|one| (one.vm.as_u128(), one.host_id.as_str(), one.count)).collect();
    assert_eq!(told, [(0, "h", 1), (1, "h", 1), (1, "i", 1)]);

    let hosts = vec![
        host_window("h", T0 - 3600),
        host_window("h", T0),
        HostRollup { window: lasting(60), ..host_window("h", T0 + 300) },
        host_window("i", T0 + 7200),
    ];
    store.record_harvest(&RecordHarvestRequest { hosts, ..batch_of(vec![]) }).await.unwrap();
    let mut time = store.machine_time(T0 + 5).await.unwrap();
    time.sort_by_key(|one| one.host_id.clone());
    let told: Vec<_> =
        time.iter().map(|one| (one.host_id.as_str(), one.vm_seconds, one.since_s - T0)).collect();
    assert_eq!(told, [("h", 3 * 360, 0), ("i", 3 * 300, 7200)]);
}

pub(crate) async fn the_audit_log_is_searched_by_any_filter(store: impl Store) {
    store.record_violations("p", &[violation("v", 1, T0, 1)]).await.unwrap();
    store.create_token(&token("v", [1; 32]), &by("ann")).await.unwrap();
    let at = |seconds: i64, author: &str| Change { at_ns: (T0 + seconds) * NS, ..by(author) };
    store.acknowledge_violation("v", "seen", &at(1, "bob")).await.unwrap();
    store.explain_violation("v", "a backup", &at(2, "ann")).await.unwrap();
    store.revoke_token("v", &at(3, "bob")).await.unwrap();
    let found = async |filter: AuditFilter| {
        let events = store.audit_events(&filter, 10).await.unwrap();
        events.into_iter().map(|event| event.action).collect::<Vec<_>>()
    };
    let any = AuditFilter::default;
    let (create, seen, told, revoke) =
        ("token.create", "violation.acknowledge", "violation.explain", "token.revoke");
    assert_eq!(found(any()).await, [revoke, told, seen, create]);
    assert_eq!(found(AuditFilter { author: "ann".to_owned(), ..any() }).await, [told, create]);
    assert_eq!(found(AuditFilter { action: "token".to_owned(), ..any() }).await, [revoke, create]);
    assert_eq!(found(AuditFilter { action: "token.revoke".to_owned(), ..any() }).await, [revoke]);
    assert_eq!(found(AuditFilter { action: "tok".to_owned(), ..any() }).await, [""; 0]);
    let between = AuditFilter { since_ns: Some((T0 + 1) * NS), until_ns: Some((T0 + 3) * NS), ..any() };
    assert_eq!(found(between).await, [told, seen]);
    let events = store.audit_events(&AuditFilter { subject: "v".to_owned(), ..any() }, 2).await.unwrap();
    let older = AuditFilter { before: Some(events[1].event_id), ..any() };
    assert_eq!(found(older).await, [seen, create]);
    assert_eq!(events[1].reason, "because");
    assert!(events[1].before_json.is_empty() && events[1].after_json.contains("a backup"), "{:?}", events[1]);
}
