//! Instants and lengths of time: as the contract says them, and as the store keeps them (nanoseconds in an `i64`).

use jiff::Timestamp;

/// Nanoseconds since 1970 of an instant; `None` outside of what an `i64` holds (years 1678 to 2262) or where it is malformed.
#[must_use]
pub fn instant_to_ns(at: &prost_types::Timestamp) -> Option<i64> {
    if !(0..1_000_000_000).contains(&at.nanos) {
        return None;
    }
    at.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(at.nanos))
}

/// The instant that lies so many nanoseconds after 1970.
#[must_use]
pub fn instant_from_ns(ns: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0);
    prost_types::Timestamp { seconds: ns.div_euclid(1_000_000_000), nanos }
}

/// Nanoseconds of a length of time; `None` where it is negative, malformed or longer than an `i64` holds (292 years).
#[must_use]
pub fn duration_to_ns(length: &prost_types::Duration) -> Option<i64> {
    if length.seconds < 0 || !(0..1_000_000_000).contains(&length.nanos) {
        return None;
    }
    length.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(length.nanos))
}

/// The length of time of so many nanoseconds.
#[must_use]
pub fn duration_from_ns(ns: i64) -> prost_types::Duration {
    let nanos = i32::try_from(ns % 1_000_000_000).unwrap_or(0);
    prost_types::Duration { seconds: ns / 1_000_000_000, nanos }
}

/// Nanoseconds since 1970 of a clock's time, held within what an `i64` can say.
#[must_use]
pub fn now_to_ns(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The clock's time as the contract says it.
#[must_use]
pub fn instant_from_now(now: Timestamp) -> prost_types::Timestamp {
    instant_from_ns(now_to_ns(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_instant_survives_the_way_to_the_store_and_back(ns in any::<i64>()) {
            prop_assert_eq!(instant_to_ns(&instant_from_ns(ns)), Some(ns));
        }

        #[test]
        fn a_length_survives_the_way_to_the_store_and_back(ns in 0..i64::MAX) {
            prop_assert_eq!(duration_to_ns(&duration_from_ns(ns)), Some(ns));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(instant_to_ns(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        assert_eq!(instant_to_ns(&prost_types::Timestamp { seconds: 0, nanos: -1 }), None);
        assert_eq!(duration_to_ns(&prost_types::Duration { seconds: -1, nanos: 0 }), None);
        assert_eq!(duration_to_ns(&prost_types::Duration { seconds: 0, nanos: 1_000_000_000 }), None);
    }
}
