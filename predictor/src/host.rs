//! One host: each reading runs through every machine's state, and comes out as the host's live state and as records.
//! Knows messages, but no clock and no I/O.
//!
//! What a bad reading does:
//!
//! | what is wrong | what happens |
//! | --- | --- |
//! | no time or interval, or none that can be | the reading is refused, nothing changes |
//! | a second reading of one time, an older one, a clock set back | refused: time only goes on, and until it has caught up what was harvested runs out |
//! | a time ahead of the mesh's clock by more than the tolerance | refused |
//! | an identity that is none | the whole reading is refused |
//! | a leap ahead within the clock | a gap: forecasts that wait are void, history counts less by as much, a raise counts three intervals at most |
//! | a machine named twice | the first counts |
//! | no allocation, or zero | what the machine held before counts; one that never said yields nothing |
//! | usage above the allocation | it is judged as the allocation: nothing is left to harvest |
//! | usage absent | nothing is harvested of that signal now |
//! | a machine that is gone | its violations close, its open window is recorded, and it yields nothing |
//! | one that comes back within a day | it goes on with what was learnt, as after a gap; with another generation it begins anew |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use memharvest_proto::collector::v1::{self as collector, HostReading, VmReading};
use memharvest_proto::predictor::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::boundary::HostBasis;
use crate::boundary_set::BoundarySet;
use crate::breaker::{Breaker, BreakerTerms, HostSample, RESERVE, State};
use crate::budget::Budgets;
use crate::cold_start::ColdStart;
use crate::convert::{self, duration, timestamp};
use crate::coverage::Judged;
use crate::domain::{Seconds, Signal, real};
use crate::guard::{VALID_INTERVALS, Waterfall};
use crate::lease_set::LeaseSet;
use crate::model::{Prices, choice::Choice};
use crate::rollup::{HostWindow, VmWindow};
use crate::state_file::Pending;
use crate::vm::HostContext;

#[cfg(test)]
mod bad_input;
mod held;
mod limits;
mod machines;
mod memory;
mod pooled;
mod records;
mod reported;
mod show;
mod spending;
#[cfg(test)]
mod tests;

use limits::{Limits, Place};
use machines::Machines;
pub use memory::Restored;
use pooled::{Pooled, Sums, When};
use records::Records;
use spending::Spending;

/// A machine that is not read for this long is forgotten: what it was says nothing of what it will be.
pub const FORGOTTEN_AFTER: Seconds = 86_400.0;

/// What follows from a reading: the live state, and what the registry is to keep.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The host with all its machines.
    pub update: Arc<pb::HostUpdate>,
    /// Records, whose order matters.
    pub records: Vec<Pending>,
    /// Raw forecasts that were judged just now.
    pub judged: Vec<pb::Coverage>,
    /// Raw forecasts of the host's summed usage that were judged just now.
    pub pooled: Judged,
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
    /// Which memory is leased.
    pub leases: &'a LeaseSet,
    /// Time until the first harvest of a new machine.
    pub cold_start: Seconds,
    /// Mesh time.
    pub now: Seconds,
    /// How far a reading may lie in the future.
    pub tolerance: Seconds,
    /// Trace of the reading.
    pub traceparent: &'a str,
    /// What was spent of the error budgets.
    pub budgets: &'a Mutex<Budgets>,
}

/// Everything that is remembered of one host.
#[derive(Debug, Default)]
pub struct HostState {
    machines: Machines,
    kept: Kept,
    limits: Option<Limits>,
    update: Arc<pb::HostUpdate>,
}

/// What is remembered of a host itself.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    host_id: String,
    breaker: Breaker,
    judged: Judged,
    held: held::Held,
    window: HostWindow,
    pooled: Pooled,
    reported: reported::Reported,
    labels: BTreeMap<String, String>,
    read_at: Option<Seconds>,
    interval: Seconds,
}

/// What holds for all machines of a reading.
#[derive(Clone, Copy, Debug)]
struct Moment<'a> {
    at: Seconds,
    interval: Seconds,
    host: HostContext,
    context: &'a Context<'a>,
}

