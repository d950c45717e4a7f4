//! One host: each reading runs through every machine's state, and comes out as the host's live state and as records.
//! Knows messages, but no clock and no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use memharvest_proto::collector::v1::{self as collector, HostReading, VmReading};
use memharvest_proto::predictor::v1 as pb;
use memharvest_proto::registry::v1::{RecordHarvestRequest, RecordViolationsRequest, Violation};
use uuid::Uuid;

use crate::boundary::Effective;
use crate::boundary_set::BoundarySet;
use crate::breaker::{Breaker, BreakerTerms, HostSample, State};
use crate::cold_start::ColdStart;
use crate::convert::{self, duration, timestamp};
use crate::coverage::Judged;
use crate::domain::{Seconds, Signal};
use crate::model::Prices;
use crate::rollup::{HostWindow, VmWindow};
use crate::state_file::Pending;
use crate::violation::Change;
use crate::vm::{HostContext, Outcome, VmState};

mod held;
mod reported;
mod show;
#[cfg(test)]
mod tests;

/// A machine that is not read for this long is forgotten: what it was says nothing of what it will be.
pub const FORGOTTEN_AFTER: Seconds = 86_400.0;

/// What follows from a reading: the live state, and what the registry is to keep.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The host with all its machines.
    pub update: Arc<pb::HostUpdate>,
    /// Records, whose order matters.
    pub records: Vec<Pending>,
}

/// Why a host's reading is passed over.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Without a time or an interval nothing can be forecast.
    #[error("the reading has no usable read_at or interval")]
    NoTime,
    /// Its clock is ahead of the mesh's.
    #[error("the reading lies {0:.0} s in the future; check the clock of its host")]
    Future(Seconds),
    /// The registry would not know what to do with it.
    #[error("host_id `{0}` is not 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    HostId(String),
    /// A machine's identity is its UUID.
    #[error("vm_id `{vm_id}` of machine {name} is no UUID")]
    VmId {
        /// What was given.
        vm_id: String,
        /// The machine's name.
        name: String,
    },
    /// It is not newer than the one before.
    #[error("the reading is not newer than the one before")]
    NotNewer,
}

/// What holds for a whole predictor.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Who records.
    pub predictor_id: &'a str,
    /// What operators set.
    pub boundaries: &'a BoundarySet,
    /// Time until the first harvest of a new machine.
    pub cold_start: Seconds,
    /// Mesh time.
    pub now: Seconds,
    /// How far a reading may lie in the future.
    pub tolerance: Seconds,
    /// Trace of the reading.
    pub traceparent: &'a str,
}

/// Everything that is remembered of one host.
#[derive(Debug, Default)]
pub struct HostState {
    vms: BTreeMap<String, Entry>,
    breaker: Breaker,
    judged: Judged,
    held: held::Held,
    window: HostWindow,
    prices: Prices,
    reported: reported::Reported,
    labels: BTreeMap<String, String>,
    read_at: Option<Seconds>,
    interval: Seconds,
    update: Arc<pb::HostUpdate>,
}

#[derive(Debug, Default)]
struct Entry {
    state: VmState,
    vm: pb::Vm,
    /// What it held when it last said so.
    allocated: Option<u64>,
    outcome: Option<Outcome>,
    window: VmWindow,
    limits: Option<Limits>,
    read_at: Seconds,
    running: bool,
}

/// The boundary of a machine, until the set changes.
#[derive(Debug)]
struct Limits {
    revision: (bool, u64),
    effective: Effective,
    version: String,
}

