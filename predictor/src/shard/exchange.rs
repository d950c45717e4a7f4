//! What machines have taught, through the registry: a host that comes from another predictor is warm here at its first
//! reading.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memharvest_proto::registry::v1::model_service_client::ModelServiceClient;
use memharvest_proto::registry::v1::{GetSnapshotsRequest, ModelSnapshot, PutSnapshotsRequest};
use memharvest_services::rpc_client::RpcChannel;
use memharvest_services::rpc_server::MAX_MESSAGE_BYTES;
use memharvest_services::shutdown::Stop;
use tonic::{Code, Status};

use super::{Shard, lock};
use crate::domain::Seconds;
use crate::host::HostState;
use crate::snapshot;

/// How often what was learnt is brought to the registry.
const EVERY: Duration = Duration::from_mins(5);
/// A host is not kept waiting longer than this for what is known of it elsewhere: it starts cold then.
const PATIENCE: Duration = Duration::from_secs(2);
/// Snapshots of one request: far below what a message may hold.
const AT_ONCE: usize = 500;

/// The registry's side of it. Clones share it.
#[derive(Clone, Debug)]
pub struct Exchange {
    client: ModelServiceClient<RpcChannel>,
    /// The registry is of a version that keeps no snapshots.
    absent: Arc<AtomicBool>,
    /// The reading of each host that was brought there last.
    brought: Arc<Mutex<HashMap<String, Seconds>>>,
}

impl Exchange {
    /// The exchange through a registry.
    #[must_use]
    pub fn new(registry: RpcChannel) -> Self {
        let client = ModelServiceClient::new(registry).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Self { client, absent: Arc::default(), brought: Arc::default() }
    }

    async fn of_host(&self, host_id: &str) -> Result<Vec<ModelSnapshot>, Status> {
        let request = GetSnapshotsRequest { host_id: host_id.to_owned(), ..GetSnapshotsRequest::default() };
        let mut client = self.client.clone();
        let asked = async move {
            let mut answers = client.get_snapshots(request).await?.into_inner();
            let mut snapshots = Vec::new();
            while let Some(answer) = answers.message().await? {
                snapshots.extend(answer.snapshots);
            }
            Ok(snapshots)
        };
        let late = |_| Err(Status::deadline_exceeded("no answer within two seconds"));
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
    }

    async fn put(&self, snapshots: &[ModelSnapshot]) -> Result<(), Status> {
        for part in snapshots.chunks(AT_ONCE) {
            self.client.clone().put_snapshots(PutSnapshotsRequest { snapshots: part.to_vec() }).await?;
        }
        Ok(())
    }

    fn failed(&self, status: &Status, what: &str) {
        if status.code() == Code::Unimplemented {
            self.absent.store(true, Ordering::Relaxed);
        } else {
            tracing::warn!(code = ?status.code(), message = status.message(), "{what}");
        }
    }

    fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Relaxed)
    }
}

impl Shard {
    /// Brings what was learnt to the registry on an interval until told to stop.
    pub async fn keep_sharing(self, stop: Stop) {
        loop {
            tokio::select! { () = tokio::time::sleep(EVERY) => {} () = stop.requested() => return }
            self.share().await;
        }
    }

    /// Brings every host that was read since the last time to the registry.
    pub async fn share(&self) {
        for (host_id, host) in self.all() {
            if self.exchange.is_absent() {
                return;
            }
            let (snapshots, read_at) = {
                let state = host.lock().await;
                let Some(read_at) = state.read_at() else { continue };
                if lock(&self.exchange.brought).get(&host_id).is_some_and(|brought| *brought >= read_at) {
                    continue;
                }
                (state.snapshots(), read_at)
            };
            // The host's own part is of use here alone: elsewhere its machines' parts are what is warm.
            let of_machines = snapshots.into_iter().filter(|snapshot| !snapshot.vm_id.is_empty());
            let sealed: Vec<_> = of_machines.map(snapshot::seal).collect();
            match self.exchange.put(&sealed).await {
                Ok(()) => drop(lock(&self.exchange.brought).insert(host_id, read_at)),
                Err(status) => {
                    self.exchange.failed(&status, "what was learnt cannot be brought to the registry");
                    return;
                }
            }
        }
    }

    /// What the registry knows of a host that is new here.
    pub(super) async fn fetch(&self, host_id: &str) -> Option<HostState> {
        if self.exchange.is_absent() {
            return None;
        }
        let snapshots = match self.exchange.of_host(host_id).await {
            Ok(snapshots) if snapshots.is_empty() => return None,
            Ok(snapshots) => snapshots,
            Err(status) => {
                self.exchange
                    .failed(&status, "the registry does not say what is known of a new host: it starts cold");
                return None;
            }
        };
        let mut restored = HostState::restore(host_id, &snapshots, self.model, self.now());
        for (vm_id, error) in &restored.refused {
            self.memory.refuse("registry", vm_id, error);
        }
        // What is open there is closed there.
        restored.host.reconcile(&mut std::collections::BTreeMap::new());
        self.memory.metrics().restored(restored.machines);
        tracing::info!(
            host = host_id,
            machines = restored.machines,
            "a host goes on where another predictor left it"
        );
        Some(restored.host)
    }
}
