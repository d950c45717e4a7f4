//! The fleet as it is now, in memory: fed by the predictors' streams and the registry, read by everybody.
//!
//! Whoever reads gets one immutable [`Snapshot`]; a burst of changes makes one new snapshot, however many read it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;
use tokio::sync::{Notify, watch};

mod merge;
pub(crate) mod predictor_watch;
mod records;
pub(crate) mod registry_mirror;
mod snapshot;
mod view;

use merge::FleetState;
pub use records::{Records, RolledUp};
pub use snapshot::{Snapshot, held_ratio, merge_coverage};
pub use view::HostView;

/// Changes that come this close together make one snapshot.
const BURST: Duration = Duration::from_millis(100);
/// How often figures are looked through that run out by the passing of time alone.
const EXPIRY_SWEEP: Duration = Duration::from_millis(250);

/// The live state. Clones share it.
#[derive(Clone, Debug)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: MeshClock,
    state: Mutex<FleetState>,
    changed: Notify,
    published: watch::Sender<Arc<Snapshot>>,
}

impl Live {
    /// An empty fleet that this many predictors will feed.
    #[must_use]
    pub fn new(predictors: usize, clock: MeshClock) -> Self {
        Self(Arc::new(Inner {
            clock,
            state: Mutex::new(FleetState::new(predictors)),
            changed: Notify::new(),
            published: watch::Sender::new(Arc::default()),
        }))
    }

    /// The fleet as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.published.borrow())
    }

    /// Every snapshot from now on; slow readers skip some.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.published.subscribe()
    }

    /// The clock of readings.
    #[must_use]
    pub fn clock(&self) -> MeshClock {
        self.0.clock
    }

    /// Mesh time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn change(&self, change: impl FnOnce(&mut FleetState, Timestamp)) {
        let now = self.now();
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner), now);
        self.0.changed.notify_one();
    }

    fn publish_once(&self) {
        let snapshot = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).publish(self.now());
        if let Some(snapshot) = snapshot {
            self.0.published.send_replace(Arc::new(snapshot));
        }
    }

    /// Makes snapshots until the process stops.
    pub(crate) async fn publish(self, stop: Stop) {
        loop {
            self.publish_once();
            tokio::select! {
                () = stop.requested() => return,
                () = self.0.changed.notified() => tokio::time::sleep(BURST).await,
                () = tokio::time::sleep(EXPIRY_SWEEP) => {}
            }
        }
    }
}
