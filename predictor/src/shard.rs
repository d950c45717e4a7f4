//! All hosts of this predictor: readings in, live state and durable records out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memharvest_proto::collector::v1::HostReading;
use memharvest_proto::predictor::v1::{HostUpdate, Waterfall};
use memharvest_proto::registry::v1::{RecordViolationsRequest, ViolationState};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;
use memharvest_services::trace_context;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tracing::Instrument;

use crate::boundary_set::BoundarySet;
use crate::budget::Budgets;
use crate::convert::timestamp;
use crate::domain::{Seconds, Signal};
use crate::host::{Context, HostState, Outgoing, Refusal};
use crate::lease_set::LeaseSet;
use crate::live::Live;
use crate::model::{Prices, choice::Choice};
use crate::recorder::Recorder;
use crate::state_file::{Pending, StateFileError};
use crate::violation::Closing;

pub mod exchange;
pub mod memory;

use exchange::Exchange;
use memory::Memory;

/// Clocks of hosts may be ahead by this much wall time.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// How often silence is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Why a reading led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The reading itself.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What follows from it cannot be kept.
    #[error(transparent)]
    State(#[from] StateFileError),
}

/// Every host of this predictor. Clones share the state.
#[derive(Clone, Debug)]
pub struct Shard {
    hosts: Arc<Mutex<BTreeMap<String, Arc<AsyncMutex<HostState>>>>>,
    prices: Arc<Mutex<Prices>>,
    budgets: Arc<Mutex<Budgets>>,
    memory: Memory,
    exchange: Exchange,
    live: Live,
    recorder: Recorder,
    heard: Heard,
    clock: MeshClock,
    cold_start: Duration,
    model: Choice,
    predictor_id: Arc<str>,
}

/// What is heard from the registry all the time.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What operators set.
    pub boundaries: watch::Receiver<Arc<BoundarySet>>,
    /// Which memory is leased.
    pub leases: watch::Receiver<Arc<LeaseSet>>,
}

impl Heard {
    /// What was heard last.
    fn last(&self) -> (Arc<BoundarySet>, Arc<LeaseSet>) {
        (self.boundaries.borrow().clone(), self.leases.borrow().clone())
    }
}

impl Shard {
    /// A shard without hosts.
    #[must_use]
    pub fn new(
        predictor_id: &str,
        memory: Memory,
        exchange: Exchange,
        recorder: Recorder,
        heard: Heard,
        clock: MeshClock,
        cold_start: Duration,
    ) -> Self {
        let predictor_id = predictor_id.into();
        Self {
            hosts: Arc::default(),
            prices: Arc::default(),
            budgets: Arc::default(),
            memory,
            exchange,
            live: Live::default(),
            recorder,
            heard,
            clock,
            cold_start,
            model: Choice::default(),
            predictor_id,
        }
    }

    /// The same, with this model for hosts that are not known yet.
    #[must_use]
    pub fn forecast_by(mut self, model: Choice) -> Self {
        self.model = model;
        self
    }

    /// The live state, for those who follow it.
    #[must_use]
    pub const fn live(&self) -> &Live {
        &self.live
    }

    /// Takes a reading. When this returns, its records are durable and its figures are live.
    ///
    /// # Errors
    /// A reading that is refused, or a state file that cannot be written: then nothing is shown.
    pub async fn observe(&self, reading: HostReading) -> Result<Arc<HostUpdate>, ObserveError> {
        let span = tracing::info_span!("observe", host = reading.host_id, vms = reading.vms.len());
        trace_context::set_parent_from(&span, &reading.traceparent);
        async {
            let host_id = reading.host_id.clone();
            let host = self.host(&host_id);
            let mut state = host.lock().await;
            if state.read_at().is_none()
                && let Some(known) = self.fetch(&host_id).await
            {
                *state = known;
            }
            let traceparent = trace_context::current_traceparent().unwrap_or_default();
            let heard = self.heard.last();
            // Hosts learn side by side, each from where the prices stood when its reading came.
            let before = lock(&self.prices).clone();
            let mut prices = before.clone();
            let outgoing = state.observe(reading, &self.context(&heard, &traceparent), &mut prices)?;
            lock(&self.prices).absorb(&before, &prices);
            self.emit(&host_id, &outgoing).await?;
            Ok(outgoing.update)
        }
        .instrument(span)
        .await
    }

