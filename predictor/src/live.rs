//! The live state of all hosts of this predictor, as gateways follow it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use memharvest_proto::predictor::v1::watch_forecasts_response::Event;
use memharvest_proto::predictor::v1::{
    Host, HostGone, HostUpdate, SnapshotComplete, Vm, WatchForecastsResponse,
};
use tokio::sync::broadcast;

/// Changes that a slow follower may be behind before it gets a new snapshot instead.
const BEHIND: usize = 4096;

#[derive(Clone, Debug)]
enum Change {
    Update(Arc<HostUpdate>),
    Gone(String),
}

/// Every host with all its machines as of its newest reading. Clones share the state.
#[derive(Clone, Debug)]
pub struct Live {
    hosts: Arc<Mutex<BTreeMap<String, Arc<HostUpdate>>>>,
    changes: broadcast::Sender<Change>,
}

impl Default for Live {
    fn default() -> Self {
        Self { hosts: Arc::default(), changes: broadcast::Sender::new(BEHIND) }
    }
}

impl Live {
    /// Shows a host as it is now.
    pub fn publish(&self, host_id: &str, update: Arc<HostUpdate>) {
        self.lock().insert(host_id.to_owned(), update.clone());
        // Nobody may be listening.
        let _ = self.changes.send(Change::Update(update));
    }

    /// Shows a host no longer; says whether it was shown.
    #[must_use]
    pub fn gone(&self, host_id: &str) -> bool {
        let shown = self.lock().remove(host_id).is_some();
        if shown {
            let _ = self.changes.send(Change::Gone(host_id.to_owned()));
        }
        shown
    }

    /// Up to `limit` hosts after the one named, ordered by id.
    #[must_use]
    pub fn hosts(&self, after: &str, limit: usize) -> Vec<Host> {
        let hosts = self.lock();
        let after = (Bound::Excluded(after.to_owned()), Bound::Unbounded);
        hosts.range(after).filter_map(|(_, update)| update.host.clone()).take(limit).collect()
    }

    /// Up to `limit` machines after the one named, ordered by id; of one host, or of all.
    #[must_use]
    pub fn vms(&self, host_id: Option<&str>, after: &str, limit: usize) -> Vec<Vm> {
        let updates: Vec<_> = {
            let hosts = self.lock();
            match host_id {
                Some(host_id) => hosts.get(host_id).cloned().into_iter().collect(),
                None => hosts.values().cloned().collect(),
            }
        };
        let mut vms: Vec<_> =
            updates.iter().flat_map(|update| &update.vms).filter(|vm| vm.vm_id.as_str() > after).collect();
        vms.sort_by(|a, b| a.vm_id.cmp(&b.vm_id));
        vms.into_iter().take(limit).cloned().collect()
    }

    /// A full snapshot, its mark, then every change; a follower that falls behind gets a new snapshot.
    pub fn follow(&self) -> impl Stream<Item = WatchForecastsResponse> + Send + use<> {
        let start = Follower { live: self.clone(), changes: None, waiting: Vec::new().into_iter() };
        futures::stream::unfold(start, |mut follower| async move {
            let event = follower.next().await?;
            Some((WatchForecastsResponse { event: Some(event) }, follower))
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<HostUpdate>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Follower {
    live: Live,
    changes: Option<broadcast::Receiver<Change>>,
    waiting: std::vec::IntoIter<Event>,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.next() {
                return Some(event);
            }
            let Some(changes) = &mut self.changes else {
                // Subscribed before the snapshot is taken, so that nothing falls between the two.
                self.changes = Some(self.live.changes.subscribe());
                self.waiting = self.snapshot().into_iter();
                continue;
            };
            match changes.recv().await {
                Ok(Change::Update(update)) => return Some(Event::Update((*update).clone())),
                Ok(Change::Gone(host_id)) => return Some(Event::Gone(HostGone { host_id })),
                Err(broadcast::error::RecvError::Lagged(_)) => self.changes = None,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn snapshot(&self) -> Vec<Event> {
        let hosts: Vec<_> = self.live.lock().values().cloned().collect();
        let complete = SnapshotComplete { hosts: u32::try_from(hosts.len()).unwrap_or(u32::MAX) };
        let updates = hosts.into_iter().map(|update| Event::Update((*update).clone()));
        updates.chain([Event::SnapshotComplete(complete)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    fn update(host_id: &str, vms: &[&str]) -> Arc<HostUpdate> {
        let vms = vms.iter().map(|vm| Vm { vm_id: (*vm).into(), ..Vm::default() }).collect();
        Arc::new(HostUpdate { host: Some(Host { host_id: host_id.into(), ..Host::default() }), vms })
    }

    #[tokio::test]
    async fn a_follower_gets_a_snapshot_its_mark_and_every_change() {
        let live = Live::default();
        live.publish("a", update("a", &["1"]));
        live.publish("b", update("b", &["2"]));
        let mut events = Box::pin(live.follow());
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(events.next().await.unwrap().event.unwrap());
        }
        assert_eq!(seen[0], Event::Update((*update("a", &["1"])).clone()));
        assert_eq!(seen[2], Event::SnapshotComplete(SnapshotComplete { hosts: 2 }));
        assert!(events.next().now_or_never().is_none());
        assert!(live.gone("a"));
        let gone = events.next().await.unwrap().event.unwrap();
        assert_eq!(gone, Event::Gone(HostGone { host_id: "a".into() }));
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_gets_a_new_snapshot() {
        let live = Live::default();
        let mut events = Box::pin(live.follow());
        assert!(matches!(events.next().await.unwrap().event, Some(Event::SnapshotComplete(_))));
        for _ in 0..=BEHIND {
            live.publish("a", update("a", &[]));
        }
        assert!(matches!(events.next().await.unwrap().event, Some(Event::Update(_))));
        let mark = events.next().await.unwrap().event;
        assert_eq!(mark, Some(Event::SnapshotComplete(SnapshotComplete { hosts: 1 })));
    }

    #[test]
    fn pages_are_ordered_by_id_across_hosts() {
        let live = Live::default();
        live.publish("a", update("a", &["3", "1"]));
        live.publish("b", update("b", &["2"]));
        let ids = |vms: Vec<Vm>| vms.into_iter().map(|vm| vm.vm_id).collect::<Vec<_>>();
        assert_eq!(ids(live.vms(None, "", 2)), ["1", "2"]);
        assert_eq!(ids(live.vms(None, "2", 2)), ["3"]);
        assert_eq!(ids(live.vms(Some("a"), "", 9)), ["1", "3"]);
        assert_eq!(live.hosts("a", 9).len(), 1);
    }
}
