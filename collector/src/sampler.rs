//! The rhythm of sampling: a tick every interval, never two at a time.

use std::sync::Arc;
use std::sync::mpsc::{self as orders, RecvTimeoutError};
use std::time::{Duration, Instant};

use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::readiness::Part;
use memharvest_services::shutdown::Stop;
use memharvest_services::trace_context;
use rand::{Rng, RngExt};
use tokio::sync::{mpsc, watch};
use tracing::{Span, field};

use crate::collector_metrics::{CollectorMetrics, SampleOutcome};
use crate::doctor::Doctor;
use crate::hypervisor::{Hypervisor, SampleError, Tick};
use crate::latest::Latest;
use crate::outbox::Outbox;
use crate::reading::HostReading;

/// The longest pause before the first tick.
const FIRST_TICK_WITHIN: Duration = Duration::from_secs(5);

/// The shortest time between two ticks on the wall clock, however fast the mesh clock runs.
const SHORTEST: Duration = Duration::from_millis(5);

/// All that a sample is handed to.
#[derive(Debug)]
pub struct Sampler {
    /// The clock of the readings.
    pub clock: MeshClock,
    /// How often to sample, in mesh time; may change at any time.
    pub interval: watch::Receiver<Duration>,
    /// Where the newest reading is kept.
    pub latest: Latest,
    /// Where readings wait for the predictor.
    pub outbox: Outbox,
    /// What is wrong with the machines.
    pub doctor: Doctor,
    /// Counters.
    pub metrics: CollectorMetrics,
    /// Ready while samples succeed.
    pub ready: Part,
}

impl Sampler {
    /// Samples `source` until told to stop. Ticks begin within one interval, spread by `rng`, so that the collectors of a
    /// fleet that was started together do not report together.
    ///
    /// # Errors
    /// The source can never work, as the first sample shows, or it panicked.
    pub async fn run(
        mut self,
        source: Box<dyn Hypervisor>,
        mut rng: impl Rng + Send,
        stop: Stop,
    ) -> Result<(), SampleError> {
        let mut source = SourceThread::start(source)?;
        let first = self.wall_interval().min(FIRST_TICK_WITHIN).mul_f64(rng.random_range(0.0..1.0));
        let mut next = Instant::now() + first;
        let mut outage = Outage::default();
        loop {
            source.order(Order { due: next, clock: self.clock, budget: self.wall_interval() })?;
            let sample = tokio::select! {
                () = stop.requested() => return Ok(()),
                sample = source.samples.recv() => sample.ok_or_else(died)?,
                Ok(()) = self.interval.changed() => {
                    next = next.min(Instant::now() + self.wall_interval());
                    continue;
                }
            };
            let outcome = self.take_in(sample);
            outage.note(outcome.as_ref().err());
            match outcome {
                Ok(()) => self.ready.ready(),
                Err(error @ SampleError::Unusable(_)) if !outage.was_ever_up() => return Err(error),
                Err(_) => self.ready.not_ready(),
            }
            let (following, skipped) = following(next, self.wall_interval(), Instant::now());
            next = following;
            self.metrics.skipped(skipped);
        }
    }

    fn wall_interval(&self) -> Duration {
        self.clock.wall_duration(*self.interval.borrow()).max(SHORTEST)
    }

    fn take_in(&self, sample: Sample) -> Result<(), SampleError> {
        let kind = if sample.outcome.is_ok() { SampleOutcome::Read } else { SampleOutcome::Failed };
        self.metrics.sampled(kind, sample.took, sample.hung);
        self.doctor.unreachable(sample.outcome.as_ref().err(), sample.tick.at);
        let readings = self.keep(sample.outcome?, &sample.span);
        self.outbox.push(&readings);
        Ok(())
    }

    /// Keeps the readings, marked with the span that they were taken in.
    fn keep(&self, readings: Vec<HostReading>, span: &Span) -> Vec<Arc<HostReading>> {
        let machines: usize = readings.iter().map(|reading| reading.vms.len()).sum();
        span.record("hosts", readings.len()).record("machines", machines);
        let traceparent = span.in_scope(trace_context::current_traceparent).unwrap_or_default();
        readings
            .into_iter()
            .map(|mut reading| {
                reading.traceparent.clone_from(&traceparent);
                self.doctor.examine(&reading);
                let reading = Arc::new(reading);
                self.latest.put(Arc::clone(&reading));
                reading
            })
            .collect()
    }
}

