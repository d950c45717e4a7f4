//! The registry's own metrics, beside those that every process has.

use memharvest_proto::registry::v1::RecordHarvestRequest;
use memharvest_services::metrics::Metrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use crate::store::Stored;

/// What was stored, how much there is, and what was pruned. Clones share the same state.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    stored: IntCounterVec,
    pruned: IntCounter,
    folded: IntCounter,
    checkpoint_failures: IntCounter,
    vms: IntGauge,
    hosts: IntGauge,
    database_bytes: IntGauge,
}

impl RegistryMetrics {
    /// Registers them with the process's metrics.
    ///
    /// # Errors
    /// One of the names is taken.
    pub fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let stored = IntCounterVec::new(
            Opts::new(
                "memharvest_registry_records_stored_total",
                "Records made durable since the process started.",
            ),
            &["kind"],
        )?;
        let pruned = IntCounter::new(
            "memharvest_registry_records_pruned_total",
            "Records of history removed because they were older than the retention.",
        )?;
        let folded = IntCounter::new(
            "memharvest_registry_records_folded_total",
            "Records of history merged to hourly ones because they were old.",
        )?;
        let checkpoint_failures = IntCounter::new(
            "memharvest_registry_checkpoint_failures_total",
            "Times that the heartbeats could not be written down.",
        )?;
        let vms =
            IntGauge::new("memharvest_registry_vms_known", "Virtual machines that the history speaks of.")?;
        let hosts = IntGauge::new("memharvest_registry_hosts_known", "Hosts that the history speaks of.")?;
        let database_bytes = IntGauge::new(
            "memharvest_registry_database_bytes",
            "Size of the database on disk, its log included.",
        )?;
        let registry = metrics.registry();
        registry.register(Box::new(stored.clone()))?;
        registry.register(Box::new(pruned.clone()))?;
        registry.register(Box::new(folded.clone()))?;
        registry.register(Box::new(checkpoint_failures.clone()))?;
        registry.register(Box::new(vms.clone()))?;
        registry.register(Box::new(hosts.clone()))?;
        registry.register(Box::new(database_bytes.clone()))?;
        let all = Self { stored, pruned, folded, checkpoint_failures, vms, hosts, database_bytes };
        for kind in ["vm_rollup", "host_rollup", "host_harvest", "coverage", "violation"] {
            all.count(kind, 0);
        }
        Ok(all)
    }

    fn count(&self, kind: &str, records: usize) {
        self.stored.with_label_values(&[kind]).inc_by(records as u64);
    }

    /// A batch of history is durable.
    pub(crate) fn harvest_recorded(&self, batch: &RecordHarvestRequest) {
        self.count("vm_rollup", batch.vms.len());
        self.count("host_rollup", batch.hosts.len());
        self.count("host_harvest", batch.harvests.len());
        self.count("coverage", batch.coverage.len());
    }

    /// So many violations were stored or brought forward.
    pub(crate) fn violations_recorded(&self, violations: u64) {
        self.stored.with_label_values(&["violation"]).inc_by(violations);
    }

    /// So many records of history were removed.
    pub(crate) fn pruned(&self, records: u64) {
        self.pruned.inc_by(records);
    }

    /// So many records of history were merged to hourly ones.
    pub(crate) fn folded(&self, records: u64) {
        self.folded.inc_by(records);
    }

    /// The heartbeats could not be written down.
    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoint_failures.inc();
    }

    /// How much is stored now.
    pub(crate) fn set_stored(&self, stored: Stored) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.vms, stored.vms);
        set(&self.hosts, stored.hosts);
        set(&self.database_bytes, stored.bytes);
    }
}
