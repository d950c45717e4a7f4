//! `WatchFleet`: the fleet now, then what changed, in bursts.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use memharvest_proto::gateway::v1::{WatchFleetRequest, WatchFleetResponse};
use memharvest_proto::predictor::v1::HostUpdate;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::live::{HostView, Live, Snapshot};

/// Changes within this time are one event, except where somebody looks at one host: its change is told at once.
const COALESCED: Duration = Duration::from_millis(500);
/// Machines in one event at most, so that no message outgrows what clients take by default.
const VMS_AN_EVENT: usize = 2000;

/// The stream of one client.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<WatchFleetResponse, Status>> + Send>>;

/// What a client wants to be told besides the sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    hosts: bool,
    vms: bool,
    /// Of this host alone; empty: of all.
    host_id: String,
}

impl Wanted {
    pub(crate) fn of(request: WatchFleetRequest) -> Self {
        Self { hosts: request.include_hosts, vms: !request.without_vms, host_id: request.host_id }
    }

    /// Whether the one host that is wanted has changed.
    fn is_told_at_once(&self, sent: &Snapshot, now: &Snapshot) -> bool {
        let view = |snapshot: &Snapshot| snapshot.host(&self.host_id).map(Arc::as_ptr);
        self.hosts && view(sent) != view(now)
    }

    fn fits(&self, view: &HostView) -> bool {
        self.hosts && (self.host_id.is_empty() || self.host_id == view.host.host_id)
    }
}

struct Watching {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    sent: Option<Arc<Snapshot>>,
    sent_at: Instant,
    wanted: Wanted,
    waiting: VecDeque<WatchFleetResponse>,
}