/// Where a machine's reading leaves what follows from it.
struct Out<'a, 'b> {
    records: &'a mut Records,
    spending: &'a mut Spending<'b>,
    pool: &'a mut Sums,
}

impl HostState {
    /// A host of which nothing is known, and which this model will forecast.
    #[must_use]
    pub fn forecast_by(model: Choice) -> Self {
        let kept = Kept { pooled: Pooled::forecast_by(model), ..Kept::default() };
        Self { machines: Machines::forecast_by(model), kept, ..Self::default() }
    }

    /// Takes the next reading of the host. `prices` are shared by all hosts.
    ///
    /// # Errors
    /// Refuses a reading without a time, from the future, not newer than the last, or of something that has no proper
    /// identity; nothing changes then.
    pub fn observe(
        &mut self,
        mut reading: HostReading,
        context: &Context<'_>,
        prices: &mut Prices,
    ) -> Result<Outgoing, Refusal> {
        let (at, interval) = self.check(&reading, context)?;
        self.machines.identify(&mut reading)?;
        let memory = reading.memory.unwrap_or_default();
        if reading.labels != self.kept.labels || self.kept.host_id != reading.host_id {
            self.kept.labels.clone_from(&reading.labels);
            self.kept.host_id.clone_from(&reading.host_id);
            self.limits = None;
            self.machines.iter_mut().for_each(|entry| entry.limits = None);
        }
        let terms = self.breaker_terms(context);
        self.kept.breaker.observe(&host_sample(at, &memory), &self.kept.judged, &terms);
        let host = HostContext {
            swapping: self.kept.breaker.swapping(terms.horizon),
            breaker: self.kept.breaker.state(),
            budget_spent: false,
            cold_start: ColdStart::first_harvest_after(context.cold_start, interval),
        };

        let mut records = Records::default();
        let mut spending = Spending::new(context.budgets, at);
        records.harvest.coverage = self.kept.held.begin(&reading.host_id, at);
        self.kept.judged = Judged::default();
        self.machines.iter_mut().for_each(|entry| entry.running = false);
        let moment = Moment { at, interval, host, context };
        let readings = std::mem::take(&mut reading.vms);
        let mut vms = Vec::with_capacity(readings.len());
        let mut pool = Sums::default();
        for (hint, vm) in readings.into_iter().enumerate() {
            let mut out = Out { records: &mut records, spending: &mut spending, pool: &mut pool };
            vms.extend(self.observe_vm(vm, hint, &moment, prices, &mut out));
        }
        self.vanish(at, context, &mut records);

        let mut host = sums(&vms);
        host.error_budgets = spending.settle();
        host.host_id = reading.host_id;
        host.name = reading.host_name;
        host.labels = reading.labels;
        host.state = pb::HostState::Live.into();
        host.leased_bytes = context.leases.leased_bytes(&host.host_id);
        host.total_bytes = memory.total_bytes;
        host.available_bytes = memory.available_bytes;
        host.read_at = Some(timestamp(at));
        host.interval = Some(duration(interval));
        host.valid_until = Some(timestamp(at + VALID_INTERVALS * interval));
        host.memory = Some(memory);
        host.coverage = self.kept.held.day();
        let (breaker, reason) = show::breaker(self.kept.breaker.state());
        host.breaker = breaker.into();
        host.breaker_reason = reason.into();

        let pooled = self.observe_pool(&moment, &pool, &mut host);
        let basis = self.limits.as_ref().map_or(HostBasis::Sum, |limits| limits.effective.host_basis.value);

        records.harvest.hosts.extend(self.kept.window.add(at, &host));
        let breaker_open = matches!(self.kept.breaker.state(), State::Open(_));
        records.harvest.harvests.extend(self.kept.reported.tell(at, &host, basis, breaker_open));
        self.kept.read_at = Some(at);
        self.kept.interval = interval;
        self.update = Arc::new(pb::HostUpdate { host: Some(host), vms });
        Ok(Outgoing {
            update: self.update.clone(),
            records: records.pending(context),
            judged: self.kept.held.now(),
            pooled,
        })
    }