impl HostState {
    /// Takes the next reading of the host.
    ///
    /// # Errors
    /// Refuses a reading without a time, from the future, not newer than the last, or of something that has no proper
    /// identity; nothing changes then.
    pub fn observe(&mut self, mut reading: HostReading, context: &Context<'_>) -> Result<Outgoing, Refusal> {
        let (at, interval) = self.check(&reading, context)?;
        identify(&mut reading)?;
        let read_at = timestamp(at);
        let memory = reading.memory.unwrap_or_default();
        if reading.labels != self.labels {
            self.labels.clone_from(&reading.labels);
            self.vms.values_mut().for_each(|entry| entry.limits = None);
        }
        self.breaker.observe(&host_sample(at, &memory), &self.judged, &BreakerTerms::default());
        let host_context = HostContext {
            swapping: self.breaker.swapping(BreakerTerms::default().horizon),
            breaker: self.breaker.state(),
            budget_spent: false,
            cold_start: ColdStart::first_harvest_after(context.cold_start, interval),
        };

        let mut records = Records::default();
        records.harvest.coverage = self.held.begin(&reading.host_id, at);
        self.judged = Judged::default();
        self.vms.values_mut().for_each(|entry| entry.running = false);
        for vm in &reading.vms {
            self.observe_vm(vm, &reading.host_id, (at, interval), context, &host_context, &mut records);
        }
        self.vanish(at, context, &mut records);

        let vms: Vec<pb::Vm> =
            self.vms.values().filter(|entry| entry.running).map(|entry| entry.vm.clone()).collect();
        let mut host = sums(&vms);
        host.host_id.clone_from(&reading.host_id);
        host.name = reading.host_name;
        host.labels = reading.labels;
        host.state = pb::HostState::Live.into();
        host.total_bytes = memory.total_bytes;
        host.available_bytes = memory.available_bytes;
        host.read_at = Some(read_at);
        host.interval = Some(duration(interval));
        host.valid_until = Some(timestamp(at + crate::guard::VALID_INTERVALS * interval));
        host.memory = Some(memory);
        host.coverage = self.held.day();
        let (breaker, reason) = show::breaker(self.breaker.state());
        host.breaker = breaker.into();
        host.breaker_reason = reason.into();

        records.harvest.hosts.extend(self.window.add(at, &host, self.update.host.as_ref()));
        let breaker_open = matches!(self.breaker.state(), State::Open(_));
        records.harvest.harvests.extend(self.reported.tell(at, &host, breaker_open));
        self.read_at = Some(at);
        self.interval = interval;
        self.update = Arc::new(pb::HostUpdate { host: Some(host), vms });
        Ok(Outgoing { update: self.update.clone(), records: records.pending(context) })
    }

    /// What holds at `context.now` when no reading comes: after three intervals the host is stale and yields
    /// nothing; after a horizon what was open can no longer be judged. `None` where nothing changed.
    pub fn absent(&mut self, context: &Context<'_>) -> Option<Outgoing> {
        let read_at = self.read_at?;
        let silence = context.now - read_at;
        if silence <= crate::guard::VALID_INTERVALS * self.interval {
            return None;
        }
        let mut records = Records::default();
        let horizon = BreakerTerms::default().horizon;
        if silence > horizon {
            for entry in self.vms.values_mut().filter(|entry| entry.state.open_violations() > 0) {
                let changes = entry.state.vanish(context.now);
                records.add(entry, &changes, context);
            }
        }
        let was_live = self.update.host.as_ref().is_some_and(|host| host.state() == pb::HostState::Live);
        if was_live {
            self.update = Arc::new(self.stale(context.now));
        }
        let records = records.pending(context);
        (was_live || !records.is_empty()).then(|| Outgoing { update: self.update.clone(), records })
    }

    /// Whether the host has not been read for so long that it is forgotten, or never.
    #[must_use]
    pub fn is_forgotten(&self, now: Seconds) -> bool {
        self.read_at.is_none_or(|read_at| now - read_at > FORGOTTEN_AFTER)
    }

    /// The windows that are being filled, for a process that ends.
    #[must_use]
    pub fn finish(&self, context: &Context<'_>) -> Vec<Pending> {
        let mut records = Records::default();
        let Some(host) = &self.update.host else { return Vec::new() };
        records.harvest.coverage = self.held.finish(&host.host_id);
        records.harvest.hosts.extend(self.window.finish(host));
        let running = self.vms.values().filter(|entry| entry.running);
        records.harvest.vms = running.filter_map(|entry| entry.window.finish(&entry.vm)).collect();
        records.pending(context)
    }

    /// Why a machine's harvest is what it is; `None` for a machine that is not here or was not forecast yet.
    #[must_use]
    pub fn explain(&self, vm_id: &str, signal: Signal) -> Option<pb::Waterfall> {
        let entry = self.vms.get(vm_id).filter(|entry| entry.running)?;
        let known = entry.limits.as_ref().is_some_and(|limits| limits.revision.0);
        let waterfall = &entry.outcome.as_ref()?.signal(signal).waterfall;
        Some(show::waterfall(vm_id, signal, waterfall, known))
    }

