//! What the registry does beside answering: it writes heartbeats down and prunes history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;

use crate::metrics::RegistryMetrics;
use crate::presence::Presence;
use crate::store::{Result, Store};
use crate::time::now_to_ns;
use crate::token::LastUse;

/// How often old history is looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(5);

/// Between two steps of pruning, so that writers get their turn.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);

async fn pause(stop: &Stop, length: Duration) {
    tokio::select! {
        () = stop.requested() => {}
        () = tokio::time::sleep(length) => {}
    }
}

/// The registry's own sign of life, and all heartbeats in one transaction; the last time when the process stops.
pub(crate) struct Checkpoints<S> {
    pub(crate) store: Arc<S>,
    pub(crate) presence: Arc<Mutex<Presence>>,
    /// Which tokens were used.
    pub(crate) used: LastUse,
    pub(crate) metrics: RegistryMetrics,
    /// The registry itself.
    pub(crate) agent_id: String,
    pub(crate) instance_id: String,
}

impl<S: Store> Checkpoints<S> {
    pub(crate) async fn run(self, stop: Stop, every: Duration) {
        loop {
            if let Err(error) = self.write_down().await {
                self.metrics.checkpoint_failed();
                tracing::warn!(%error, "cannot write heartbeats down: {error}");
            }
            if stop.is_requested() {
                return;
            }
            pause(&stop, every).await;
        }
    }

    async fn write_down(&self) -> Result<()> {
        let now = now_to_ns(Timestamp::now());
        let heard = {
            let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
            presence.heartbeat(&self.agent_id, &self.instance_id, Vec::new(), now);
            presence.take_unwritten()
        };
        self.store.checkpoint_agents(&heard, now).await?;
        let used = self.used.take();
        if let Err(error) = self.store.tokens_used(&used).await {
            self.used.put_back(&used);
            return Err(error);
        }
        self.metrics.set_stored(self.store.stored().await?);
        Ok(())
    }
}

/// Removes history that is older than `retention` by the mesh clock, in small steps.
pub(crate) async fn prune(
    store: Arc<impl Store>,
    clock: MeshClock,
    retention: Duration,
    metrics: RegistryMetrics,
    stop: Stop,
) {
    let retention_s = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    while !stop.is_requested() {
        let before_s = clock.now().as_second().saturating_sub(retention_s);
        match store.prune_history(before_s).await {
            Ok(0) => pause(&stop, PRUNE_EVERY).await,
            Ok(gone) => {
                metrics.pruned(gone);
                pause(&stop, BETWEEN_STEPS).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot prune history: {error}");
                pause(&stop, PRUNE_EVERY).await;
            }
        }
    }
}
