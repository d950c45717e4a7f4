//! What a store does with snapshots of models.

use memharvest_proto::registry::v1::ModelSnapshot;
use uuid::Uuid;

use crate::store::Result;

/// Snapshots of models.
pub trait ModelStore: Send + Sync + 'static {
    /// Stores snapshots whole or not at all; returns the machines whose stored snapshot is newer.
    fn put_snapshots(&self, snapshots: &[ModelSnapshot]) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Snapshots of a host's machines with an id after `after`, ordered by id.
    fn snapshots_of_host(
        &self,
        host_id: &str,
        after: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ModelSnapshot>>> + Send;

    /// Snapshots of these machines, where there is one.
    fn snapshots_of(&self, vms: &[Uuid]) -> impl Future<Output = Result<Vec<ModelSnapshot>>> + Send;

    /// Removes some snapshots that were taken before a time; returns how many went. 0: nothing is left to remove.
    fn prune_snapshots(&self, before_ns: i64) -> impl Future<Output = Result<u64>> + Send;
}
