//! What leases do, without a store or a clock: what they hold back, whether a new one fits, how each goes from state to state.
//!
//! A lease is `live` until it is given back (`released`), runs out (`expired`) or is taken back: then it is `revoking` for the length of
//! its notice and `revoked` after it. The last three are ends.

use memharvest_proto::registry::v1::{Lease, LeaseState};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::time::{instant_from_ns, instant_to_ns};

pub mod keeper;
mod reservation;
pub mod revocation;

pub use reservation::{Refusal, Reservation};

/// Time to live where a request does not say.
pub const USUAL_TTL_NS: i64 = 15 * 60 * 1_000_000_000;

/// Longest time to live, in seconds: 30 days.
pub const LONGEST_TTL_S: i64 = 30 * 86_400;

/// The newest window of a consumer counts as long as it began at most so many seconds before now: three windows. Of an older one nothing
/// is known, and the lease holds all of its bytes back.
pub const USAGE_FRESH_S: i64 = 900;

/// The time on two clocks, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The store's clock, which leases run on.
    pub store_ns: i64,
    /// The mesh clock, which readings and harvest run on.
    pub mesh_ns: i64,
}

impl Moment {
    /// The earliest begin of a consumer's window that still counts, in seconds since 1970.
    #[must_use]
    pub fn usage_counts_from_s(self) -> i64 {
        self.mesh_ns.div_euclid(1_000_000_000) - USAGE_FRESH_S
    }
}

/// What leases of a host draw on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvest {
    /// What its predictor told last.
    pub bytes: u64,
    /// Until when that counts, in nanoseconds since 1970 of the mesh clock.
    pub valid_until_ns: i64,
    /// Whether its circuit breaker forbids new leases.
    pub breaker_open: bool,
}

/// A host as a new lease finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// `None`: nobody told any.
    pub harvest: Option<Harvest>,
    /// What leases on it hold back.
    pub held_back: u64,
    /// What of the harvest comes from consumers of leases: it is not given away again.
    pub of_consumers: u64,
    /// Whether an operator took it out of service.
    pub decommissioned: bool,
}

/// What a lease still holds back: its bytes, less what its consumer has taken. `before` is what older leases of the same consumer on the
/// same host cover of its resident set, so that no byte of it counts twice. An unknown resident set is 0.
#[must_use]
pub fn held_back(state: LeaseState, bytes: u64, consumer_rss: Option<u64>, before: u64) -> u64 {
    match state {
        LeaseState::Live | LeaseState::Revoking => {
            bytes.saturating_sub(consumer_rss.unwrap_or(0).saturating_sub(before))
        }
        _ => 0,
    }
}

/// Whether a lease of so many bytes fits on a host.
///
/// # Errors
/// The [`Refusal`] that says why not.
pub fn admit(host_id: &str, bytes: u64, supply: &Supply, mesh_ns: i64) -> Result<(), Refusal> {
    if supply.decommissioned {
        return Err(Refusal::Decommissioned(host_id.to_owned()));
    }
    let harvest = supply.harvest.ok_or_else(|| Refusal::UnknownHost(host_id.to_owned()))?;
    if harvest.valid_until_ns < mesh_ns {
        return Err(Refusal::Away(host_id.to_owned()));
    }
    if harvest.breaker_open {
        return Err(Refusal::BreakerOpen(host_id.to_owned()));
    }
    let harvestable = harvest.bytes.saturating_sub(supply.of_consumers);
    let left = harvestable.saturating_sub(supply.held_back);
    if bytes > left {
        return Err(Refusal::TooLittle {
            host_id: host_id.to_owned(),
            asked: bytes,
            left,
            harvest: harvestable,
            held_back: supply.held_back,
        });
    }
    Ok(())
}

/// Whether it holds memory back.
#[must_use]
pub fn holds(lease: &Lease) -> bool {
    matches!(lease.state(), LeaseState::Live | LeaseState::Revoking)
}

fn reached(at: Option<&prost_types::Timestamp>, store_ns: i64) -> bool {
    at.and_then(instant_to_ns).is_some_and(|at| at <= store_ns)
}

fn end(lease: &Lease, state: LeaseState, store_ns: i64) -> Lease {
    Lease {
        state: state.into(),
        ended_at: Some(instant_from_ns(store_ns)),
        held_back_bytes: 0,
        ..lease.clone()
    }
}