    /// What holds at `context.now` when no reading comes: after three intervals the host is stale and yields
    /// nothing; after a horizon what was open can no longer be judged. `None` where nothing changed.
    pub fn absent(&mut self, context: &Context<'_>) -> Option<Outgoing> {
        let read_at = self.kept.read_at?;
        let silence = context.now - read_at;
        if silence <= VALID_INTERVALS * self.kept.interval {
            return None;
        }
        let mut records = Records::default();
        if silence > self.breaker_terms(context).horizon {
            let Self { machines, kept, .. } = self;
            for entry in machines.iter_mut().filter(|entry| entry.kept.state.open_violations() > 0) {
                let changes = entry.kept.state.vanish(context.now);
                records.add(entry.whose(&kept.host_id), entry.version(), &changes, context);
            }
        }
        let was_live = self.update.host.as_ref().is_some_and(|host| host.state() == pb::HostState::Live);
        if was_live {
            self.update = Arc::new(self.stale(context.now));
        }
        let records = records.pending(context);
        (was_live || !records.is_empty()).then(|| Outgoing {
            update: self.update.clone(),
            records,
            judged: Vec::new(),
            pooled: Judged::default(),
        })
    }

    /// Whether the host has not been read for so long that it is forgotten, or never.
    #[must_use]
    pub fn is_forgotten(&self, now: Seconds) -> bool {
        self.kept.read_at.is_none_or(|read_at| now - read_at > FORGOTTEN_AFTER)
    }

    /// The windows that are being filled, for a process that ends.
    #[must_use]
    pub fn finish(&self, context: &Context<'_>) -> Vec<Pending> {
        let host_id = &self.kept.host_id;
        let mut records = Records::default();
        records.harvest.coverage = self.kept.held.finish(host_id);
        records.harvest.hosts.extend(self.kept.window.finish(host_id));
        let running = self.machines.iter().filter(|entry| entry.running);
        records.harvest.vms =
            running.filter_map(|entry| entry.kept.window.finish(entry.whose(host_id))).collect();
        records.pending(context)
    }

    /// Why a machine's harvest is what it is; `None` for a machine that is not here or was not forecast yet.
    #[must_use]
    pub fn explain(&self, vm_id: &str, signal: Signal) -> Option<pb::Waterfall> {
        let entry = self.machines.get(vm_id).filter(|entry| entry.running)?;
        let known = entry.limits.as_ref().is_some_and(Limits::known);
        let [rss, demand] = entry.explained.as_ref()?;
        let inputs = if signal == Signal::Rss { rss } else { demand };
        Some(show::waterfall(vm_id, signal, &Waterfall::of(inputs.clone()), known))
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
        if self.kept.read_at.is_some_and(|before| at <= before) {
            return Err(Refusal::NotNewer);
        }
        Ok((at, interval))
    }

    /// The host is held to its own boundary.
    fn breaker_terms(&mut self, context: &Context<'_>) -> BreakerTerms {
        let Kept { host_id, labels, .. } = &self.kept;
        let place = Place { vm_id: "", host_id, labels, consumes: false };
        let effective = &Limits::of(&mut self.limits, context.boundaries, &place).effective;
        BreakerTerms {
            horizon: effective.horizon.value,
            target: effective.target_violation_rate.value,
            reserve: RESERVE,
        }
    }