    /// Why a machine's harvest is what it is.
    pub async fn explain(&self, vm_id: &str, signal: Signal) -> Option<Waterfall> {
        for host in self.all() {
            if let Some(waterfall) = host.1.lock().await.explain(vm_id, signal) {
                return Some(waterfall);
            }
        }
        None
    }

    /// Closes what was open in an earlier life of this process and did not come back: what it was judged by is gone.
    async fn close_orphans(
        &self,
        orphans: Vec<memharvest_proto::registry::v1::Violation>,
    ) -> Result<(), StateFileError> {
        if orphans.is_empty() {
            return Ok(());
        }
        tracing::info!(count = orphans.len(), "closing violations that an earlier process left open");
        let violations = orphans
            .into_iter()
            .map(|mut violation| {
                violation.set_state(ViolationState::Closed);
                violation.closed_at = Some(timestamp(self.now()));
                Closing::Voided.name().clone_into(&mut violation.close_reason);
                violation.revision += 1;
                violation
            })
            .collect();
        let predictor_id = self.predictor_id.to_string();
        self.recorder
            .append(&[Pending::Violations(RecordViolationsRequest { predictor_id, violations })])
            .await
    }

    /// Looks for hosts that fell silent until told to stop.
    pub async fn watch_silence(self, stop: Stop) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tokio::select! { _ = tick.tick() => {} () = stop.requested() => return }
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "what follows from silence cannot be stored");
            }
        }
    }

    /// Stores the windows that are being filled, for a process that ends.
    pub async fn flush(&self) {
        for (_, host) in self.all() {
            let records = host.lock().await.finish(&self.context(&self.heard.last(), ""));
            if let Err(error) = self.recorder.append(&records).await {
                tracing::error!(%error, "the last windows cannot be stored");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StateFileError> {
        for (host_id, host) in self.all() {
            let mut state = host.lock().await;
            let heard = self.heard.last();
            let context = self.context(&heard, "");
            if let Some(outgoing) = state.absent(&context) {
                self.emit(&host_id, &outgoing).await?;
            }
            if state.is_forgotten(context.now) {
                let was_read = state.read_at().is_some();
                drop(state);
                lock(&self.hosts).remove(&host_id);
                if was_read {
                    self.memory.forget(&host_id).await;
                }
                if self.live.gone(&host_id) {
                    tracing::info!(host = host_id, "not read for a day, the host is forgotten");
                }
            }
        }
        Ok(())
    }

    async fn emit(&self, host_id: &str, outgoing: &Outgoing) -> Result<(), StateFileError> {
        self.recorder.append(&outgoing.records).await?;
        for judged in &outgoing.judged {
            self.memory.metrics().judged(judged);
        }
        self.memory.metrics().judged_pools(&outgoing.pooled);
        self.live.publish(host_id, outgoing.update.clone());
        Ok(())
    }

    fn context<'a>(
        &'a self,
        (boundaries, leases): &'a (Arc<BoundarySet>, Arc<LeaseSet>),
        traceparent: &'a str,
    ) -> Context<'a> {
        Context {
            predictor_id: &self.predictor_id,
            boundaries,
            leases,
            cold_start: self.cold_start.as_secs_f64(),
            now: self.now(),
            tolerance: self.clock.mesh_duration(CLOCK_TOLERANCE).as_secs_f64(),
            traceparent,
            budgets: &self.budgets,
        }
    }

    fn now(&self) -> Seconds {
        self.clock.now().as_duration().as_secs_f64()
    }

    fn host(&self, host_id: &str) -> Arc<AsyncMutex<HostState>> {
        let fresh = || Arc::new(AsyncMutex::new(HostState::forecast_by(self.model)));
        lock(&self.hosts).entry(host_id.to_owned()).or_insert_with(fresh).clone()
    }

    fn all(&self) -> Vec<(String, Arc<AsyncMutex<HostState>>)> {
        lock(&self.hosts).iter().map(|(id, host)| (id.clone(), host.clone())).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
