//! Rows of history to windows.

use memharvest_proto::registry::v1::{CoverageRollup, HostRollup, VmRollup};
use sqlx::Row as _;

use super::{Row, fields};

/// The usual length of a window, which is stored as NULL.
pub(super) const USUAL_WINDOW_S: i64 = 300;

fn window(row: &Row) -> sqlx::Result<(prost_types::Timestamp, prost_types::Duration)> {
    let (hour, offset): (i64, i64) = (row.try_get("hour")?, row.try_get("offset_s")?);
    let length: Option<i64> = row.try_get("window_s")?;
    let start = prost_types::Timestamp { seconds: hour * 3600 + offset, nanos: 0 };
    Ok((start, prost_types::Duration { seconds: length.unwrap_or(USUAL_WINDOW_S), nanos: 0 }))
}

pub(super) fn get_vm_rollup(row: &Row) -> sqlx::Result<VmRollup> {
    let (window_start, window) = window(row)?;
    Ok(VmRollup {
        vm_id: fields::get_vm(row, "vm_id")?,
        vm_name: row.try_get("vm_name")?,
        host_id: row.try_get("host_id")?,
        window_start: Some(window_start),
        window: Some(window),
        readings: fields::small(row.try_get("readings")?),
        quality: row.try_get("quality")?,
        allocated_bytes: fields::get_count_or_none(row, "allocated")?,
        rss_max_bytes: fields::get_count_or_none(row, "rss_max")?,
        rss_mean_bytes: fields::get_count_or_none(row, "rss_mean")?,
        demand_max_bytes: fields::get_count_or_none(row, "demand_max")?,
        demand_mean_bytes: fields::get_count_or_none(row, "demand_mean")?,
        predicted_rss_bytes: fields::get_count_or_none(row, "predicted_rss")?,
        predicted_demand_bytes: fields::get_count_or_none(row, "predicted_demand")?,
        harvestable_bytes: fields::get_count_or_none(row, "harvestable")?,
        reclaimable_bytes: fields::get_count_or_none(row, "reclaimable")?,
        maximum_bytes: fields::get_count_or_none(row, "maximum")?,
    })
}

/// The columns of a window without its hour, its machine and its host, in the order of [`SeriesColumns`].
pub(super) const SERIES_COLUMNS: &str = "r.offset_s, r.window_s, r.readings, r.quality, r.allocated, r.rss_max, r.rss_mean,
    r.demand_max, r.demand_mean, r.predicted_rss, r.predicted_demand, r.harvestable, r.reclaimable, r.maximum";

/// An optional figure.
type Figure = Option<i64>;
/// What is in them. They go by their places: there are many.
#[rustfmt::skip]
pub(super) type SeriesColumns =
    (i64, Option<i64>, i64, i32, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure);

/// A window without its machine and its host.
pub(super) fn series_window(hour: i64, columns: SeriesColumns) -> VmRollup {
    let bytes = |figure: Figure| figure.map(fields::count);
    let (offset, length, readings, quality, ..) = columns;
    VmRollup {
        window_start: Some(prost_types::Timestamp { seconds: hour * 3600 + offset, nanos: 0 }),
        window: Some(prost_types::Duration { seconds: length.unwrap_or(USUAL_WINDOW_S), nanos: 0 }),
        readings: fields::small(readings),
        quality,
        allocated_bytes: bytes(columns.4),
        rss_max_bytes: bytes(columns.5),
        rss_mean_bytes: bytes(columns.6),
        demand_max_bytes: bytes(columns.7),
        demand_mean_bytes: bytes(columns.8),
        predicted_rss_bytes: bytes(columns.9),
        predicted_demand_bytes: bytes(columns.10),
        harvestable_bytes: bytes(columns.11),
        reclaimable_bytes: bytes(columns.12),
        maximum_bytes: bytes(columns.13),
        ..VmRollup::default()
    }
}

pub(super) fn get_host_rollup(row: &Row) -> sqlx::Result<HostRollup> {
    let (window_start, window) = window(row)?;
    Ok(HostRollup {
        host_id: row.try_get("host_id")?,
        host_name: row.try_get("host_name")?,
        window_start: Some(window_start),
        window: Some(window),
        readings: fields::small(row.try_get("readings")?),
        vms_running: fields::small(row.try_get("vms_running")?),
        total_bytes: fields::get_count_or_none(row, "total")?,
        available_min_bytes: fields::get_count_or_none(row, "available_min")?,
        allocated_bytes: fields::get_count_or_none(row, "allocated")?,
        rss_max_bytes: fields::get_count_or_none(row, "rss_max")?,
        harvestable_bytes: fields::get_count_or_none(row, "harvestable")?,
        pooled_harvestable_bytes: fields::get_count_or_none(row, "pooled_harvestable")?,
        reclaimable_bytes: fields::get_count_or_none(row, "reclaimable")?,
    })
}

pub(super) fn get_coverage(row: &Row) -> sqlx::Result<CoverageRollup> {
    Ok(CoverageRollup {
        host_id: row.try_get("host_id")?,
        signal: row.try_get("signal")?,
        horizon: fields::get_duration(row, "horizon_ns")?,
        target_violation_rate: row.try_get("target_violation_rate")?,
        window_start: Some(prost_types::Timestamp { seconds: row.try_get("since_s")?, nanos: 0 }),
        judged: fields::get_count(row, "judged")?,
        held: fields::get_count(row, "held")?,
    })
}

/// The length of a window for its column.
pub(super) fn window_or_null(window: Option<&prost_types::Duration>) -> Option<i64> {
    window.map(|window| window.seconds).filter(|seconds| *seconds != USUAL_WINDOW_S)
}

/// The start of a window.
pub(super) fn start_s(start: Option<&prost_types::Timestamp>) -> i64 {
    start.map_or(0, |start| start.seconds)
}
