//! The parts of the REST API's JSON that the verbs show. Further fields are welcome, and an absent one is absent.
#![expect(clippy::struct_field_names, reason = "the fields are named as the API names them")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// Text that may be null.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// A host.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Host {
    /// Its identity.
    pub(crate) host: String,
    /// Its name.
    #[serde(default, deserialize_with = "text")]
    pub(crate) name: String,
    /// live, stale or lost.
    #[serde(default, deserialize_with = "text")]
    pub(crate) state: String,
    /// Its labels.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Machines that run.
    pub(crate) vms_running: Option<u64>,
    /// Physical memory.
    pub(crate) total_bytes: Option<u64>,
    /// Memory that new work could get.
    pub(crate) available_bytes: Option<u64>,
    /// Sum of allocations.
    pub(crate) allocated_bytes: Option<u64>,
    /// Sum of resident sets.
    pub(crate) rss_bytes: Option<u64>,
    /// Sum of forecasts of the resident set.
    pub(crate) predicted_rss_bytes: Option<u64>,
    /// Sum of what its machines yield.
    pub(crate) harvestable_bytes: Option<u64>,
    /// What the forecast of the summed usage yields.
    pub(crate) pooled_harvestable_bytes: Option<u64>,
    /// What balloons could add.
    pub(crate) reclaimable_bytes: Option<u64>,
    /// Under lease.
    pub(crate) leased_bytes: Option<u64>,
    /// When it was read.
    pub(crate) read_at: Option<Timestamp>,
    /// Where the circuit breaker stands.
    pub(crate) breaker: Option<String>,
    /// Why it is not closed.
    pub(crate) breaker_reason: Option<String>,
    /// Forecasts judged and held.
    #[serde(default)]
    pub(crate) coverage: Vec<Coverage>,
}

/// How many forecasts were judged, and how many held.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Coverage {
    /// Share of forecasts that may be exceeded.
    pub(crate) target_violation_rate: Option<f64>,
    /// Forecasts judged.
    #[serde(default)]
    pub(crate) judged: u64,
    /// Of these, those that held.
    #[serde(default)]
    pub(crate) held: u64,
}

/// A virtual machine.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Vm {
    /// UUID.
    pub(crate) vm: String,
    /// Its name.
    #[serde(default, deserialize_with = "text")]
    pub(crate) name: String,
    /// Its host.
    #[serde(default, deserialize_with = "text")]
    pub(crate) host: String,
    /// What it does.
    #[serde(default, deserialize_with = "text")]
    pub(crate) state: String,
    /// How far its figures can be trusted.
    #[serde(default, deserialize_with = "text")]
    pub(crate) quality: String,
    /// What the guest holds.
    pub(crate) allocated_bytes: Option<u64>,
    /// What it was defined with.
    pub(crate) maximum_bytes: Option<u64>,
    /// Resident set.
    pub(crate) rss_bytes: Option<u64>,
    /// What the guest itself needs.
    pub(crate) demand_bytes: Option<u64>,
    /// Forecast of the resident set.
    pub(crate) predicted_rss_bytes: Option<u64>,
    /// Forecast of demand.
    pub(crate) predicted_demand_bytes: Option<u64>,
    /// Not touched and not expected to be.
    pub(crate) harvestable_bytes: Option<u64>,
    /// What a balloon could add.
    pub(crate) reclaimable_bytes: Option<u64>,
    /// When it was read.
    pub(crate) read_at: Option<Timestamp>,
    /// Until when that counts.
    pub(crate) valid_until: Option<Timestamp>,
    /// Age of the guest's own figures.
    pub(crate) stats_age_seconds: Option<f64>,
    /// When something can be harvested at the earliest.
    pub(crate) warm_at: Option<Timestamp>,
    /// What takes most off besides the prediction.
    pub(crate) limited_by: Option<String>,
    /// Open violations.
    pub(crate) violations_open: Option<u64>,
}

/// Why a harvest is what it is.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Waterfall {
    /// rss or demand.
    #[serde(default, deserialize_with = "text")]
    pub(crate) signal: String,
    /// Before anything is taken off.
    pub(crate) start_bytes: u64,
    /// What is taken off, in order.
    pub(crate) terms: Vec<Term>,
    /// What is left.
    pub(crate) result_bytes: u64,
    /// When something can be harvested at the earliest.
    pub(crate) warm_at: Option<Timestamp>,
}

