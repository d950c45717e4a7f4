//! The collector's metrics about itself.

use std::time::Duration;

use memharvest_services::metrics::Metrics;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

/// Counters of sampling and reporting. Clones share the same state.
#[derive(Debug, Clone)]
pub struct CollectorMetrics {
    samples: IntCounterVec,
    duration: Histogram,
    skipped: IntCounter,
    hung: IntGauge,
    refused: IntCounter,
    libvirt_up: Option<IntGauge>,
    predictor_up: IntGauge,
}

/// How a sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOutcome {
    /// There are readings.
    Read,
    /// There are none.
    Failed,
}

impl CollectorMetrics {
    /// Registers them; the state of libvirt only where it is the source.
    ///
    /// # Errors
    /// Two metrics of one name, which would be a mistake in this module.
    pub fn new(metrics: &Metrics, from_libvirt: bool) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let opts = Opts::new("memharvest_collector_samples_total", "Samples taken, by how they ended.");
        let samples = IntCounterVec::new(opts, &["outcome"])?;
        for outcome in [SampleOutcome::Read, SampleOutcome::Failed] {
            samples.with_label_values(&[outcome.word()]);
        }
        let opts = HistogramOpts::new(
            "memharvest_collector_sample_duration_seconds",
            "Wall time that a sample of all machines took.",
        )
        .buckets(vec![0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let duration = Histogram::with_opts(opts)?;
        let skipped = IntCounter::new(
            "memharvest_collector_ticks_skipped_total",
            "Ticks passed over because the sample before them was still under way.",
        )?;
        let hung = IntGauge::new(
            "memharvest_collector_hung_calls",
            "Calls to the hypervisor that hang at the moment.",
        )?;
        let refused = IntCounter::new(
            "memharvest_collector_readings_refused_total",
            "Readings that the predictor passed over.",
        )?;
        let libvirt_up = from_libvirt
            .then(|| {
                IntGauge::new("memharvest_collector_libvirt_up", "1 when the last sample reached libvirt.")
            })
            .transpose()?;
        let predictor_up = IntGauge::new(
            "memharvest_collector_predictor_up",
            "1 while the stream of readings to the predictor is open.",
        )?;
        registry.register(Box::new(samples.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(skipped.clone()))?;
        registry.register(Box::new(hung.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(predictor_up.clone()))?;
        if let Some(up) = &libvirt_up {
            registry.register(Box::new(up.clone()))?;
        }
        Ok(Self { samples, duration, skipped, hung, refused, libvirt_up, predictor_up })
    }

    /// A sample ended.
    pub fn sampled(&self, outcome: SampleOutcome, took: Duration, hung: usize) {
        self.samples.with_label_values(&[outcome.word()]).inc();
        self.duration.observe(took.as_secs_f64());
        self.hung.set(i64::try_from(hung).unwrap_or(i64::MAX));
        if let Some(up) = &self.libvirt_up {
            up.set((outcome == SampleOutcome::Read).into());
        }
    }

    /// Ticks were passed over.
    pub fn skipped(&self, ticks: u64) {
        self.skipped.inc_by(ticks);
    }

    /// The predictor passed over a reading.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// The stream to the predictor was opened or ended.
    pub fn predictor_up(&self, up: bool) {
        self.predictor_up.set(up.into());
    }
}

impl SampleOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Failed => "failed",
        }
    }
}