    fn check(&self, reading: &HostReading, context: &Context<'_>) -> Result<(Seconds, Seconds), Refusal> {
        let at = reading.read_at.as_ref().map(convert::seconds).ok_or(Refusal::NoTime)?;
        let interval = reading.interval.as_ref().map(convert::span).ok_or(Refusal::NoTime)?;
        if !at.is_finite() || at <= 0.0 || !interval.is_finite() || interval <= 0.0 {
            return Err(Refusal::NoTime);
        }
        if at > context.now + context.tolerance {
            return Err(Refusal::Future(at - context.now));
        }
        if self.read_at.is_some_and(|before| at <= before) {
            return Err(Refusal::NotNewer);
        }
        Ok((at, interval))
    }

    fn observe_vm(
        &mut self,
        reading: &VmReading,
        host_id: &str,
        (at, interval): (Seconds, Seconds),
        context: &Context<'_>,
        host: &HostContext,
        records: &mut Records,
    ) {
        let entry = self.vms.entry(reading.vm_id.clone()).or_default();
        let mut vm = convert::vm(reading, host_id, timestamp(at));
        let limits = Limits::of(&mut entry.limits, context.boundaries, reading, host_id, &self.labels);
        let mut sample = convert::reading(reading, at, interval);
        // A machine that does not answer still holds what it held: it is closed by its quality, not forgotten.
        sample.allocated = sample.allocated.filter(|bytes| *bytes > 0).or(entry.allocated);
        let changes = match entry.state.observe(&sample, &limits.effective, host, &mut self.prices) {
            Ok(outcome) => {
                show::outcome(&mut vm, &outcome, &entry.state, &limits.effective);
                for signal in Signal::ALL {
                    let judged = &outcome.signal(signal).judged;
                    self.judged.merge(judged);
                    self.held.add(at, signal, &limits.effective, judged);
                }
                let changes = outcome.violations.clone();
                entry.outcome = Some(outcome);
                changes
            }
            Err(refused) => {
                tracing::debug!(vm = reading.vm_id, host = host_id, %refused, "a machine's figures are passed over");
                vm.harvestable_bytes = Some(0);
                vm.reclaimable_bytes = Some(0);
                vm.limited_by = pb::LimitedBy::Unknown.into();
                Vec::new()
            }
        };
        records.harvest.vms.extend(entry.window.add(at, &vm, (entry.read_at > 0.0).then_some(&entry.vm)));
        entry.vm = vm;
        entry.allocated = sample.allocated;
        entry.read_at = at;
        entry.running = true;
        records.add(entry, &changes, context);
    }

    /// Machines that the reading does not name are gone: their violations close. Their models stay for a while,
    /// for a machine that comes back.
    fn vanish(&mut self, at: Seconds, context: &Context<'_>, records: &mut Records) {
        for entry in self.vms.values_mut().filter(|entry| !entry.running) {
            let changes = entry.state.vanish(at);
            records.add(entry, &changes, context);
            records.harvest.vms.extend(entry.window.finish(&entry.vm));
            entry.window = VmWindow::default();
        }
        self.vms.retain(|_, entry| at - entry.read_at <= FORGOTTEN_AFTER);
    }

    fn stale(&self, now: Seconds) -> pb::HostUpdate {
        let mut update = (*self.update).clone();
        for vm in &mut update.vms {
            vm.quality = collector::Quality::Stale.into();
            vm.harvestable_bytes = Some(0);
            vm.reclaimable_bytes = Some(0);
            vm.limited_by = pb::LimitedBy::Stale.into();
        }
        if let Some(host) = &mut update.host {
            tracing::warn!(
                host = host.host_id,
                seconds = now - self.read_at.unwrap_or(now),
                "no reading, the host is stale"
            );
            host.state = pb::HostState::Stale.into();
            host.harvestable_bytes = Some(0);
            host.reclaimable_bytes = Some(0);
        }
        update
    }
}

