//! Callers that were refused, in the audit log.

use std::sync::Arc;

use jiff::Timestamp;
use memharvest_services::caller::Refusal;
use memharvest_services::shutdown::Stop;
use tokio::sync::mpsc;

use crate::store::{Change, Store};
use crate::time::now_to_ns;

/// Refusals that wait to be written; beyond it they are counted only.
pub(crate) const WAITING: usize = 64;

/// Writes them down until the process stops.
pub(crate) async fn write_down(store: Arc<impl Store>, mut refused: mpsc::Receiver<Refusal>, stop: Stop) {
    loop {
        let refusal = tokio::select! {
            refusal = refused.recv() => refusal,
            () = stop.requested() => return,
        };
        let Some(Refusal { who, what, why }) = refusal else { return };
        let change = Change { author: who, reason: why, at_ns: now_to_ns(Timestamp::now()) };
        if let Err(error) = store.note_refusal(&what, &change).await {
            tracing::warn!(%error, "a refusal is missing in the audit log: {error}");
        }
    }
}
