//! What leases do.

use proptest::prelude::*;

use super::*;

const S: i64 = 1_000_000_000;

fn reservation(bytes: u64) -> Reservation {
    Reservation {
        lease_id: "l".to_owned(),
        host_id: "h".to_owned(),
        bytes,
        ttl_ns: 60 * S,
        holder: "ann".to_owned(),
        author: "ann".to_owned(),
        idempotency_key: "k".to_owned(),
        consumer: None,
    }
}

fn supply(bytes: u64, held_back: u64) -> Supply {
    let harvest = Harvest { bytes, valid_until_ns: 10, breaker_open: false };
    Supply { harvest: Some(harvest), held_back, ..Supply::default() }
}

proptest! {
    /// Whatever is asked for in whatever order, what is held back stays within the harvest.
    #[test]
    fn what_is_let_in_never_exceeds_the_harvest(harvest in 0_u64..1000, asked in prop::collection::vec(1_u64..300, 0..20)) {
        let mut held = 0;
        for bytes in asked {
            if admit("h", bytes, &supply(harvest, held), 0).is_ok() {
                held += bytes;
            }
            prop_assert!(held <= harvest);
        }
    }

    /// The leases of one consumer hold back together what one lease of their sum would.
    #[test]
    fn no_byte_of_a_consumer_counts_twice(leases in prop::collection::vec(0_u64..100, 1..6), rss in 0_u64..600) {
        let mut before = 0;
        let mut held = 0;
        for bytes in &leases {
            held += held_back(LeaseState::Live, *bytes, Some(rss), before);
            before += bytes;
        }
        prop_assert_eq!(held, before.saturating_sub(rss));
    }
}

#[test]
fn a_lease_holds_back_what_its_consumer_has_not_taken() {
    assert_eq!(held_back(LeaseState::Live, 10, None, 0), 10);
    assert_eq!(held_back(LeaseState::Live, 10, Some(4), 0), 6);
    assert_eq!(held_back(LeaseState::Revoking, 10, Some(40), 0), 0);
    for state in [LeaseState::Revoked, LeaseState::Released, LeaseState::Expired] {
        assert_eq!(held_back(state, 10, None, 0), 0);
    }
}

#[test]
fn a_host_says_why_it_takes_no_lease() {
    let because = |supply: &Supply| admit("h", 5, supply, 10).unwrap_err();
    assert_eq!(because(&Supply::default()), Refusal::UnknownHost("h".to_owned()));
    let mut stale = supply(100, 0);
    stale.harvest.as_mut().unwrap().valid_until_ns = 9;
    assert_eq!(because(&stale), Refusal::Away("h".to_owned()));
    let mut open = supply(100, 0);
    open.harvest.as_mut().unwrap().breaker_open = true;
    assert_eq!(because(&open), Refusal::BreakerOpen("h".to_owned()));
    let gone = Supply { decommissioned: true, ..supply(100, 0) };
    assert_eq!(because(&gone), Refusal::Decommissioned("h".to_owned()));
    let full = Supply { of_consumers: 10, ..supply(100, 86) };
    let Refusal::TooLittle { left, harvest, .. } = because(&full) else { panic!("another refusal") };
    assert_eq!((left, harvest), (4, 90), "what consumers yield is not given away again");
    assert_eq!(admit("h", 14, &supply(100, 86), 10), Ok(()));
}

#[test]
fn one_key_is_one_request() {
    let stored = reservation(5).request_json();
    let retry = Reservation { lease_id: "another".to_owned(), ..reservation(5) };
    assert_eq!(retry.check_same(&stored), Ok(()));
    let other =
        Reservation { consumer: Some(Uuid::from_u128(1)), holder: "bob".to_owned(), ..reservation(6) };
    let Err(Refusal::OtherRequest { fields, .. }) = other.check_same(&stored) else {
        panic!("taken as the same")
    };
    assert_eq!(fields, "bytes, consumer_vm_id, holder");
}

#[test]
fn a_lease_ends_once() {
    let lease = reservation(5).lease(0);
    assert_eq!(ended(&lease, 60 * S - 1), None);
    let over = ended(&lease, 60 * S).unwrap();
    assert_eq!((over.state(), over.ended_at), (LeaseState::Expired, Some(instant_from_ns(60 * S))));
    assert_eq!(ended(&over, i64::MAX), None);
    assert_eq!(released(&over, "ann", 0), Ok(None));

    let notice = under_notice(&lease, "pressure", 30 * S).unwrap();
    assert_eq!(under_notice(&notice, "again", 40 * S), None);
    assert_eq!(ended(&notice, 30 * S - 1), None);
    assert_eq!(ended(&notice, 30 * S).unwrap().state(), LeaseState::Revoked);
    assert_eq!(released(&notice, "ann", 0).unwrap().unwrap().state(), LeaseState::Released);
}

#[test]
fn only_a_live_lease_is_extended_by_its_holder() {
    let lease = reservation(5).lease(0);
    let vm = Uuid::from_u128(7);
    let longer = renewed(&lease, "ann", 90 * S, Some(vm), 10 * S).unwrap();
    assert_eq!(longer.expires_at, Some(instant_from_ns(100 * S)));
    assert_eq!(longer.consumer_vm_id, vm.to_string());
    assert!(renewed(&longer, "", S, Some(vm), 10 * S).is_ok());
    let refused = |holder, consumer, at| renewed(&longer, holder, S, consumer, at).unwrap_err();
    assert!(matches!(refused("bob", None, 0), Refusal::OtherHolder { .. }));
    assert!(matches!(refused("ann", Some(Uuid::from_u128(8)), 0), Refusal::OtherConsumer { .. }));
    assert_eq!(
        refused("ann", None, 100 * S),
        Refusal::Over { lease_id: "l".to_owned(), state: "expired" },
        "though nobody has written that down yet"
    );
    let notice = under_notice(&longer, "pressure", 30 * S).unwrap();
    assert!(matches!(renewed(&notice, "ann", S, None, 0), Err(Refusal::Over { state: "revoking", .. })));
    assert!(released(&longer, "bob", 0).is_err());
}