impl Limits {
    fn of<'a>(
        cached: &'a mut Option<Self>,
        boundaries: &BoundarySet,
        reading: &VmReading,
        host_id: &str,
        labels: &BTreeMap<String, String>,
    ) -> &'a Self {
        let revision = (boundaries.is_known(), boundaries.revision());
        cached.take_if(|cached| cached.revision != revision);
        cached.get_or_insert_with(|| {
            let (mut effective, version) = boundaries.effective(&reading.vm_id, host_id, labels);
            // An operator may have excluded it: until the boundaries are known, nothing is harvested.
            effective.excluded.value |= !boundaries.is_known();
            Self { revision, effective, version }
        })
    }
}

#[derive(Debug, Default)]
struct Records {
    violations: Vec<Violation>,
    harvest: RecordHarvestRequest,
}

impl Records {
    fn add(&mut self, entry: &Entry, changes: &[Change], context: &Context<'_>) {
        let version = entry.limits.as_ref().map_or("default", |limits| limits.version.as_str());
        for change in changes {
            let violation = show::violation(&entry.vm, change.episode(), version, context.traceparent);
            match change {
                Change::Opened(_) => tracing::info!(
                    violation = violation.violation_id,
                    vm = violation.vm_id,
                    overshoot_bytes = violation.overshoot_bytes,
                    "violation opened"
                ),
                Change::Closed(_) => tracing::info!(
                    violation = violation.violation_id,
                    vm = violation.vm_id,
                    reason = violation.close_reason,
                    "violation closed"
                ),
                Change::Updated(_) => {}
            }
            self.violations.push(violation);
        }
    }

    fn pending(mut self, context: &Context<'_>) -> Vec<Pending> {
        let mut pending = Vec::new();
        if !self.violations.is_empty() {
            pending.push(Pending::Violations(RecordViolationsRequest {
                predictor_id: context.predictor_id.to_owned(),
                violations: self.violations,
            }));
        }
        let harvest = &mut self.harvest;
        let empty = harvest.vms.is_empty()
            && harvest.hosts.is_empty()
            && harvest.harvests.is_empty()
            && harvest.coverage.is_empty();
        if !empty {
            context.predictor_id.clone_into(&mut harvest.predictor_id);
            context.traceparent.clone_into(&mut harvest.traceparent);
            pending.push(Pending::Harvest(self.harvest));
        }
        pending
    }
}

/// Checks who a reading speaks of, and writes every UUID in its usual form.
fn identify(reading: &mut HostReading) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let host_id = &reading.host_id;
    if !(1..=128).contains(&host_id.len()) || !host_id.bytes().all(plain) {
        return Err(Refusal::HostId(host_id.clone()));
    }
    for vm in &mut reading.vms {
        let usual = vm.vm_id.len() == 36 && !vm.vm_id.bytes().any(|byte| byte.is_ascii_uppercase());
        let Ok(uuid) = Uuid::try_parse(&vm.vm_id) else {
            return Err(Refusal::VmId { vm_id: vm.vm_id.clone(), name: vm.name.clone() });
        };
        if !usual {
            vm.vm_id = uuid.to_string();
        }
    }
    Ok(())
}

fn host_sample(at: Seconds, memory: &collector::HostMemory) -> HostSample {
    HostSample {
        at,
        total: memory.total_bytes,
        available: memory.available_bytes,
        swap_in: memory.swap_in_bytes,
        swap_free: memory.swap_free_bytes,
        pressure_some: memory.pressure_some_ratio,
        pressure_full: memory.pressure_full_ratio,
    }
}

/// Sums over machines. What no machine says is absent; what some do not say is not guessed.
fn sums(vms: &[pb::Vm]) -> pb::Host {
    let sum = |of: fn(&pb::Vm) -> Option<u64>| {
        vms.iter()
            .filter_map(of)
            .fold(None, |sum: Option<u64>, bytes| Some(sum.unwrap_or(0).saturating_add(bytes)))
    };
    let none_running = vms.is_empty().then_some(0);
    pb::Host {
        vms_running: u32::try_from(vms.len()).unwrap_or(u32::MAX),
        allocated_bytes: sum(|vm| vm.allocated_bytes).or(none_running),
        rss_bytes: sum(|vm| vm.rss_bytes).or(none_running),
        predicted_rss_bytes: sum(|vm| vm.predicted_rss_bytes).or(none_running),
        harvestable_bytes: sum(|vm| vm.harvestable_bytes).or(none_running),
        reclaimable_bytes: sum(|vm| vm.reclaimable_bytes).or(none_running),
        ..pb::Host::default()
    }
}
