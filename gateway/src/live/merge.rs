//! Several predictors' streams and the registry's records, merged into one fleet. Pure: the time is passed in.
//!
//! A host belongs to whoever has its newest reading; a host that no predictor has is shown as the registry knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use memharvest_proto::predictor::v1::{HostUpdate, Vm};

use super::records::Records;
use super::snapshot::Snapshot;
use super::view::{HostView, Received};
use crate::wire::time;

/// The fleet as it is put together.
#[derive(Debug)]
pub(crate) struct FleetState {
    predictors: Vec<Predictor>,
    records: Arc<Records>,
    hosts: BTreeMap<String, Arc<HostView>>,
    /// One entry for every host that has the machine: two for the length of a migration.
    vms: BTreeMap<String, Vec<Arc<Vm>>>,
    changed: bool,
}

#[derive(Debug, Default)]
struct Predictor {
    hosts: BTreeMap<String, Received>,
    /// Hosts seen since the stream began; `None` once the snapshot is complete.
    snapshot: Option<BTreeSet<String>>,
}

impl FleetState {
    /// An empty fleet, fed by this many predictors.
    pub(crate) fn new(predictors: usize) -> Self {
        Self {
            predictors: (0..predictors).map(|_| Predictor::default()).collect(),
            records: Arc::default(),
            hosts: BTreeMap::new(),
            vms: BTreeMap::new(),
            changed: true,
        }
    }

    /// A predictor's stream begins: what it does not name before its snapshot is complete is gone.
    pub(crate) fn snapshot_begins(&mut self, predictor: usize) {
        self.predictors[predictor].snapshot = Some(BTreeSet::new());
    }

    /// A predictor's snapshot is complete.
    pub(crate) fn snapshot_complete(&mut self, predictor: usize, now: Timestamp) {
        let Some(named) = self.predictors[predictor].snapshot.take() else { return };
        let gone: Vec<String> =
            self.predictors[predictor].hosts.keys().filter(|id| !named.contains(*id)).cloned().collect();
        for host_id in gone {
            self.gone(predictor, &host_id, now);
        }
    }

    /// A host as a predictor has it now.
    pub(crate) fn update(&mut self, predictor: usize, update: HostUpdate, now: Timestamp) {
        let Some(received) = Received::new(update) else { return };
        let host_id = received.host_id().to_owned();
        let source = &mut self.predictors[predictor];
        if let Some(named) = &mut source.snapshot {
            named.insert(host_id.clone());
        }
        source.hosts.insert(host_id.clone(), received);
        self.resolve(&host_id, now);
    }

    /// A host that a predictor no longer has.
    pub(crate) fn gone(&mut self, predictor: usize, host_id: &str, now: Timestamp) {
        if self.predictors[predictor].hosts.remove(host_id).is_some() {
            self.resolve(host_id, now);
        }
    }

    /// What the registry knows now.
    pub(crate) fn set_records(&mut self, records: Records, now: Timestamp) {
        let before = std::mem::replace(&mut self.records, Arc::new(records));
        let after = Arc::clone(&self.records);
        let touched: BTreeSet<&String> = before
            .host_ids()
            .chain(after.host_ids())
            .filter(|id| {
                self.predictors.iter().all(|source| !source.hosts.contains_key(*id))
                    || before.decommissioned(id) != after.decommissioned(id)
            })
            .collect();
        for host_id in touched {
            self.resolve(host_id, now);
        }
        self.changed = true;
    }

    /// Takes back what ran out, and hands the fleet over if anything changed since the last time.
    pub(crate) fn publish(&mut self, now: Timestamp) -> Option<Snapshot> {
        let expired: Vec<String> = self
            .hosts
            .iter()
            .filter(|(_, view)| view.expires.is_some_and(|at| now > at))
            .map(|(id, _)| id.clone())
            .collect();
        for host_id in expired {
            self.resolve(&host_id, now);
        }
        std::mem::take(&mut self.changed).then(|| {
            let hosts = self.hosts.values().cloned().collect();
            let vms = self.vms.values().filter_map(|claims| newest(claims)).cloned().collect();
            Snapshot::new(hosts, vms, Arc::clone(&self.records))
        })
    }

    fn resolve(&mut self, host_id: &str, now: Timestamp) {
        let newest = self
            .predictors
            .iter()
            .enumerate()
            .filter_map(|(place, source)| Some((place, source.hosts.get(host_id)?)))
            .max_by_key(|(place, received)| (received.read_at, std::cmp::Reverse(*place)));
        let view = match newest {
            Some((_, received)) if received.stale_at(now) && self.records.decommissioned(host_id) => None,
            Some((place, received)) => Some(received.view(place, now)),
            None => self.records.lost_host(host_id, now),
        };
        self.replace(host_id, view);
    }

    fn replace(&mut self, host_id: &str, view: Option<HostView>) {
        let before = self.hosts.get(host_id);
        if before.map(AsRef::as_ref) == view.as_ref() {
            return;
        }
        self.changed = true;
        let kept: &[Arc<Vm>] = view.as_ref().map_or(&[], |view| &view.vms);
        for vm in before.map_or(&[][..], |view| &view.vms) {
            if kept.binary_search_by(|other| other.vm_id.cmp(&vm.vm_id)).is_err()
                && let Some(claims) = self.vms.get_mut(&vm.vm_id)
            {
                claims.retain(|claim| claim.host_id != host_id);
                if claims.is_empty() {
                    self.vms.remove(&vm.vm_id);
                }
            }
        }
        for vm in kept {
            let claims = match self.vms.get_mut(&vm.vm_id) {
                Some(claims) => claims,
                None => self.vms.entry(vm.vm_id.clone()).or_default(),
            };
            match claims.iter_mut().find(|claim| claim.host_id == host_id) {
                Some(claim) => claim.clone_from(vm),
                None => claims.push(Arc::clone(vm)),
            }
        }
        match view {
            Some(view) => self.hosts.insert(host_id.to_owned(), Arc::new(view)),
            None => self.hosts.remove(host_id),
        };
    }
}

/// The claim with the newest reading.
fn newest(claims: &[Arc<Vm>]) -> Option<&Arc<Vm>> {
    claims.iter().max_by_key(|vm| time(vm.read_at.as_ref()))
}

#[cfg(test)]
mod tests;
