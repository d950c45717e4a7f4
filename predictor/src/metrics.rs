//! What a predictor says of itself on its admin page, besides what every process does.

use memharvest_proto::predictor::v1::Coverage;
use memharvest_services::metrics::Metrics;
use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::convert;
use crate::coverage::Judged;
use crate::domain::Signal;

/// The predictor's own metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct PredictorMetrics {
    judged: IntCounterVec,
    held: IntCounterVec,
    pools: [IntCounter; 2],
    restored: IntCounter,
    refused: IntCounter,
    unsaved: IntCounter,
}

impl PredictorMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Two metrics of one name, which would be a mistake in this module.
    pub fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let by_terms = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &["signal", "horizon", "target"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            judged: by_terms(
                "memharvest_forecasts_judged_total",
                "Raw forecasts whose horizon has passed, by signal, horizon in seconds and target violation rate.",
            )?,
            held: by_terms(
                "memharvest_forecasts_held_total",
                "Of the judged raw forecasts, those that usage did not exceed.",
            )?,
            pools: [
                counter(
                    "memharvest_pooled_forecasts_judged_total",
                    "Raw forecasts of a host's summed usage whose horizon has passed.",
                )?,
                counter(
                    "memharvest_pooled_forecasts_held_total",
                    "Of the judged raw forecasts of a host's summed usage, those that it did not exceed.",
                )?,
            ],
            restored: counter(
                "memharvest_snapshots_restored_total",
                "Machines whose state came back from a snapshot.",
            )?,
            refused: counter(
                "memharvest_snapshots_refused_total",
                "Snapshots that were damaged, foreign, too old or of another version; what they were of starts cold.",
            )?,
            unsaved: counter(
                "memharvest_snapshots_failed_total",
                "Hosts whose state could not be written to the data folder.",
            )?,
        })
    }

    /// Counts raw forecasts that were judged, and those of them that held.
    pub fn judged(&self, coverage: &Coverage) {
        let signal = convert::signal(coverage.signal()).map_or("unspecified", Signal::name);
        let horizon = coverage.horizon.as_ref().map_or(0.0, convert::span).to_string();
        let target = coverage.target_violation_rate.to_string();
        let labels = [signal, horizon.as_str(), target.as_str()];
        self.judged.with_label_values(&labels).inc_by(coverage.judged);
        self.held.with_label_values(&labels).inc_by(coverage.held);
    }

    /// Counts raw forecasts of hosts' summed usage.
    pub fn judged_pools(&self, judged: &Judged) {
        self.pools[0].inc_by(judged.forecasts);
        self.pools[1].inc_by(judged.held);
    }

    /// Counts machines that came back.
    pub fn restored(&self, machines: usize) {
        self.restored.inc_by(machines as u64);
    }

    /// Counts snapshots that were refused.
    pub fn refused(&self, snapshots: usize) {
        self.refused.inc_by(snapshots as u64);
    }

    /// Counts a host that could not be saved.
    pub fn unsaved(&self) {
        self.unsaved.inc();
    }
}
