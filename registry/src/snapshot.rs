//! Snapshots of models: how they are checked, and how long they are kept.

use std::sync::Arc;
use std::time::Duration;

use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;
use sha2::{Digest, Sha256};

use crate::store::Store;
use crate::time::now_to_ns;

/// How often old snapshots are looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(5);

/// A predictor forgets a machine that was not read for a day; after a week its model says nothing of what it will be.
const KEPT_NS: i64 = 7 * 86_400 * 1_000_000_000;

/// The checksum of a state: SHA-256.
#[must_use]
pub fn checksum(state: &[u8]) -> [u8; 32] {
    Sha256::digest(state).into()
}

/// Removes snapshots that were taken more than a week ago by the mesh clock, until it is told to stop.
pub(crate) async fn prune(store: Arc<impl Store>, clock: MeshClock, stop: Stop) {
    while !stop.is_requested() {
        let before_ns = now_to_ns(clock.now()).saturating_sub(KEPT_NS);
        let pause = match store.prune_snapshots(before_ns).await {
            Ok(0) => PRUNE_EVERY,
            Ok(_) => Duration::from_millis(20),
            Err(error) => {
                tracing::warn!(%error, "cannot remove old snapshots: {error}");
                PRUNE_EVERY
            }
        };
        tokio::select! {
            () = stop.requested() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