/// The tick after `previous`, on its rhythm, and how many were missed.
fn following(previous: Instant, interval: Duration, now: Instant) -> (Instant, u64) {
    let late = now.saturating_duration_since(previous);
    let skipped = u64::try_from(late.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX);
    (
        previous + interval.saturating_mul(u32::try_from(skipped).unwrap_or(u32::MAX).saturating_add(1)),
        skipped,
    )
}

/// Says once that sampling fails, and once that it works again.
#[derive(Debug, Default)]
struct Outage {
    last: Option<SampleError>,
    up: bool,
}

impl Outage {
    fn note(&mut self, error: Option<&SampleError>) {
        match (error, &self.last) {
            (Some(SampleError::Ended), None) => {
                tracing::info!("the trace is at its end: there are no more readings");
            }
            (Some(error), last)
                if last.as_ref().map(std::mem::discriminant) != Some(std::mem::discriminant(error)) =>
            {
                tracing::warn!(%error, "no readings");
            }
            (None, Some(_)) => tracing::info!("readings again"),
            _ => {}
        }
        self.up |= error.is_none();
        self.last = error.cloned();
    }

    fn was_ever_up(&self) -> bool {
        self.up
    }
}

/// A sample to be taken.
#[derive(Debug)]
struct Order {
    due: Instant,
    clock: MeshClock,
    budget: Duration,
}

impl Order {
    fn take(&self, source: &mut dyn Hypervisor) -> Sample {
        let interval = self.clock.mesh_duration(self.budget);
        let tick = Tick { at: self.clock.now(), interval, budget: self.budget };
        let began = Instant::now();
        let span = tracing::info_span!("sample", hosts = field::Empty, machines = field::Empty);
        let outcome = span.in_scope(|| source.sample(tick));
        Sample { tick, outcome, hung: source.hung_calls(), took: began.elapsed(), span }
    }
}

/// A sample that was taken.
#[derive(Debug)]
struct Sample {
    tick: Tick,
    outcome: Result<Vec<HostReading>, SampleError>,
    hung: usize,
    took: Duration,
    span: Span,
}

/// The thread that a source blocks, and that waits for the tick too: a timer of the runtime wakes several times on its
/// way to one. It ends when this is dropped and its last call has returned.
struct SourceThread {
    orders: orders::Sender<Order>,
    samples: mpsc::Receiver<Sample>,
}

impl SourceThread {
    fn start(mut source: Box<dyn Hypervisor>) -> Result<Self, SampleError> {
        let (orders, queue) = orders::channel::<Order>();
        let (taken, samples) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || {
                while let Some(order) = next_due(&queue) {
                    if taken.blocking_send(order.take(&mut *source)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| SampleError::Unreachable(format!("cannot start a thread: {error}")))?;
        Ok(Self { orders, samples })
    }

    /// Has a sample taken when it is due, in place of one that was ordered and is not due yet.
    fn order(&self, order: Order) -> Result<(), SampleError> {
        self.orders.send(order).map_err(|_| died())
    }
}

/// Waits until an order is due; a newer one takes its place. None: nobody orders any more.
fn next_due(orders: &orders::Receiver<Order>) -> Option<Order> {
    let mut order = orders.recv().ok()?;
    loop {
        match orders.recv_timeout(order.due.saturating_duration_since(Instant::now())) {
            Ok(newer) => order = newer,
            Err(RecvTimeoutError::Timeout) => return Some(order),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn died() -> SampleError {
    SampleError::Unreachable("the sampling thread ended".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_skipped_and_the_rhythm_is_kept() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let interval = Duration::from_secs(1);
        assert_eq!(following(start, interval, at(10)), (at(1000), 0));
        assert_eq!(following(start, interval, at(999)), (at(1000), 0));
        assert_eq!(following(start, interval, at(1500)), (at(2000), 1));
        assert_eq!(following(start, interval, at(5100)), (at(6000), 5));
    }
}