/// First the whole fleet, then every change of it.
pub(crate) fn events(live: &Live, wanted: Wanted) -> Events {
    let watching = Watching {
        snapshots: live.subscribe(),
        sent: None,
        sent_at: Instant::now(),
        wanted,
        waiting: VecDeque::new(),
    };
    Box::pin(unfold(watching, |mut watching| async {
        let event = watching.next().await?;
        Some((Ok(event), watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<WatchFleetResponse> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if let Some(sent) = &self.sent {
                self.snapshots.changed().await.ok()?;
                let due = self.sent_at + COALESCED;
                while !self.wanted.is_told_at_once(sent, &self.snapshots.borrow()) {
                    match timeout_at(due, self.snapshots.changed()).await {
                        Ok(changed) => changed.ok()?,
                        Err(_) => break,
                    }
                }
            }
            let now = Arc::clone(&self.snapshots.borrow_and_update());
            self.waiting = difference(self.sent.as_deref(), &now, &self.wanted).into();
            self.sent = Some(now);
            self.sent_at = Instant::now();
        }
    }
}

/// The events that lead from one snapshot to the next; none where nothing changed.
fn difference(before: Option<&Snapshot>, now: &Snapshot, wanted: &Wanted) -> Vec<WatchFleetResponse> {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    if wanted.hosts {
        compare(before.map_or(&[], |before| &before.hosts), &now.hosts, &mut changed, &mut gone);
        changed.retain(|view| wanted.fits(view));
        gone.retain(|host_id| wanted.host_id.is_empty() || *host_id == wanted.host_id);
    }
    let same_sums = before.is_some_and(|before| before.fleet == now.fleet);
    if same_sums && changed.is_empty() && gone.is_empty() {
        return Vec::new();
    }
    let mut events =
        vec![WatchFleetResponse { fleet: Some(now.fleet.clone()), updates: Vec::new(), gone_host_ids: gone }];
    let mut room = VMS_AN_EVENT;
    for view in changed {
        let size = if wanted.vms { view.vms.len() } else { 1 };
        if size > room {
            events
                .push(WatchFleetResponse { fleet: Some(now.fleet.clone()), ..WatchFleetResponse::default() });
            room = VMS_AN_EVENT;
        }
        room = room.saturating_sub(size.max(1));
        if let Some(event) = events.last_mut() {
            let vms = if wanted.vms { &view.vms[..] } else { &[] };
            let vms = vms.iter().map(|vm| vm.as_ref().clone()).collect();
            event.updates.push(HostUpdate { host: Some(view.host.clone()), vms });
        }
    }
    events
}

/// Walks two ordered lists at once. A view that is the same object has not changed.
fn compare<'a>(
    before: &[Arc<HostView>],
    now: &'a [Arc<HostView>],
    changed: &mut Vec<&'a HostView>,
    gone: &mut Vec<String>,
) {
    let mut before = before.iter().peekable();
    for view in now {
        while let Some(older) = before.next_if(|older| older.host.host_id < view.host.host_id) {
            gone.push(older.host.host_id.clone());
        }
        let same = before.next_if(|older| older.host.host_id.cmp(&view.host.host_id) == Ordering::Equal);
        if same.is_none_or(|older| !Arc::ptr_eq(older, view)) {
            changed.push(view);
        }
    }
    gone.extend(before.map(|older| older.host.host_id.clone()));
}

#[cfg(test)]
mod tests {
    use memharvest_proto::gateway::v1::Fleet;
    use memharvest_proto::predictor::v1::Host;

    use super::*;

    fn host(id: &str, vms: usize) -> Arc<HostView> {
        let host = Host { host_id: id.into(), ..Host::default() };
        Arc::new(HostView {
            host,
            vms: (0..vms).map(|_| Arc::default()).collect(),
            predictor: Some(0),
            expires: None,
        })
    }

    fn fleet(hosts: &[&Arc<HostView>], vms: u32) -> Snapshot {
        let hosts = hosts.iter().map(|host| Arc::clone(host)).collect();
        Snapshot { hosts, fleet: Fleet { vms, ..Fleet::default() }, ..Snapshot::default() }
    }

    const SUMS: Wanted = Wanted { hosts: false, vms: true, host_id: String::new() };
    const ALL: Wanted = Wanted { hosts: true, vms: true, host_id: String::new() };

    #[test]
    fn a_watcher_may_want_less() {
        let fleet = fleet(&[&host("a", 1), &host("b", 2)], 3);
        let without_vms = difference(None, &fleet, &Wanted { vms: false, ..ALL });
        assert_eq!(without_vms[0].updates.iter().map(|update| update.vms.len()).collect::<Vec<_>>(), [0, 0]);
        let only = difference(None, &fleet, &Wanted { host_id: "b".into(), ..ALL });
        assert_eq!(only[0].updates.iter().map(|update| update.vms.len()).collect::<Vec<_>>(), [2]);
        let gone = difference(Some(&fleet), &Snapshot::default(), &Wanted { host_id: "b".into(), ..ALL });
        assert_eq!(gone[0].gone_host_ids, ["b"]);
    }

    #[test]
    fn only_what_changed_is_told() {
        let (a, b, c, b_later) = (host("a", 1), host("b", 1), host("c", 1), host("b", 2));
        let before = fleet(&[&a, &b], 2);
        let first = difference(None, &before, &ALL);
        assert_eq!(first[0].updates.len(), 2);
        let events = difference(Some(&before), &fleet(&[&b_later, &c], 3), &ALL);
        let updated: Vec<_> =
            events[0].updates.iter().map(|update| update.host.as_ref().unwrap().host_id.as_str()).collect();
        assert_eq!((updated, events[0].gone_host_ids.as_slice()), (vec!["b", "c"], &["a".to_owned()][..]));
        assert!(difference(Some(&before), &fleet(&[&a, &b], 2), &ALL).is_empty());
        assert_eq!(difference(Some(&before), &fleet(&[&b_later], 2), &SUMS).len(), 0);
        assert_eq!(difference(Some(&before), &fleet(&[&a, &b], 3), &SUMS)[0].updates.len(), 0);
    }

    #[tokio::test]
    async fn a_host_that_is_looked_at_is_told_at_once_and_others_are_waited_for() {
        let (a, b, a_later, b_later) = (host("a", 1), host("b", 1), host("a", 2), host("b", 2));
        let published = watch::Sender::new(Arc::new(fleet(&[&a, &b], 2)));
        let watching = |wanted| Watching {
            snapshots: published.subscribe(),
            sent: Some(Arc::clone(&published.borrow())),
            // Nothing would come for an hour.
            sent_at: Instant::now() + Duration::from_hours(1),
            wanted,
            waiting: VecDeque::new(),
        };
        let mut of_b = watching(Wanted { host_id: "b".into(), ..ALL });
        let mut of_all = watching(ALL);
        let mut told = std::pin::pin!(of_b.next());
        let mut waits = std::pin::pin!(of_all.next());
        published.send_replace(Arc::new(fleet(&[&a_later, &b], 3)));
        assert!(futures::poll!(told.as_mut()).is_pending(), "only another host has changed");
        published.send_replace(Arc::new(fleet(&[&a_later, &b_later], 4)));
        let event = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap().unwrap();
        assert_eq!(event.updates.len(), 1);
        assert!(futures::poll!(waits.as_mut()).is_pending(), "all hosts are told in bursts");
    }

    #[test]
    fn a_large_fleet_comes_in_parts() {
        let hosts: Vec<_> = (0..5).map(|id| host(&format!("host-{id}"), 900)).collect();
        let events = difference(None, &fleet(&hosts.iter().collect::<Vec<_>>(), 4500), &ALL);
        assert_eq!(events.iter().map(|event| event.updates.len()).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
