//! What every store does with leases.

use std::sync::Arc;

use memharvest_proto::registry::v1::{HostHarvest, Lease, LeaseState, RecordHarvestRequest, VmRollup};
use memharvest_registry::lease::{self, Moment, Refusal, Reservation};
use memharvest_registry::store::{Change, LeaseFilter, Store, StoreError};
use memharvest_registry::time::instant_from_ns;
use uuid::Uuid;

use crate::records::{T0, batch_of, harvest, registration, vm_window};
use crate::{NS, audited, by};

const GIB: u64 = 1 << 30;

/// So many seconds after the begin, on both clocks.
fn after(seconds: i64) -> Moment {
    Moment { store_ns: (T0 + seconds) * NS, mesh_ns: (T0 + seconds) * NS }
}

fn reservation(id: &str, bytes: u64) -> Reservation {
    Reservation {
        lease_id: id.to_owned(),
        host_id: "h".to_owned(),
        bytes,
        ttl_ns: 600 * NS,
        holder: "scheduler".to_owned(),
        author: "scheduler".to_owned(),
        idempotency_key: format!("key of {id}"),
        consumer: None,
    }
}

/// A predictor tells what host `h` yields; valid for a quarter of an hour.
async fn tell(store: &impl Store, read_at: i64, bytes: u64) {
    let valid_until = Some(instant_from_ns((read_at + 900) * NS));
    let told = HostHarvest { valid_until, ..harvest("h", read_at, bytes) };
    let batch = RecordHarvestRequest { harvests: vec![told], ..batch_of(vec![]) };
    store.record_harvest(&batch).await.unwrap();
}