/// One step of a waterfall.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Term {
    /// Which step.
    pub(crate) name: String,
    /// What it takes off.
    pub(crate) bytes: u64,
    /// Why, as a word.
    pub(crate) limited_by: Option<String>,
    /// Why, as a sentence.
    pub(crate) detail: Option<String>,
}

/// An episode of usage above what was predicted, promised or allowed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Violation {
    /// Its id.
    pub(crate) id: String,
    /// The machine.
    #[serde(default, deserialize_with = "text")]
    pub(crate) vm: String,
    /// Its name.
    pub(crate) vm_name: Option<String>,
    /// Its host.
    #[serde(default, deserialize_with = "text")]
    pub(crate) host: String,
    /// forecast, promise or boundary.
    #[serde(default, deserialize_with = "text")]
    pub(crate) kind: String,
    /// rss or demand.
    #[serde(default, deserialize_with = "text")]
    pub(crate) signal: String,
    /// open or closed.
    #[serde(default, deserialize_with = "text")]
    pub(crate) state: String,
    /// When usage first exceeded.
    pub(crate) opened_at: Option<Timestamp>,
    /// When it was over.
    pub(crate) closed_at: Option<Timestamp>,
    /// Why it closed.
    pub(crate) close_reason: Option<String>,
    /// What was predicted.
    pub(crate) predicted_bytes: Option<u64>,
    /// Peak usage.
    pub(crate) actual_bytes: Option<u64>,
    /// Peak usage above what was predicted.
    pub(crate) overshoot_bytes: Option<u64>,
    /// The same as a share of the allocation.
    pub(crate) overshoot_ratio: Option<f64>,
    /// Which model predicted.
    pub(crate) model_version: Option<String>,
    /// Which boundaries held.
    pub(crate) boundary_version: Option<String>,
    /// Who acknowledged it.
    pub(crate) acknowledged_by: Option<String>,
    /// The note with it.
    pub(crate) note: Option<String>,
    /// Who explained it.
    pub(crate) explained_by: Option<String>,
    /// The explanation.
    pub(crate) explanation: Option<String>,
}

impl Violation {
    /// Its machine's name, or its UUID where it has none.
    pub(crate) fn machine(&self) -> &str {
        self.vm_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.vm)
    }
}

/// A process of the mesh.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Agent {
    /// Its identity.
    pub(crate) id: String,
    /// collector, predictor, gateway or registry.
    #[serde(default, deserialize_with = "text")]
    pub(crate) kind: String,
    /// Its host's name.
    #[serde(default, deserialize_with = "text")]
    pub(crate) name: String,
    /// live, late, lost or decommissioned.
    #[serde(default, deserialize_with = "text")]
    pub(crate) state: String,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Where its gRPC is.
    pub(crate) address: Option<String>,
    /// Where its metrics are.
    pub(crate) admin_address: Option<String>,
    /// When it was last heard, on the wall's clock.
    pub(crate) last_seen_at: Option<Timestamp>,
    /// Another process with the same id.
    pub(crate) duplicate_instance_id: Option<String>,
    /// What keeps its machines from being measured well.
    #[serde(default)]
    pub(crate) findings: Vec<Finding>,
}

/// What keeps a host or a machine from being measured well.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Finding {
    /// The machine.
    pub(crate) vm: Option<String>,
    /// Its name.
    pub(crate) vm_name: Option<String>,
    /// Short word for the cause.
    #[serde(default, deserialize_with = "text")]
    pub(crate) code: String,
    /// info, warning or error.
    #[serde(default, deserialize_with = "text")]
    pub(crate) severity: String,
    /// The cause.
    #[serde(default, deserialize_with = "text")]
    pub(crate) cause: String,
    /// The cure.
    #[serde(default, deserialize_with = "text")]
    pub(crate) cure: String,
}

/// Sums over the fleet.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fleet {
    /// Machines that run.
    pub(crate) vms: Option<u64>,
    /// Sum of allocations.
    pub(crate) allocated_bytes: Option<u64>,
    /// Sum of resident sets.
    pub(crate) rss_bytes: Option<u64>,
    /// Sum of forecasts.
    pub(crate) predicted_rss_bytes: Option<u64>,
    /// Not touched and not expected to be.
    pub(crate) harvestable_bytes: Option<u64>,
    /// What balloons could add.
    pub(crate) reclaimable_bytes: Option<u64>,
    /// Forecasts judged and held.
    #[serde(default)]
    pub(crate) coverage_by_forecast: Vec<Coverage>,
    /// The newest reading.
    pub(crate) read_at: Option<Timestamp>,
}
