//! What the shard remembers beyond its own life: every host's state in the snapshot folder, written on an interval and
//! at the end, and read at the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memharvest_proto::registry::v1::{ModelSnapshot, Violation};
use memharvest_services::shutdown::Stop;
use tokio::sync::Mutex as AsyncMutex;

use super::{Shard, lock};
use crate::convert::timestamp;
use crate::domain::Seconds;
use crate::host::HostState;
use crate::metrics::PredictorMetrics;
use crate::snapshot::folder::{Folder, Found};
use crate::snapshot::{self, SnapshotError};
use crate::state_file::StateFileError;

/// Before a host's id in the name of its file.
const HOST: &str = "host-";
/// The file of what all hosts share.
const SHARED: &str = "shared";
/// What stands where a machine's snapshot names its model.
const SHARED_MODEL: &str = "shared-v1";

/// Where the shard's memory rests. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: Folder,
    metrics: PredictorMetrics,
    /// The reading that each host was saved with.
    saved: Arc<Mutex<HashMap<String, Seconds>>>,
    /// One writes at a time: the last save of a process that ends waits for the one that the interval began.
    writing: Arc<AsyncMutex<()>>,
}

impl Memory {
    /// The memory in a folder.
    #[must_use]
    pub fn new(folder: Folder, metrics: PredictorMetrics) -> Self {
        Self { folder, metrics, saved: Arc::default(), writing: Arc::default() }
    }

    /// Where it is counted.
    #[must_use]
    pub const fn metrics(&self) -> &PredictorMetrics {
        &self.metrics
    }

    /// Forgets a host.
    pub(super) async fn forget(&self, host_id: &str) {
        lock(&self.saved).remove(host_id);
        let name = format!("{HOST}{host_id}");
        if let Err(error) = self.blocking(move |folder| folder.remove(&name)).await {
            tracing::warn!(host = host_id, %error, "the snapshot of a forgotten host cannot be removed");
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || work(&folder)).await.map_err(std::io::Error::other)?
    }

    pub(super) fn refuse(&self, file: &str, who: &str, error: &SnapshotError) {
        self.metrics.refused(1);
        tracing::error!(file, machine = who, %error, "a snapshot is refused: what it is of starts cold");
    }
}

impl Shard {
    /// Brings back what an earlier life of this process has saved. `open` are the violations that the ledger has open;
    /// those that nothing can judge any more are closed.
    ///
    /// # Errors
    /// When the state file cannot be written. Snapshots that cannot be used are no error: they are refused aloud.
    pub async fn restore(&self, open: Vec<Violation>) -> Result<(), StateFileError> {
        let mut open: BTreeMap<_, _> =
            open.into_iter().map(|violation| (violation.violation_id.clone(), violation)).collect();
        let names = self.memory.blocking(Folder::names).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the snapshots cannot be listed: every machine starts cold");
            Vec::new()
        });
        let (mut hosts, mut machines) = (0, 0);
        for name in names {
            let Ok(found) = self.memory.blocking(move |folder| Ok(folder.read(&name))).await else {
                continue;
            };
            if let Some(error) = &found.error {
                self.memory.refuse(&found.name, "", error);
            }
            if found.name == SHARED {
                self.restore_shared(&found);
            } else if let Some(host_id) = found.name.strip_prefix(HOST) {
                let (restored, too_old) = self.restore_host(host_id, &found, &mut open);
                if too_old {
                    self.memory.forget(host_id).await;
                }
                hosts += usize::from(restored > 0);
                machines += restored;
            }
        }
        if machines > 0 {
            tracing::info!(hosts, machines, "machines go on where they were left");
        }
        self.close_orphans(open.into_values().collect()).await
    }

    /// Saves on an interval until told to stop.
    pub async fn keep_saving(self, every: Duration, stop: Stop) {
        loop {
            tokio::select! { () = tokio::time::sleep(every) => {} () = stop.requested() => return }
            self.save().await;
        }
    }

    /// Saves every host that was read since it was last saved. States are written down under their lock and brought to
    /// the folder outside it.
    pub async fn save(&self) {
        let _alone = self.memory.writing.lock().await;
        for (host_id, host) in self.all() {
            let (snapshots, read_at) = {
                let state = host.lock().await;
                let Some(read_at) = state.read_at() else { continue };
                if lock(&self.memory.saved).get(&host_id).is_some_and(|saved| *saved >= read_at) {
                    continue;
                }
                (state.snapshots(), read_at)
            };
            if self.write(format!("{HOST}{host_id}"), snapshots).await {
                lock(&self.memory.saved).insert(host_id, read_at);
            }
            tokio::task::yield_now().await;
        }
        lock(&self.budgets).forget(self.now());
        let shared = (lock(&self.prices).clone(), lock(&self.budgets).clone());
        match snapshot::encode(&shared) {
            Ok(state) => {
                let snapshot = ModelSnapshot {
                    model_version: SHARED_MODEL.to_owned(),
                    taken_at: Some(timestamp(self.now())),
                    state,
                    ..ModelSnapshot::default()
                };
                self.write(SHARED.to_owned(), vec![snapshot]).await;
            }
            Err(error) => tracing::error!(%error, "what all hosts share cannot be saved"),
        }
    }

    async fn write(&self, name: String, snapshots: Vec<ModelSnapshot>) -> bool {
        let shown = name.clone();
        let written = self.memory.blocking(move |folder| {
            let sealed: Vec<_> = snapshots.into_iter().map(snapshot::seal).collect();
            folder.write(&name, &sealed)
        });
        if let Err(error) = written.await {
            self.memory.metrics.unsaved();
            tracing::error!(file = shown, %error, "a snapshot cannot be written; check the data folder");
            return false;
        }
        true
    }

    /// How many machines came back, and whether all that was found was of no use any more.
    fn restore_host(
        &self,
        host_id: &str,
        found: &Found,
        open: &mut BTreeMap<String, Violation>,
    ) -> (usize, bool) {
        let mut restored = HostState::restore(host_id, &found.snapshots, self.model, self.now());
        for (vm_id, error) in &restored.refused {
            self.memory.refuse(&found.name, vm_id, error);
        }
        self.memory.metrics.restored(restored.machines);
        let old = restored.refused.iter().filter(|(_, error)| matches!(error, SnapshotError::TooOld)).count();
        let too_old = old > 0 && old == found.snapshots.len();
        if restored.host.read_at().is_some() {
            restored.host.reconcile(open);
            lock(&self.hosts).insert(host_id.to_owned(), Arc::new(AsyncMutex::new(restored.host)));
        }
        (restored.machines, too_old)
    }

    fn restore_shared(&self, found: &Found) {
        let Some(snapshot) = found.snapshots.first() else { return };
        match snapshot::unseal(snapshot, SHARED_MODEL) {
            Ok((prices, budgets)) => {
                *lock(&self.prices) = prices;
                *lock(&self.budgets) = budgets;
            }
            Err(error) => self.memory.refuse(&found.name, "", &error),
        }
    }
}
