//! The leases that hold memory of the fleet, as this predictor has heard of them: whose memory is not harvested again, and how much of a
//! host is spent.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{Lease, LeaseState};

/// Leases that hold, by id. Until they are known nobody counts as a consumer; the registry gives nothing of a consumer away in any case.
#[derive(Clone, Debug, Default)]
pub struct LeaseSet {
    known: bool,
    holding: BTreeMap<String, Holding>,
    /// How many leases each machine consumes.
    consumers: BTreeMap<String, u32>,
    /// Bytes under lease, by host.
    leased: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Holding {
    host_id: String,
    consumer: String,
    bytes: u64,
}

impl LeaseSet {
    /// An empty set that is complete: what it does not have does not hold.
    #[must_use]
    pub fn complete() -> Self {
        Self { known: true, ..Self::default() }
    }

    /// Takes a lease as it is now.
    pub fn apply(&mut self, lease: &Lease) {
        if let Some(before) = self.holding.remove(&lease.lease_id) {
            if let Some(leased) = self.leased.get_mut(&before.host_id) {
                *leased -= before.bytes;
            }
            if let Some(count) = self.consumers.get_mut(&before.consumer) {
                *count -= 1;
            }
            self.consumers.retain(|_, count| *count > 0);
            self.leased.retain(|_, leased| *leased > 0);
        }
        if !matches!(lease.state(), LeaseState::Live | LeaseState::Revoking) {
            return;
        }
        let consumer = lease.consumer_vm_id.clone();
        if !consumer.is_empty() {
            *self.consumers.entry(consumer.clone()).or_default() += 1;
        }
        *self.leased.entry(lease.host_id.clone()).or_default() += lease.bytes;
        let holding = Holding { host_id: lease.host_id.clone(), consumer, bytes: lease.bytes };
        self.holding.insert(lease.lease_id.clone(), holding);
    }

    /// Whether a machine uses memory that was leased for it.
    #[must_use]
    pub fn is_consumer(&self, vm_id: &str) -> bool {
        self.consumers.contains_key(vm_id)
    }

    /// Bytes of a host under lease; `None` before the registry was heard.
    #[must_use]
    pub fn leased_bytes(&self, host_id: &str) -> Option<u64> {
        self.known.then(|| self.leased.get(host_id).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str, consumer: &str, state: LeaseState) -> Lease {
        Lease {
            lease_id: id.to_owned(),
            host_id: "h".to_owned(),
            consumer_vm_id: consumer.to_owned(),
            bytes: 10,
            state: state.into(),
            ..Lease::default()
        }
    }

    #[test]
    fn a_machine_consumes_until_its_last_lease_is_over() {
        let mut set = LeaseSet::complete();
        for id in ["a", "b"] {
            set.apply(&lease(id, "", LeaseState::Live));
            set.apply(&lease(id, "vm", LeaseState::Live));
        }
        assert!(set.is_consumer("vm") && !set.is_consumer(""));
        assert_eq!((set.leased_bytes("h"), set.leased_bytes("i")), (Some(20), Some(0)));
        set.apply(&lease("a", "vm", LeaseState::Revoking));
        assert_eq!(set.leased_bytes("h"), Some(20), "under notice it still holds");
        set.apply(&lease("a", "vm", LeaseState::Revoked));
        assert!(set.is_consumer("vm"));
        set.apply(&lease("b", "vm", LeaseState::Released));
        set.apply(&lease("b", "vm", LeaseState::Released));
        assert!(!set.is_consumer("vm"));
        assert_eq!(set.leased_bytes("h"), Some(0));
    }

    #[test]
    fn before_the_registry_was_heard_nothing_is_said() {
        let mut set = LeaseSet::default();
        set.apply(&lease("a", "vm", LeaseState::Live));
        assert_eq!(set.leased_bytes("h"), None);
        assert!(set.is_consumer("vm"));
    }
}
