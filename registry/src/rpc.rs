//! The RPCs, one module a family: each checks its request, asks the store, and answers.

use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::rpc_error::ErrorCode;
use tokio::sync::watch;
use tonic::Status;

use crate::lease::Refusal;
use crate::store::StoreError;
use crate::time::now_to_ns;

pub mod agents;
pub mod audit;
pub mod boundaries;
pub mod harvest;
pub mod leases;
pub mod models;
pub mod tokens;
pub mod violations;

mod error_budgets;
mod harvest_check;
mod violation_check;

/// Changes read at once for a watch.
const CHANGES: u32 = 500;

/// A watch looks at the store this often even if nothing wakes it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The wall clock: what heartbeats, records of changes and watches run on.
fn now_ns() -> i64 {
    now_to_ns(Timestamp::now())
}

/// Waits for a hint that something has changed.
async fn changed(hint: &mut watch::Receiver<u64>) {
    // Out of time, or the store is being closed: in either case the next look at the store tells.
    let _ = tokio::time::timeout(LOOK_AGAIN, hint.changed()).await;
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound(_) => ErrorCode::NotFound,
            StoreError::Stale { .. } => ErrorCode::Aborted,
            StoreError::EtagMissing { .. } | StoreError::Decommissioned(_) => ErrorCode::FailedPrecondition,
            StoreError::Lease(refusal) => match refusal {
                Refusal::UnknownHost(_) => ErrorCode::NotFound,
                Refusal::TooLittle { .. } => ErrorCode::ResourceExhausted,
                Refusal::OtherRequest { .. } => ErrorCode::AlreadyExists,
                Refusal::OtherHolder { .. } => ErrorCode::PermissionDenied,
                Refusal::Away(_)
                | Refusal::BreakerOpen(_)
                | Refusal::Decommissioned(_)
                | Refusal::OtherConsumer { .. }
                | Refusal::Over { .. } => ErrorCode::FailedPrecondition,
            },
            StoreError::TooMany(_) => ErrorCode::InvalidArgument,
            StoreError::Unavailable(_) | StoreError::Conflict => ErrorCode::Unavailable,
            StoreError::Full => ErrorCode::ResourceExhausted,
            StoreError::Failed(_) => ErrorCode::Internal,
        };
        match code {
            ErrorCode::Internal => tracing::error!(%error, "{error}"),
            ErrorCode::Unavailable => tracing::warn!(%error, "{error}"),
            ErrorCode::ResourceExhausted if matches!(error, StoreError::Full) => {
                tracing::warn!(%error, "{error}");
            }
            _ => {}
        }
        code.status(error.to_string())
    }
}