    /// Takes what a reading says of one machine. A machine that is named twice in a reading counts once.
    fn observe_vm(
        &mut self,
        reading: VmReading,
        hint: usize,
        moment: &Moment<'_>,
        prices: &mut Prices,
        out: &mut Out<'_, '_>,
    ) -> Option<pb::Vm> {
        let Self { machines, kept, .. } = self;
        let (at, host_id) = (moment.at, kept.host_id.as_str());
        let entry = machines.entry(&reading.vm_id, hint);
        if std::mem::replace(&mut entry.running, true) {
            tracing::debug!(vm = reading.vm_id, host = host_id, "named twice in a reading, passed over");
            return None;
        }
        let consumes = moment.context.leases.is_consumer(&reading.vm_id);
        let place = Place { vm_id: &reading.vm_id, host_id, labels: &kept.labels, consumes };
        let limits = Limits::of(&mut entry.limits, moment.context.boundaries, &place);
        let mut sample = convert::reading(&reading, at, moment.interval);
        let mut vm = convert::vm(reading, host_id, timestamp(at));
        let known = &mut entry.kept;
        // A machine that does not answer still holds what it held: it is closed by its quality, not forgotten.
        sample.allocated = sample.allocated.filter(|bytes| *bytes > 0).or(known.allocated);
        let budget = limits.budget.as_ref();
        let budget_spent = budget.is_some_and(|budget| out.spending.is_spent(budget));
        let host = HostContext { budget_spent, ..moment.host };
        let changes = match known.state.observe(&sample, &limits.effective, &host, prices) {
            Ok(outcome) => {
                show::outcome(&mut vm, &outcome, &known.state, &limits.effective);
                for signal in Signal::ALL {
                    let judged = &outcome.signal(signal).judged;
                    kept.judged.merge(judged);
                    kept.held.add(at, signal, &limits.effective, judged);
                }
                if let Some(usage) = outcome.rss.usage {
                    known.peaks.advance(at);
                    known.peaks.push(real(usage));
                }
                out.pool.add(&outcome.rss.waterfall.inputs, outcome.rss.usage, known.peaks.max());
                entry.explained = Some([outcome.rss.waterfall.inputs, outcome.demand.waterfall.inputs]);
                outcome.violations
            }
            Err(refused) => {
                tracing::debug!(vm = vm.vm_id, host = host_id, %refused, "a machine's figures are passed over");
                vm.harvestable_bytes = Some(0);
                vm.reclaimable_bytes = Some(0);
                vm.limited_by = pb::LimitedBy::Unknown.into();
                entry.explained = None;
                Vec::new()
            }
        };
        if let Some(budget) = budget {
            let watched = if known.read_at > 0.0 { at - known.read_at } else { 0.0 };
            out.spending.count(budget, watched.min(VALID_INTERVALS * moment.interval), &changes);
        }
        out.records.harvest.vms.extend(known.window.add(at, &vm));
        if known.name != vm.name {
            known.name.clone_from(&vm.name);
        }
        known.allocated = sample.allocated;
        known.read_at = at;
        out.records.add(entry.whose(host_id), entry.version(), &changes, moment.context);
        Some(vm)
    }

    /// Forecasts the summed usage and shows what follows.
    fn observe_pool(&mut self, moment: &Moment<'_>, sums: &Sums, host: &mut pb::Host) -> Judged {
        let Some(limits) = &self.limits else { return Judged::default() };
        let Moment { at, interval, host: context, .. } = moment;
        let when = When { at: *at, interval: *interval, effective: &limits.effective, host: context };
        let observed = self.kept.pooled.observe(&when, sums);
        let (pooled, judged) =
            observed.map_or((None, Judged::default()), |(pooled, judged)| (Some(pooled), judged));
        host.pooled_harvestable_bytes = Some(pooled.as_ref().map_or(0, |pooled| pooled.harvestable_bytes));
        host.pooled = pooled;
        judged
    }

    /// Machines that the reading does not name are gone: their violations close. Their models stay for a while,
    /// for a machine that comes back.
    fn vanish(&mut self, at: Seconds, context: &Context<'_>, records: &mut Records) {
        let Self { machines, kept, .. } = self;
        for entry in machines.iter_mut().filter(|entry| !entry.running) {
            let changes = entry.kept.state.vanish(at);
            let whose = entry.whose(&kept.host_id);
            records.add(whose, entry.version(), &changes, context);
            records.harvest.vms.extend(entry.kept.window.finish(whose));
            entry.kept.window = VmWindow::default();
        }
        machines.forget(at);
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
            let seconds = now - self.kept.read_at.unwrap_or(now);
            tracing::warn!(host = host.host_id, seconds, "no reading, the host is stale");
            host.state = pb::HostState::Stale.into();
            host.harvestable_bytes = Some(0);
            host.reclaimable_bytes = Some(0);
            host.pooled_harvestable_bytes = host.pooled_harvestable_bytes.map(|_| 0);
            host.pooled = None;
        }
        update
    }
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
