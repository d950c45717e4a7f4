//! What a batch of history must look like.

use memharvest_proto::collector::v1::{Quality, Signal};
use memharvest_proto::registry::v1::{
    CoverageRollup, HostHarvest, HostRollup, RecordHarvestRequest, VmRollup,
};

use crate::check::{Check, MAX_TEXT};

/// Most records in one batch.
pub(super) const MAX_RECORDS: usize = 20_000;

/// Longest window, in seconds.
const MAX_WINDOW_S: i64 = 86_400;

/// Most readings in a window: ten a second for a day come near it.
const MAX_READINGS: u32 = 1_000_000;

/// Most machines on a host.
const MAX_VMS: u32 = 100_000;

/// Most judged forecasts: as many as a column holds.
const MAX_COUNT: u64 = i64::MAX as u64;

/// Fields that are wrong are told up to here; a batch of thousands would make an endless message.
const MAX_WRONG: usize = 20;

/// Notes what is wrong with a batch.
pub(super) fn check_batch(check: &mut Check, batch: &RecordHarvestRequest) {
    check.id("predictor_id", &batch.predictor_id);
    check.text("traceparent", &batch.traceparent, MAX_TEXT);
    let records = batch.vms.len() + batch.hosts.len() + batch.harvests.len() + batch.coverage.len();
    if records > MAX_RECORDS {
        check.wrong.add(
            "vms",
            format!("{records} records are more than the {MAX_RECORDS} of one batch; send it in parts"),
        );
        return;
    }
    each(check, "vms", &batch.vms, check_vm);
    each(check, "hosts", &batch.hosts, check_host);
    each(check, "harvests", &batch.harvests, check_harvest);
    each(check, "coverage", &batch.coverage, check_coverage);
}

/// Looks at every record by itself, and spells out where it is in the batch only if it is wrong.
fn each<T>(check: &mut Check, list: &str, records: &[T], one: fn(&mut Check, &T)) {
    for (i, record) in records.iter().enumerate() {
        if check.wrong.as_slice().len() >= MAX_WRONG {
            return;
        }
        check.nested(|| format!("{list}[{i}]"), |own| one(own, record));
    }
}

/// A window begins at a whole second and lasts whole seconds: so it is stored.
fn check_window(
    check: &mut Check,
    start: Option<&prost_types::Timestamp>,
    window: Option<&prost_types::Duration>,
) {
    if check.instant("window_start", start).is_some_and(|ns| ns % 1_000_000_000 != 0) {
        check.wrong.add("window_start", "must be a whole second");
    }
    let length = check.duration_or_none("window", window, 1, MAX_WINDOW_S);
    check.that(window.is_some(), "window", "must be given");
    check.that(length.is_none_or(|ns| ns % 1_000_000_000 == 0), "window", "must be whole seconds");
}

fn check_vm(check: &mut Check, vm: &VmRollup) {
    check.vm("vm_id", &vm.vm_id);
    check.text("vm_name", &vm.vm_name, MAX_TEXT);
    check.id("host_id", &vm.host_id);
    check_window(check, vm.window_start.as_ref(), vm.window.as_ref());
    check.that(Quality::try_from(vm.quality).is_ok(), "quality", "must be a known quality");
    check.that(vm.readings <= MAX_READINGS, "readings", "must be at most 1000000");
    for (field, bytes) in [
        ("allocated_bytes", vm.allocated_bytes),
        ("maximum_bytes", vm.maximum_bytes),
        ("rss_max_bytes", vm.rss_max_bytes),
        ("rss_mean_bytes", vm.rss_mean_bytes),
        ("demand_max_bytes", vm.demand_max_bytes),
        ("demand_mean_bytes", vm.demand_mean_bytes),
        ("predicted_rss_bytes", vm.predicted_rss_bytes),
        ("predicted_demand_bytes", vm.predicted_demand_bytes),
        ("harvestable_bytes", vm.harvestable_bytes),
        ("reclaimable_bytes", vm.reclaimable_bytes),
    ] {
        check.bytes(field, bytes);
    }
}

fn check_host(check: &mut Check, host: &HostRollup) {
    check.id("host_id", &host.host_id);
    check.text("host_name", &host.host_name, MAX_TEXT);
    check_window(check, host.window_start.as_ref(), host.window.as_ref());
    check.that(host.readings <= MAX_READINGS, "readings", "must be at most 1000000");
    check.that(host.vms_running <= MAX_VMS, "vms_running", "must be at most 100000");
    for (field, bytes) in [
        ("total_bytes", host.total_bytes),
        ("available_min_bytes", host.available_min_bytes),
        ("allocated_bytes", host.allocated_bytes),
        ("rss_max_bytes", host.rss_max_bytes),
        ("harvestable_bytes", host.harvestable_bytes),
        ("pooled_harvestable_bytes", host.pooled_harvestable_bytes),
        ("reclaimable_bytes", host.reclaimable_bytes),
    ] {
        check.bytes(field, bytes);
    }
}

fn check_harvest(check: &mut Check, harvest: &HostHarvest) {
    check.id("host_id", &harvest.host_id);
    check.instant("read_at", harvest.read_at.as_ref());
    check.instant("valid_until", harvest.valid_until.as_ref());
    check.bytes("harvestable_bytes", Some(harvest.harvestable_bytes));
}

fn check_coverage(check: &mut Check, coverage: &CoverageRollup) {
    check.id("host_id", &coverage.host_id);
    check.that(coverage.signal() != Signal::Unspecified, "signal", "must be rss or demand");
    check.that(coverage.horizon.is_some(), "horizon", "must be given");
    check.duration_or_none("horizon", coverage.horizon.as_ref(), 1, 86_400);
    check.within("target_violation_rate", coverage.target_violation_rate, 0.0, 1.0);
    if check.instant("window_start", coverage.window_start.as_ref()).is_some_and(|ns| ns % 1_000_000_000 != 0)
    {
        check.wrong.add("window_start", "must be a whole second");
    }
    check.that(coverage.judged <= MAX_COUNT, "judged", "is too large");
    check.that(coverage.held <= coverage.judged, "held", "must be at most judged");
}
