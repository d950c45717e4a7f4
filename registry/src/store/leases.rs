//! What a store does with leases.

use memharvest_proto::registry::v1::{HostHarvest, Lease, LeaseState};
use tokio::sync::watch;

use crate::lease::{Moment, Refusal, Reservation};
#[cfg(doc)]
use crate::store::StoreError;
use crate::store::{Change, Result};

/// Which leases a list holds. `None` and empty: all.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// Only on this host.
    pub host_id: String,
    /// Only in this state.
    pub state: Option<LeaseState>,
    /// Only those older than this one, by the number that comes with it.
    pub older_than: Option<u64>,
}

/// Leases. What each holds back is worked out when it is read, from the newest window of its consumer.
pub trait LeaseStore: Send + Sync + 'static {
    /// The store's clock, in nanoseconds since 1970: leases run on it, whichever registry looks.
    fn clock_ns(&self) -> impl Future<Output = Result<i64>> + Send;

    /// Makes a lease where the host's harvest suffices, or gives the one that the same request made before. Audited.
    ///
    /// Errors: [`StoreError::Lease`].
    fn reserve(&self, reservation: &Reservation, now: Moment) -> impl Future<Output = Result<Lease>> + Send;

    /// Changes a lease by a pure function of it, which gives `None` to leave it as it is. Audited as `action`.
    ///
    /// Errors: [`StoreError::NotFound`], or the refusal of the function.
    fn change_lease(
        &self,
        lease_id: &str,
        now: Moment,
        action: &'static str,
        change: &Change,
        function: impl Fn(&Lease) -> std::result::Result<Option<Lease>, Refusal> + Send + Sync,
    ) -> impl Future<Output = Result<Lease>> + Send;

    /// Leases, newest first, each with a number that grows with the reservations.
    fn leases(
        &self,
        filter: &LeaseFilter,
        limit: u32,
        now: Moment,
    ) -> impl Future<Output = Result<Vec<(u64, Lease)>>> + Send;

    /// All leases that hold memory back, newest first, and the sequence of changes that they are: one consistent view.
    fn holding_leases(&self, now: Moment) -> impl Future<Output = Result<(u64, Vec<Lease>)>> + Send;

    /// Leases that changed after a sequence, as they are now, in the order of their newest change.
    fn lease_changes(
        &self,
        after: u64,
        limit: u32,
        now: Moment,
    ) -> impl Future<Output = Result<Vec<(u64, Lease)>>> + Send;

    /// Wakes when the sequence grows. Only a hint: read the changes from the store.
    fn lease_sequence(&self) -> watch::Receiver<u64>;

    /// Ends the leases whose time is over; returns how many. Audited in the name of `author`.
    fn end_leases(&self, now: Moment, author: &str) -> impl Future<Output = Result<u64>> + Send;

    /// The harvest of every host that a lease holds memory back on, as told last.
    fn leased_harvests(&self) -> impl Future<Output = Result<Vec<HostHarvest>>> + Send;

    /// Removes some leases that ended before a time; returns how many went. 0: nothing is left to remove.
    fn prune_leases(&self, before_ns: i64) -> impl Future<Output = Result<u64>> + Send;
}
