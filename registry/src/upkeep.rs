//! What the registry does beside answering: it writes heartbeats down, merges old history and removes the oldest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;

use crate::metrics::RegistryMetrics;
use crate::presence::Presence;
use crate::store::{AgentStore, Result, Store, StoredAgent};
use crate::time::now_to_ns;
use crate::token::LastUse;

/// How often old history is looked for.
const LOOK_EVERY: Duration = Duration::from_mins(5);

/// Between two steps, so that writers get their turn.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);

/// Agents read at once.
const AGENTS_AT_ONCE: u32 = 1000;

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
            let mut presence = self.presence();
            presence.heartbeat(&self.agent_id, &self.instance_id, Vec::new(), now);
            presence.take_unwritten()
        };
        if let Err(error) = self.store.checkpoint_agents(&heard, now).await {
            self.presence().put_back(&heard);
            return Err(error);
        }
        let used = self.used.take();
        if let Err(error) = self.store.tokens_used(&used).await {
            self.used.put_back(&used);
            return Err(error);
        }
        // What other registries on the same store have heard and taken down since.
        let agents = all_agents(self.store.as_ref()).await?;
        self.presence().learn(&agents, now_to_ns(Timestamp::now()));
        self.metrics.set_stored(self.store.stored().await?);
        Ok(())
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All agents that are stored.
pub(crate) async fn all_agents(store: &impl AgentStore) -> Result<Vec<StoredAgent>> {
    let mut agents: Vec<StoredAgent> = Vec::new();
    loop {
        let after = agents.last().map_or_else(String::new, |stored| stored.agent.agent_id.clone());
        let found = store.agents(&after, &[], AGENTS_AT_ONCE).await?;
        if found.is_empty() {
            return Ok(agents);
        }
        agents.extend(found);
    }
}

/// Merges and removes old history by the mesh clock, in small steps.
pub(crate) struct KeepHistory<S> {
    pub(crate) store: Arc<S>,
    pub(crate) clock: MeshClock,
    /// Older windows are merged to hourly ones.
    pub(crate) hourly_after: Duration,
    /// Older windows are removed.
    pub(crate) retention: Duration,
    pub(crate) metrics: RegistryMetrics,
}

impl<S: Store> KeepHistory<S> {
    pub(crate) async fn run(self, stop: Stop) {
        while !stop.is_requested() {
            match self.step().await {
                Ok(true) => pause(&stop, BETWEEN_STEPS).await,
                Ok(false) => pause(&stop, LOOK_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot merge or remove old history: {error}");
                    pause(&stop, LOOK_EVERY).await;
                }
            }
        }
    }

    /// Takes one step; tells whether there may be another.
    async fn step(&self) -> Result<bool> {
        let now_s = self.clock.now().as_second();
        let ago =
            |length: Duration| now_s.saturating_sub(i64::try_from(length.as_secs()).unwrap_or(i64::MAX));
        self.store.prepare_history(now_s).await?;
        // What is to go need not be merged first.
        let gone = self.store.prune_history(ago(self.retention)).await?;
        if gone > 0 {
            self.metrics.pruned(gone);
            return Ok(true);
        }
        let folded = self.store.fold_history(ago(self.hourly_after)).await?;
        self.metrics.folded(folded);
        Ok(folded > 0)
    }
}
