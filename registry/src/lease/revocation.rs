//! Which leases are taken back: only on evidence, the newest first, and no more than it takes. Pure.

use memharvest_proto::registry::v1::{Lease, LeaseState};

/// Why leases of a host may be taken back. A harvest that falls by itself is none, nor is silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// An operator took the host out of service.
    Decommissioned,
    /// An operator excluded the host from harvesting, by this scope.
    Excluded(String),
    /// The host's circuit breaker is open: it is under pressure, or too many of its forecasts fail.
    Pressure,
    /// A machine of the host has broken its promise.
    BrokenPromise(String),
    /// An operator has changed a boundary that speaks for the host: its scope.
    Cut(String),
}

impl Evidence {
    /// The evidence as a sentence, for the lease and the audit log.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Decommissioned => "the host is decommissioned".to_owned(),
            Self::Excluded(scope) => format!("the host is excluded from harvesting by {scope}"),
            Self::Pressure => "the host's circuit breaker is open".to_owned(),
            Self::BrokenPromise(violation) => format!("a promise was broken: violation {violation}"),
            Self::Cut(scope) => format!("the boundary of {scope} was changed"),
        }
    }
}

/// What the live leases among these hold back above what can be harvested.
#[must_use]
pub fn excess(leases: &[Lease], harvest_bytes: u64) -> u64 {
    let live = leases.iter().filter(|lease| lease.state() == LeaseState::Live);
    live.map(|lease| lease.held_back_bytes).sum::<u64>().saturating_sub(harvest_bytes)
}

/// The leases of one host, given newest first, that are to be taken back.
///
/// A host out of service keeps none. Otherwise leases go until the rest holds back no more than `harvest_bytes`; those that hold nothing
/// back are passed over, since taking them back would give nothing. Where the breaker is open and nothing can be harvested although no
/// lease holds anything back, the consumers themselves are the pressure: then the newest lease goes, one at a time.
#[must_use]
pub fn taken_back<'a>(newest_first: &'a [Lease], evidence: &Evidence, harvest_bytes: u64) -> Vec<&'a Lease> {
    let live = || newest_first.iter().filter(|lease| lease.state() == LeaseState::Live);
    if matches!(evidence, Evidence::Decommissioned | Evidence::Excluded(_)) {
        return live().collect();
    }
    let mut left = excess(newest_first, harvest_bytes);
    let mut taken = Vec::new();
    for lease in live().filter(|lease| lease.held_back_bytes > 0) {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(lease.held_back_bytes);
        taken.push(lease);
    }
    let under_way = newest_first.iter().any(|lease| lease.state() == LeaseState::Revoking);
    if taken.is_empty() && !under_way && *evidence == Evidence::Pressure && harvest_bytes == 0 {
        taken.extend(live().next());
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(id: &str, held_back_bytes: u64, state: LeaseState) -> Lease {
        Lease { lease_id: id.to_owned(), held_back_bytes, state: state.into(), ..Lease::default() }
    }

    fn ids(taken: &[&Lease]) -> Vec<String> {
        taken.iter().map(|lease| lease.lease_id.clone()).collect()
    }

    #[test]
    fn the_newest_go_first_until_the_rest_fits() {
        let leases = [
            lease("new", 10, LeaseState::Live),
            lease("going", 50, LeaseState::Revoking),
            lease("used", 0, LeaseState::Live),
            lease("older", 10, LeaseState::Live),
            lease("oldest", 10, LeaseState::Live),
        ];
        let cut = Evidence::Cut("fleet".to_owned());
        assert_eq!(ids(&taken_back(&leases, &cut, 30)), [""; 0], "it fits: what is going does not count");
        assert_eq!(ids(&taken_back(&leases, &cut, 29)), ["new"]);
        assert_eq!(ids(&taken_back(&leases, &cut, 19)), ["new", "older"]);
        assert_eq!(
            ids(&taken_back(&leases, &Evidence::BrokenPromise("v".to_owned()), 0)),
            ["new", "older", "oldest"]
        );
        assert_eq!(
            ids(&taken_back(&leases, &Evidence::Decommissioned, 99)),
            ["new", "used", "older", "oldest"]
        );
    }

    #[test]
    fn consumers_that_are_the_pressure_themselves_go_one_at_a_time() {
        let mut leases = [lease("new", 0, LeaseState::Live), lease("old", 0, LeaseState::Live)];
        assert_eq!(ids(&taken_back(&leases, &Evidence::Pressure, 0)), ["new"]);
        assert!(taken_back(&leases, &Evidence::Pressure, 1).is_empty());
        assert!(taken_back(&leases, &Evidence::BrokenPromise("v".to_owned()), 0).is_empty());
        leases[0].set_state(LeaseState::Revoking);
        assert!(taken_back(&leases, &Evidence::Pressure, 0).is_empty(), "one is on its way");
    }

    proptest! {
        #[test]
        fn what_stays_fits_and_one_less_would_not_do(held in prop::collection::vec(0_u64..50, 0..12), harvest in 0_u64..300) {
            let leases: Vec<Lease> = held.iter().enumerate().map(|(i, held)| lease(&i.to_string(), *held, LeaseState::Live)).collect();
            let evidence = Evidence::Cut("fleet".to_owned());
            let taken = ids(&taken_back(&leases, &evidence, harvest));
            let rest = |gone: &[String]| -> u64 {
                leases.iter().filter(|lease| !gone.contains(&lease.lease_id)).map(|lease| lease.held_back_bytes).sum()
            };
            prop_assert!(rest(&taken) <= harvest);
            if let Some((_, fewer)) = taken.split_last() {
                prop_assert!(rest(fewer) > harvest);
            }
        }
    }
}
