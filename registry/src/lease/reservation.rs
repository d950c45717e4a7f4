//! A lease that is asked for, and why it may be refused.

use memharvest_proto::registry::v1::{Lease, LeaseState};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::time::instant_from_ns;

/// A lease that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The id that it will have.
    pub lease_id: String,
    /// The host.
    pub host_id: String,
    /// How much.
    pub bytes: u64,
    /// For how long, in nanoseconds.
    pub ttl_ns: i64,
    /// Who will hold it.
    pub holder: String,
    /// Who asks, for the audit log. A retry is the same whoever sends it.
    pub author: String,
    /// The key of the request; empty: none.
    pub idempotency_key: String,
    /// The machine that will use it.
    pub consumer: Option<Uuid>,
}

impl Reservation {
    /// The lease as it begins.
    #[must_use]
    pub fn lease(&self, store_ns: i64) -> Lease {
        Lease {
            lease_id: self.lease_id.clone(),
            host_id: self.host_id.clone(),
            consumer_vm_id: self.consumer.map(|vm| vm.to_string()).unwrap_or_default(),
            bytes: self.bytes,
            state: LeaseState::Live.into(),
            holder: self.holder.clone(),
            expires_at: Some(instant_from_ns(store_ns.saturating_add(self.ttl_ns))),
            idempotency_key: self.idempotency_key.clone(),
            created_at: Some(instant_from_ns(store_ns)),
            held_back_bytes: 0,
            revoke_reason: String::new(),
            revoke_at: None,
            ended_at: None,
        }
    }

    /// What was asked for, as JSON: two requests with one key must agree in it.
    #[must_use]
    pub fn request_json(&self) -> String {
        self.request().to_string()
    }

    fn request(&self) -> Value {
        json!({
            "host_id": self.host_id,
            "bytes": self.bytes,
            "ttl": format!("{} ns", self.ttl_ns),
            "holder": self.holder,
            "consumer_vm_id": self.consumer.map(|vm| vm.to_string()),
        })
    }

    /// Makes sure that a lease of the same key was asked for by the same request, given as [`Reservation::request_json`] wrote it.
    ///
    /// # Errors
    /// [`Refusal::OtherRequest`] with the fields that differ.
    pub fn check_same(&self, stored_json: &str) -> Result<(), Refusal> {
        let stored: Map<String, Value> = serde_json::from_str(stored_json).unwrap_or_default();
        let Value::Object(given) = self.request() else { return Ok(()) };
        let differ: Vec<&str> = given
            .iter()
            .filter(|(field, value)| stored.get(*field) != Some(value))
            .map(|(field, _)| field.as_str())
            .collect();
        if differ.is_empty() {
            return Ok(());
        }
        Err(Refusal::OtherRequest { key: self.idempotency_key.clone(), fields: differ.join(", ") })
    }
}

/// Why a lease is not made or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has said what the host yields.
    #[error("host {0} is not known: no predictor has told its harvest")]
    UnknownHost(String),
    /// What was said does not hold any more.
    #[error(
        "host {0} takes no new lease: its harvest is out of date, since its predictor or collector is away"
    )]
    Away(String),
    /// The circuit breaker forbids it.
    #[error("host {0} takes no new lease: its circuit breaker is open")]
    BreakerOpen(String),
    /// An operator took the host out of service.
    #[error("host {0} takes no new lease: it is decommissioned")]
    Decommissioned(String),
    /// There is not enough.
    #[error(
        "host {host_id} has {left} bytes left to lease, not {asked}: of {harvest} bytes of harvest, leases hold back {held_back}"
    )]
    TooLittle {
        /// The host.
        host_id: String,
        /// What was asked for.
        asked: u64,
        /// What is left.
        left: u64,
        /// What can be harvested.
        harvest: u64,
        /// What leases hold back.
        held_back: u64,
    },
    /// The key stands for another request.
    #[error("idempotency_key {key} was used for another request: {fields} differ; use a key of its own")]
    OtherRequest {
        /// The key.
        key: String,
        /// The fields that differ.
        fields: String,
    },
    /// Somebody else holds it.
    #[error("lease {lease_id} is held by {holder}, not by {given}")]
    OtherHolder {
        /// The lease.
        lease_id: String,
        /// Who holds it.
        holder: String,
        /// Who asked.
        given: String,
    },
    /// Its consumer has been named already.
    #[error("lease {lease_id} has a consumer, {consumer}; another one needs a lease of its own")]
    OtherConsumer {
        /// The lease.
        lease_id: String,
        /// The machine.
        consumer: String,
    },
    /// It cannot be extended any more.
    #[error("lease {lease_id} is {state}: reserve anew")]
    Over {
        /// The lease.
        lease_id: String,
        /// Its state, as a word.
        state: &'static str,
    },
}