fn refused(outcome: Result<Lease, StoreError>) -> Refusal {
    match outcome {
        Err(StoreError::Lease(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn held(store: &impl Store, now: Moment) -> u64 {
    store.holding_leases(now).await.unwrap().1.iter().map(|lease| lease.held_back_bytes).sum()
}

async fn release(store: &impl Store, id: &str, now: Moment) -> Result<Lease, StoreError> {
    let change = |lease: &Lease| lease::released(lease, "", now.store_ns);
    store.change_lease(id, now, "lease.release", &by("scheduler"), change).await
}

pub(crate) async fn leases_come_out_of_the_harvest_and_no_further(store: impl Store) {
    let now = after(0);
    assert!(matches!(refused(store.reserve(&reservation("a", 1), now).await), Refusal::UnknownHost(_)));
    tell(&store, T0, 10 * GIB).await;
    let made = store.reserve(&reservation("a", 6 * GIB), now).await.unwrap();
    assert_eq!(made, Lease { held_back_bytes: 6 * GIB, ..reservation("a", 6 * GIB).lease(now.store_ns) });
    let Refusal::TooLittle { left, held_back, .. } =
        refused(store.reserve(&reservation("b", 5 * GIB), now).await)
    else {
        panic!("another refusal")
    };
    assert_eq!((left, held_back), (4 * GIB, 6 * GIB));
    store.reserve(&reservation("b", 4 * GIB), now).await.unwrap();
    assert!(matches!(refused(store.reserve(&reservation("c", 1), now).await), Refusal::TooLittle { .. }));

    release(&store, "a", now).await.unwrap();
    store.reserve(&reservation("c", 6 * GIB), now).await.unwrap();
    let listed = store.leases(&LeaseFilter::default(), 10, now).await.unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|(_, lease)| (lease.lease_id.as_str(), lease.state(), lease.held_back_bytes / GIB))
        .collect();
    assert_eq!(
        told,
        [("c", LeaseState::Live, 6), ("b", LeaseState::Live, 4), ("a", LeaseState::Released, 0)]
    );
    let only = async |filter| store.leases(&filter, 10, now).await.unwrap().len();
    assert_eq!(only(LeaseFilter { state: Some(LeaseState::Live), ..LeaseFilter::default() }).await, 2);
    assert_eq!(only(LeaseFilter { state: Some(LeaseState::Released), ..LeaseFilter::default() }).await, 1);
    assert_eq!(only(LeaseFilter { state: Some(LeaseState::Revoking), ..LeaseFilter::default() }).await, 0);
    assert_eq!(only(LeaseFilter { host_id: "i".to_owned(), ..LeaseFilter::default() }).await, 0);
    assert_eq!(only(LeaseFilter { older_than: Some(listed[1].0), ..LeaseFilter::default() }).await, 1);
    let actions: Vec<String> = audited(&store).await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions, ["lease.reserve", "lease.release", "lease.reserve", "lease.reserve"]);
}

pub(crate) async fn hundreds_of_reservations_at_once_never_spend_a_byte_twice(store: impl Store) {
    tell(&store, T0, 100 * GIB).await;
    let store = Arc::new(store);
    let mut all = tokio::task::JoinSet::new();
    for i in 0..400_u64 {
        let store = Arc::clone(&store);
        all.spawn(async move {
            let wanted = reservation(&format!("l{i}"), (1 + i % 3) * GIB);
            loop {
                match store.reserve(&wanted, after(0)).await {
                    // So many at once: the same call may pass later.
                    Err(StoreError::Unavailable(_)) => {}
                    outcome => return outcome.map(|lease| lease.bytes),
                }
            }
        });
    }
    let mut given = 0;
    while let Some(outcome) = all.join_next().await {
        match outcome.unwrap() {
            Ok(bytes) => given += bytes,
            Err(StoreError::Lease(Refusal::TooLittle { .. })) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(given, held(store.as_ref(), after(0)).await);
    assert!(given > 97 * GIB && given <= 100 * GIB, "{given}");
}

pub(crate) async fn one_key_is_one_lease(store: impl Store) {
    tell(&store, T0, 10 * GIB).await;
    let first = store.reserve(&reservation("a", 4 * GIB), after(0)).await.unwrap();
    let retry = Reservation { lease_id: "other".to_owned(), ..reservation("a", 4 * GIB) };
    assert_eq!(store.reserve(&retry, after(5)).await.unwrap(), first);
    assert_eq!(held(&store, after(5)).await, 4 * GIB);
    let other = Reservation { bytes: GIB, ..retry.clone() };
    let Refusal::OtherRequest { fields, .. } = refused(store.reserve(&other, after(5)).await) else {
        panic!("another refusal")
    };
    assert_eq!(fields, "bytes");
    release(&store, "a", after(6)).await.unwrap();
    let late = store.reserve(&retry, after(7)).await.unwrap();
    assert_eq!(
        (late.lease_id.as_str(), late.state()),
        ("a", LeaseState::Released),
        "it hears what became of it"
    );

    let keyless = |id: &str| Reservation { idempotency_key: String::new(), ..reservation(id, GIB) };
    store.reserve(&keyless("b"), after(7)).await.unwrap();
    store.reserve(&keyless("c"), after(7)).await.unwrap();
    assert_eq!(held(&store, after(7)).await, 2 * GIB);
}

/// Usage of machine 1 on a host, in the window that begins at a second.
fn usage(host: &str, start: i64, rss: Option<u64>, harvestable: u64) -> VmRollup {
    VmRollup {
        host_id: host.to_owned(),
        rss_mean_bytes: rss,
        harvestable_bytes: Some(harvestable),
        ..vm_window(1, start)
    }
}

pub(crate) async fn what_a_consumer_takes_is_not_held_back_any_more(store: impl Store) {
    tell(&store, T0, 10 * GIB).await;
    let consumer = Some(Uuid::from_u128(1));
    let named = |id: &str, bytes| Reservation { consumer, ttl_ns: 9000 * NS, ..reservation(id, bytes) };
    store.reserve(&named("a", 4 * GIB), after(0)).await.unwrap();
    assert_eq!(held(&store, after(0)).await, 4 * GIB);
    store.record_harvest(&batch_of(vec![usage("h", T0, Some(3 * GIB), 0)])).await.unwrap();
    assert_eq!(held(&store, after(300)).await, GIB);
    store.record_harvest(&batch_of(vec![usage("h", T0 + 300, None, 0)])).await.unwrap();
    assert_eq!(held(&store, after(600)).await, 4 * GIB, "not known is nothing");
    store.record_harvest(&batch_of(vec![usage("h", T0 + 600, Some(5 * GIB), 0)])).await.unwrap();
    assert_eq!(held(&store, after(900)).await, 0);
    assert_eq!(held(&store, after(600 + 901)).await, 4 * GIB, "an old window says nothing");

    // A second lease of the same machine: what the first one covers does not count again.
    tell(&store, T0 + 900, 10 * GIB).await;
    let second = store.reserve(&named("b", 3 * GIB), after(900)).await.unwrap();
    assert_eq!(second.held_back_bytes, 2 * GIB);
    store.record_harvest(&batch_of(vec![usage("i", T0 + 900, Some(5 * GIB), 0)])).await.unwrap();
    assert_eq!(held(&store, after(900)).await, 7 * GIB, "it uses another host's memory");

    // What the consumer itself yields is not given away again.
    store.record_harvest(&batch_of(vec![usage("h", T0 + 1200, Some(7 * GIB), 6 * GIB)])).await.unwrap();
    assert_eq!(held(&store, after(1200)).await, 0);
    let refusal = refused(store.reserve(&reservation("c", 5 * GIB), after(1200)).await);
    let Refusal::TooLittle { left, harvest, .. } = refusal else { panic!("another refusal") };
    assert_eq!((left, harvest), (4 * GIB, 4 * GIB));
}

pub(crate) async fn no_data_means_no_new_lease_and_no_change_of_old_ones(store: impl Store) {
    tell(&store, T0, 10 * GIB).await;
    let made =
        store.reserve(&Reservation { ttl_ns: 9000 * NS, ..reservation("a", GIB) }, after(0)).await.unwrap();
    let late = after(901);
    assert!(matches!(refused(store.reserve(&reservation("b", GIB), late).await), Refusal::Away(_)));
    assert_eq!(store.end_leases(late, "registry").await.unwrap(), 0);
    assert_eq!(store.holding_leases(late).await.unwrap().1, [made]);
    let longer = |lease: &Lease| lease::renewed(lease, "scheduler", 9000 * NS, None, late.store_ns).map(Some);
    let renewed = store.change_lease("a", late, "lease.renew", &by("scheduler"), longer).await.unwrap();
    assert_eq!(renewed.expires_at, Some(instant_from_ns(late.store_ns + 9000 * NS)));

    let open = HostHarvest { breaker_open: true, ..harvest("h", T0 + 905, 10 * GIB) };
    let batch = RecordHarvestRequest { harvests: vec![open], ..batch_of(vec![]) };
    store.record_harvest(&batch).await.unwrap();
    assert!(matches!(
        refused(store.reserve(&reservation("b", GIB), after(905)).await),
        Refusal::BreakerOpen(_)
    ));

    store.register_agent(&registration("h", "one"), T0 * NS).await.unwrap();
    store.decommission_agent("h", &by("ann")).await.unwrap();
    assert!(matches!(
        refused(store.reserve(&reservation("b", GIB), after(905)).await),
        Refusal::Decommissioned(_)
    ));
    assert_eq!(store.leased_harvests().await.unwrap()[0].host_id, "h");
}

pub(crate) async fn leases_end_by_the_stores_clock(store: impl Store) {
    tell(&store, T0, 10 * GIB).await;
    store.reserve(&reservation("a", 8 * GIB), after(0)).await.unwrap();
    let ahead = Moment { mesh_ns: after(500).mesh_ns, ..after(599) };
    assert!(matches!(
        refused(store.reserve(&reservation("b", 8 * GIB), ahead).await),
        Refusal::TooLittle { .. }
    ));
    // Nobody has swept yet: a reservation sees for itself that the time of the other is over.
    store.reserve(&reservation("b", 8 * GIB), after(600)).await.unwrap();
    assert_eq!(store.end_leases(after(600), "registry").await.unwrap(), 0);

    let notice = Change { reason: "pressure".to_owned(), ..by("registry") };
    let revoke = |lease: &Lease| Ok(lease::under_notice(lease, "pressure", after(700).store_ns));
    let going = store.change_lease("b", after(650), "lease.notice", &notice, revoke).await.unwrap();
    assert_eq!((going.state(), going.held_back_bytes), (LeaseState::Revoking, 8 * GIB));
    assert_eq!(store.end_leases(after(699), "registry").await.unwrap(), 0);
    assert_eq!(store.end_leases(after(700), "registry").await.unwrap(), 1);
    assert_eq!(held(&store, after(700)).await, 0);
    let states: Vec<_> = store
        .leases(&LeaseFilter::default(), 10, after(700))
        .await
        .unwrap()
        .into_iter()
        .map(|(_, lease)| (lease.lease_id.clone(), lease.state(), lease.revoke_reason))
        .collect();
    assert_eq!(
        states,
        [
            ("b".to_owned(), LeaseState::Revoked, "pressure".to_owned()),
            ("a".to_owned(), LeaseState::Expired, String::new())
        ]
    );
    assert_eq!(release(&store, "b", after(701)).await.unwrap().state(), LeaseState::Revoked);
    let unknown = release(&store, "none", after(701)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    let actions: Vec<String> = audited(&store).await.into_iter().map(|(action, _)| action).collect();
    let expected = ["lease.revoke", "lease.notice", "lease.reserve", "lease.expire", "lease.reserve"];
    assert_eq!(actions, expected);

    assert_eq!(store.prune_leases(after(700).store_ns).await.unwrap(), 1, "the expired one");
    assert_eq!(store.prune_leases(after(701).store_ns).await.unwrap(), 1);
    assert_eq!(store.prune_leases(after(701).store_ns).await.unwrap(), 0);
}

pub(crate) async fn changes_of_leases_can_be_followed(store: impl Store) {
    tell(&store, T0, 10 * GIB).await;
    let hint = store.lease_sequence();
    for id in ["a", "b", "c"] {
        store.reserve(&reservation(id, GIB), after(0)).await.unwrap();
    }
    let (sequence, holding) = store.holding_leases(after(0)).await.unwrap();
    assert_eq!(holding.iter().map(|lease| lease.lease_id.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    release(&store, "b", after(1)).await.unwrap();
    release(&store, "b", after(2)).await.unwrap();
    store.end_leases(after(600), "registry").await.unwrap();
    let changes = store.lease_changes(sequence, 10, after(600)).await.unwrap();
    let told: Vec<_> = changes.iter().map(|(_, lease)| (lease.lease_id.as_str(), lease.state())).collect();
    assert_eq!(told[0], ("b", LeaseState::Released), "once, though it was given back twice");
    assert_eq!(told.len(), 3);
    assert!(changes.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(*hint.borrow(), changes[2].0);
    assert!(store.lease_changes(changes[2].0, 10, after(600)).await.unwrap().is_empty());
}
