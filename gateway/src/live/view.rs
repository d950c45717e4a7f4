//! One host as viewers see it: what its predictor last said, with everything that has run out taken back.
//! Pure: the time is passed in.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::collector::v1::Quality;
use memharvest_proto::predictor::v1::{Host, HostState, HostUpdate, Vm};

use crate::wire::{span, time};

/// Intervals without a reading after which a host is stale.
const STALE_AFTER_INTERVALS: u32 = 3;

/// A host with its machines exactly as a predictor sent them.
#[derive(Debug)]
pub(crate) struct Received {
    host: Host,
    vms: Vec<Arc<Vm>>,
    pub(crate) read_at: Timestamp,
    expires: Timestamp,
}

/// A host with its machines as they are to be shown now.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// The host.
    pub host: Host,
    /// Its machines, ordered by id.
    pub vms: Vec<Arc<Vm>>,
    /// Which predictor says so, by its place in the settings; `None`: the registry alone knows it.
    pub predictor: Option<usize>,
    /// When this view stops being true by the passing of time alone; `None`: it does not.
    pub expires: Option<Timestamp>,
}

impl Received {
    /// Takes over an update; `None` where it names no host.
    pub(crate) fn new(update: HostUpdate) -> Option<Self> {
        let host = update.host.filter(|host| !host.host_id.is_empty())?;
        let mut vms = update.vms;
        vms.sort_by(|a, b| a.vm_id.cmp(&b.vm_id));
        for vm in &mut vms {
            vm.host_id.clone_from(&host.host_id);
        }
        let read_at = time(host.read_at.as_ref()).unwrap_or(Timestamp::MIN);
        let expires = host_expiry(&host, read_at);
        Some(Self { host, vms: vms.into_iter().map(Arc::new).collect(), read_at, expires })
    }

    /// Identity of the host.
    pub(crate) fn host_id(&self) -> &str {
        &self.host.host_id
    }

    /// Whether its newest reading is too old at `now`.
    pub(crate) fn stale_at(&self, now: Timestamp) -> bool {
        now > self.expires
    }

    /// The host at `now`: past its validity a known harvest is 0, and an unknown one stays unknown.
    pub(crate) fn view(&self, predictor: usize, now: Timestamp) -> HostView {
        let stale = self.stale_at(now);
        let mut next = (!stale).then_some(self.expires);
        let (mut harvest_gone, mut reclaim_gone) = (0_u64, 0_u64);
        let vms: Vec<Arc<Vm>> = self
            .vms
            .iter()
            .map(|vm| {
                let until = time(vm.valid_until.as_ref()).unwrap_or(self.expires).min(self.expires);
                if now <= until {
                    next = next.map(|at| at.min(until));
                    return Arc::clone(vm);
                }
                harvest_gone = harvest_gone.saturating_add(vm.harvestable_bytes.unwrap_or(0));
                reclaim_gone = reclaim_gone.saturating_add(vm.reclaimable_bytes.unwrap_or(0));
                Arc::new(expired_vm(vm))
            })
            .collect();
        let mut host = self.host.clone();
        if stale || host.state == i32::from(HostState::Stale) {
            host.state = HostState::Stale.into();
            zero_where_known(&mut host.harvestable_bytes);
            zero_where_known(&mut host.pooled_harvestable_bytes);
            zero_where_known(&mut host.reclaimable_bytes);
        } else {
            host.state = HostState::Live.into();
            host.harvestable_bytes = host.harvestable_bytes.map(|sum| sum.saturating_sub(harvest_gone));
            host.reclaimable_bytes = host.reclaimable_bytes.map(|sum| sum.saturating_sub(reclaim_gone));
        }
        count_vms(&mut host, &vms);
        HostView { host, vms, predictor: Some(predictor), expires: next }
    }
}

/// What a host's machines tell at a glance.
pub(crate) fn count_vms(host: &mut Host, vms: &[Arc<Vm>]) {
    let live = vms.iter().filter(|vm| vm.quality == i32::from(Quality::Live)).count();
    host.vms_live = u32::try_from(live).unwrap_or(u32::MAX);
    host.violations_open = vms.iter().fold(0, |sum, vm| sum.saturating_add(vm.violations_open));
}

/// A figure that was known becomes 0; one that was not stays unknown.
pub(crate) fn zero_where_known(figure: &mut Option<u64>) {
    if let Some(bytes) = figure {
        *bytes = 0;
    }
}

fn host_expiry(host: &Host, read_at: Timestamp) -> Timestamp {
    let silent = span(host.interval.as_ref())
        .filter(|interval| !interval.is_zero())
        .and_then(|interval| interval.checked_mul(STALE_AFTER_INTERVALS))
        .and_then(|quiet: Duration| read_at.checked_add(quiet).ok());
    let valid = time(host.valid_until.as_ref());
    silent.into_iter().chain(valid).min().unwrap_or(Timestamp::MIN)
}

fn expired_vm(vm: &Vm) -> Vm {
    let mut vm = vm.clone();
    zero_where_known(&mut vm.harvestable_bytes);
    zero_where_known(&mut vm.reclaimable_bytes);
    if vm.quality > i32::from(Quality::Stale) {
        vm.quality = Quality::Stale.into();
    }
    vm
}