/// The lease as it is once its time is over; `None` while it goes on.
#[must_use]
pub fn ended(lease: &Lease, store_ns: i64) -> Option<Lease> {
    if !holds(lease) {
        return None;
    }
    if reached(lease.expires_at.as_ref(), store_ns) {
        return Some(end(lease, LeaseState::Expired, store_ns));
    }
    let revoked = lease.state() == LeaseState::Revoking && reached(lease.revoke_at.as_ref(), store_ns);
    revoked.then(|| end(lease, LeaseState::Revoked, store_ns))
}

fn check_holder(lease: &Lease, holder: &str) -> Result<(), Refusal> {
    if holder.is_empty() || holder == lease.holder {
        return Ok(());
    }
    Err(Refusal::OtherHolder {
        lease_id: lease.lease_id.clone(),
        holder: lease.holder.clone(),
        given: holder.to_owned(),
    })
}

/// The lease with a new time to live, and its consumer where it had none.
///
/// # Errors
/// It is over or being revoked, somebody else holds it, or it has another consumer.
pub fn renewed(
    lease: &Lease,
    holder: &str,
    ttl_ns: i64,
    consumer: Option<Uuid>,
    store_ns: i64,
) -> Result<Lease, Refusal> {
    check_holder(lease, holder)?;
    let now = ended(lease, store_ns).unwrap_or_else(|| lease.clone());
    if now.state() != LeaseState::Live {
        return Err(Refusal::Over { lease_id: lease.lease_id.clone(), state: word(now.state()) });
    }
    let consumer = consumer.map(|vm| vm.to_string()).unwrap_or_default();
    if !consumer.is_empty() && !now.consumer_vm_id.is_empty() && consumer != now.consumer_vm_id {
        return Err(Refusal::OtherConsumer {
            lease_id: now.lease_id.clone(),
            consumer: now.consumer_vm_id.clone(),
        });
    }
    let consumer_vm_id = if consumer.is_empty() { now.consumer_vm_id.clone() } else { consumer };
    let expires_at = Some(instant_from_ns(store_ns.saturating_add(ttl_ns)));
    Ok(Lease { consumer_vm_id, expires_at, ..now })
}

/// The lease given back; `None` where it has ended already.
///
/// # Errors
/// Somebody else holds it.
pub fn released(lease: &Lease, holder: &str, store_ns: i64) -> Result<Option<Lease>, Refusal> {
    check_holder(lease, holder)?;
    Ok(holds(lease).then(|| end(lease, LeaseState::Released, store_ns)))
}

/// The lease under notice; `None` where it is already, or has ended.
#[must_use]
pub fn under_notice(lease: &Lease, reason: &str, revoke_at_ns: i64) -> Option<Lease> {
    (lease.state() == LeaseState::Live).then(|| Lease {
        state: LeaseState::Revoking.into(),
        revoke_reason: reason.to_owned(),
        revoke_at: Some(instant_from_ns(revoke_at_ns)),
        ..lease.clone()
    })
}

/// The word for a state.
#[must_use]
pub fn word(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Unspecified => "unknown",
        LeaseState::Live => "live",
        LeaseState::Revoking => "revoking",
        LeaseState::Revoked => "revoked",
        LeaseState::Released => "released",
        LeaseState::Expired => "expired",
    }
}

/// A lease for the audit log.
#[must_use]
pub fn audit_json(lease: &Lease) -> String {
    let instant = |at: Option<&prost_types::Timestamp>| {
        let at = at.and_then(instant_to_ns).map(i128::from);
        at.and_then(|ns| jiff::Timestamp::from_nanosecond(ns).ok()).map(|at| at.to_string())
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let all = json!({
        "host_id": lease.host_id,
        "consumer_vm_id": text(&lease.consumer_vm_id),
        "bytes": lease.bytes,
        "state": word(lease.state()),
        "holder": lease.holder,
        "expires_at": instant(lease.expires_at.as_ref()),
        "revoke_at": instant(lease.revoke_at.as_ref()),
        "revoke_reason": text(&lease.revoke_reason),
    });
    let Value::Object(all) = all else { return String::new() };
    Value::Object(all.into_iter().filter(|(_, value)| !value.is_null()).collect()).to_string()
}

#[cfg(test)]
mod tests;
