//! The whole fleet at one moment, never changed after it was made: what every request reads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use memharvest_proto::collector::v1::Quality;
use memharvest_proto::gateway::v1::Fleet;
use memharvest_proto::predictor::v1::{Coverage, HostState, Vm};
use memharvest_services::proto_time::to_proto;

use super::records::Records;
use super::view::HostView;
use crate::wire::{span, time};

/// The fleet at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Hosts, ordered by id.
    pub hosts: Vec<Arc<HostView>>,
    /// Machines, ordered by id.
    pub vms: Vec<Arc<Vm>>,
    /// Sums over the fleet.
    pub fleet: Fleet,
    /// What the registry knows.
    pub records: Arc<Records>,
}

impl Snapshot {
    pub(crate) fn new(hosts: Vec<Arc<HostView>>, vms: Vec<Arc<Vm>>, records: Arc<Records>) -> Self {
        let fleet = sums(&hosts, &vms, &records);
        Self { hosts, vms, fleet, records }
    }

    /// A host by its id.
    #[must_use]
    pub fn host(&self, id: &str) -> Option<&Arc<HostView>> {
        let place = self.hosts.binary_search_by(|view| view.host.host_id.as_str().cmp(id)).ok()?;
        self.hosts.get(place)
    }

    /// A machine by its id.
    #[must_use]
    pub fn vm(&self, id: &str) -> Option<&Arc<Vm>> {
        let place = self.vms.binary_search_by(|vm| vm.vm_id.as_str().cmp(id)).ok()?;
        self.vms.get(place)
    }

    /// The predictor that holds a machine's models, by its place in the settings.
    #[must_use]
    pub fn predictor_of(&self, vm: &Vm) -> Option<usize> {
        self.host(&vm.host_id)?.predictor
    }
}

/// Counts of judged forecasts, merged by signal, horizon and target.
#[must_use]
pub fn merge_coverage(parts: impl IntoIterator<Item = Coverage>) -> Vec<Coverage> {
    let mut merged: BTreeMap<(i32, Duration, u64), Coverage> = BTreeMap::new();
    for part in parts {
        let horizon = span(part.horizon.as_ref()).unwrap_or_default();
        match merged.entry((part.signal, horizon, part.target_violation_rate.to_bits())) {
            Entry::Vacant(free) => {
                free.insert(part);
            }
            Entry::Occupied(mut sum) => {
                sum.get_mut().judged += part.judged;
                sum.get_mut().held += part.held;
            }
        }
    }
    merged.into_values().collect()
}

/// The share that held; `None` where none was judged.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of forecasts stay far below 2^53")]
pub fn held_ratio(coverage: &[Coverage]) -> Option<f64> {
    let judged: u64 = coverage.iter().map(|part| part.judged).sum();
    let held: u64 = coverage.iter().map(|part| part.held).sum();
    (judged > 0).then(|| held as f64 / judged as f64)
}

fn sums(hosts: &[Arc<HostView>], vms: &[Arc<Vm>], records: &Records) -> Fleet {
    let live = i32::from(HostState::Live);
    let mut coverage = merge_coverage(hosts.iter().flat_map(|view| view.host.coverage.iter().copied()));
    if coverage.iter().all(|part| part.judged == 0) {
        coverage = merge_coverage(records.coverage());
    }
    let newest = hosts.iter().filter_map(|view| time(view.host.read_at.as_ref())).max();
    let warm = vms.iter().filter_map(|vm| time(vm.warm_at.as_ref())).min();
    Fleet {
        hosts: count(hosts.len()),
        vms: count(vms.len()),
        allocated_bytes: sum_of_known(hosts.iter().map(|view| view.host.allocated_bytes)),
        rss_bytes: sum_of_known(hosts.iter().map(|view| view.host.rss_bytes)),
        predicted_rss_bytes: sum_of_known(hosts.iter().map(|view| view.host.predicted_rss_bytes)),
        harvestable_bytes: sum_of_known(hosts.iter().map(|view| view.host.harvestable_bytes)),
        reclaimable_bytes: sum_of_known(hosts.iter().map(|view| view.host.reclaimable_bytes)),
        violations_open: records.violations_open(),
        coverage_ratio: held_ratio(&coverage),
        hosts_stale: count(hosts.iter().filter(|view| view.host.state != live).count()),
        read_at: newest.map(to_proto),
        coverage,
        vms_live: count(vms.iter().filter(|vm| vm.quality == i32::from(Quality::Live)).count()),
        warm_at: warm.map(to_proto),
    }
}

fn sum_of_known(figures: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    figures.flatten().fold(None, |sum, bytes| Some(sum.unwrap_or(0_u64).saturating_add(bytes)))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
