//! The rhythm of sampling: a tick every interval, never two at a time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
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
        let first = self.wall_interval().min(FIRST_TICK_WITHIN).mul_f64(rng.random_range(0.0..1.0));
        let rhythm =
            Rhythm { clock: self.clock, interval: self.wall_interval(), next: Instant::now() + first };
        let mut source = SourceThread::start(source, rhythm)?;
        let mut outage = Outage::default();
        loop {
            let sample = tokio::select! {
                () = stop.requested() => return Ok(()),
                sample = source.samples.recv() => sample.ok_or_else(died)?,
                Ok(()) = self.interval.changed() => {
                    source.keep_to(self.wall_interval())?;
                    continue;
                }
            };
            self.metrics.skipped(sample.skipped);
            let outcome = self.take_in(sample);
            outage.note(outcome.as_ref().err());
            match outcome {
                Ok(()) => self.ready.ready(),
                Err(error @ SampleError::Unusable(_)) if !outage.was_ever_up() => return Err(error),
                Err(_) => self.ready.not_ready(),
            }
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

/// When samples are taken.
#[derive(Debug)]
struct Rhythm {
    clock: MeshClock,
    /// Between two ticks, on the wall clock.
    interval: Duration,
    next: Instant,
}

impl Rhythm {
    /// Waits for the next tick. A new interval that is told meanwhile brings it forward, but never puts it off. False: nobody
    /// wants samples any more.
    fn wait(&mut self, intervals: &Receiver<Duration>) -> bool {
        loop {
            match intervals.recv_timeout(self.next.saturating_duration_since(Instant::now())) {
                Ok(interval) => {
                    self.interval = interval;
                    self.next = self.next.min(Instant::now() + interval);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn sample(&mut self, source: &mut dyn Hypervisor) -> Sample {
        let interval = self.clock.mesh_duration(self.interval);
        let tick = Tick { at: self.clock.now(), interval, budget: self.interval };
        let began = Instant::now();
        let span = tracing::info_span!("sample", hosts = field::Empty, machines = field::Empty);
        let outcome = span.in_scope(|| source.sample(tick));
        let (took, hung) = (began.elapsed(), source.hung_calls());
        let skipped;
        (self.next, skipped) = following(self.next, self.interval, Instant::now());
        Sample { tick, outcome, hung, took, skipped, span }
    }
}

/// A sample that was taken.
#[derive(Debug)]
struct Sample {
    tick: Tick,
    outcome: Result<Vec<HostReading>, SampleError>,
    hung: usize,
    took: Duration,
    /// Ticks that had to be left out meanwhile.
    skipped: u64,
    span: Span,
}

/// The thread that a source blocks, and that keeps the rhythm too: a timer of the runtime wakes several times on its
/// way to a tick, and an order for each tick would wake the thread once more. It ends when this is dropped and its
/// last call has returned.
struct SourceThread {
    intervals: Sender<Duration>,
    samples: mpsc::Receiver<Sample>,
}

impl SourceThread {
    fn start(mut source: Box<dyn Hypervisor>, mut rhythm: Rhythm) -> Result<Self, SampleError> {
        let (intervals, changes) = std::sync::mpsc::channel();
        let (taken, samples) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("sampler".into())
            .spawn(
                move || {
                    while rhythm.wait(&changes) && taken.blocking_send(rhythm.sample(&mut *source)).is_ok() {}
                },
            )
            .map_err(|error| SampleError::Unreachable(format!("cannot start a thread: {error}")))?;
        Ok(Self { intervals, samples })
    }

    fn keep_to(&self, interval: Duration) -> Result<(), SampleError> {
        self.intervals.send(interval).map_err(|_| died())
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
