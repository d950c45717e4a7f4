//! The values of a boundary, and the bodies that carry them.

use jiff::Timestamp;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::duration_to_proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::{Fairness, HostBasis, Signal, Span};
use crate::wire::span;

/// A struct with every value of a boundary and some fields of its own. (serde cannot flatten a struct into one that
/// refuses unknown fields.)
macro_rules! with_boundary_values {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $($own)*
            /// Kept above the prediction, as a share of it.
            #[schema(minimum = 0, maximum = 10)]
            headroom_ratio: Option<f64>,
            /// Kept above the prediction at least.
            headroom_bytes: Option<u64>,
            /// Never leave a machine less than this.
            floor_bytes: Option<u64>,
            /// Never harvest more than this share of the allocation.
            #[schema(minimum = 0, maximum = 1)]
            max_harvest_ratio: Option<f64>,
            /// Usage above this is a violation of the boundary.
            upper_usage_bytes: Option<u64>,
            /// Usage below this is a violation of the boundary.
            lower_usage_bytes: Option<u64>,
            /// Share of forecasts that may be exceeded, above 0.
            #[schema(exclusive_minimum = 0, maximum = 0.5)]
            target_violation_rate: Option<f64>,
            /// How the target is shared.
            fairness: Option<Fairness>,
            /// How far ahead forecasts reach, from 1s to 24h.
            horizon: Option<Span>,
            /// Only this signal is harvested.
            signal: Option<Signal>,
            /// Nothing is harvested.
            excluded: Option<bool>,
            /// What the host's harvest is made of.
            host_basis: Option<HostBasis>,
            /// Promise violations allowed in 1,000 machine-days; spent: harvest pauses.
            #[schema(minimum = 0)]
            error_budget_per_1000_vm_days: Option<f64>,
        }
    };
}

/// Gives a body with boundary values their form in messages.
macro_rules! values_for_messages {
    ($name:ident) => {
        impl $name {
            /// The values for a message.
            pub(crate) fn values(&self) -> wire::BoundaryValues {
                wire::BoundaryValues {
                    headroom_ratio: self.headroom_ratio,
                    headroom_bytes: self.headroom_bytes,
                    floor_bytes: self.floor_bytes,
                    max_harvest_ratio: self.max_harvest_ratio,
                    upper_usage_bytes: self.upper_usage_bytes,
                    lower_usage_bytes: self.lower_usage_bytes,
                    target_violation_rate: self.target_violation_rate,
                    fairness: self.fairness.map(|word| word.wire().into()),
                    horizon: self.horizon.map(|Span(horizon)| duration_to_proto(horizon)),
                    signal: self.signal.map(|word| word.wire().into()),
                    excluded: self.excluded,
                    host_basis: self.host_basis.map(|word| word.wire().into()),
                    error_budget_per_1000_vm_days: self.error_budget_per_1000_vm_days,
                }
            }
        }
    };
}

with_boundary_values! {
    /// What an operator allows. A null value says nothing at this scope.
    #[derive(Debug, Default, Serialize, ToSchema)]
    BoundaryValues {}
}

with_boundary_values! {
    /// All values of a scope: what is absent or null is no longer said. What a GET answered can be sent back: its
    /// read-only fields are passed over.
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    BoundaryChange {
        /// Must be the scope of the path where it is given.
        pub(super) scope: Option<String>,
        /// Who makes the change; by default the header `x-memharvest-author`, or `anonymous`.
        pub(super) author: Option<String>,
        /// Why.
        pub(super) reason: Option<String>,
        /// Read-only; `If-Match` carries it.
        #[expect(dead_code, reason = "read-only")]
        etag: Option<String>,
        /// Read-only.
        #[expect(dead_code, reason = "read-only")]
        version: Option<u64>,
        /// Read-only.
        #[expect(dead_code, reason = "read-only")]
        updated_at: Option<Timestamp>,
        /// Read-only.
        #[expect(dead_code, reason = "read-only")]
        deleted: Option<bool>,
    }
}

with_boundary_values! {
    /// A boundary to try out on stored history: its values take the place of all that is set at the scope.
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    Simulation {
        /// How far back from `to`, unless `from` says; 168h by default, at most 9600h.
        pub(super) lookback: Option<Span>,
        /// History from here; what lies before it warms the machines up and counts nowhere.
        pub(super) from: Option<Timestamp>,
        /// Until here; now by default.
        pub(super) to: Option<Timestamp>,
        /// Machines in the answer at most: those for which most changes. 100 by default.
        #[schema(minimum = 1, maximum = 10000)]
        pub(super) max_vms: Option<u16>,
    }
}

values_for_messages!(BoundaryChange);
values_for_messages!(Simulation);

impl From<wire::BoundaryValues> for BoundaryValues {
    fn from(values: wire::BoundaryValues) -> Self {
        Self {
            headroom_ratio: values.headroom_ratio,
            headroom_bytes: values.headroom_bytes,
            floor_bytes: values.floor_bytes,
            max_harvest_ratio: values.max_harvest_ratio,
            upper_usage_bytes: values.upper_usage_bytes,
            lower_usage_bytes: values.lower_usage_bytes,
            target_violation_rate: values.target_violation_rate,
            fairness: values.fairness.and_then(Fairness::of),
            horizon: span(values.horizon.as_ref()).map(Span),
            signal: values.signal.and_then(Signal::of),
            excluded: values.excluded,
            host_basis: values.host_basis.and_then(HostBasis::of),
            error_budget_per_1000_vm_days: values.error_budget_per_1000_vm_days,
        }
    }
}
