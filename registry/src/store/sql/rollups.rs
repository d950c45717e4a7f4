//! Rows of history to windows.

use std::collections::{BTreeMap, BTreeSet};

use memharvest_proto::registry::v1::{CoverageRollup, HostRollup, VmRollup};
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::{Database, Row, SqlStore, fields};
use crate::store::Result;

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

/// The columns of a machine's window without its hour, in the order of [`SeriesColumns`].
pub(super) const SERIES_COLUMNS: &str = "r.host_key, r.offset_s, r.window_s, r.readings, r.quality, r.allocated, r.rss_max, r.rss_mean,
    r.demand_max, r.demand_mean, r.predicted_rss, r.predicted_demand, r.harvestable, r.reclaimable, r.maximum";

/// An optional figure.
type Figure = Option<i64>;
/// What is in them. They go by their places: there are many.
#[rustfmt::skip]
pub(super) type SeriesColumns =
    (i32, i64, Option<i64>, i64, i32, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure, Figure);

/// The key of the host that a machine was on, and its window without what it and its host are called.
pub(super) fn series_window(hour: i64, columns: SeriesColumns) -> (i32, VmRollup) {
    let bytes = |figure: Figure| figure.map(fields::count);
    let (host_key, offset, length, readings, quality, ..) = columns;
    let window = VmRollup {
        window_start: Some(prost_types::Timestamp { seconds: hour * 3600 + offset, nanos: 0 }),
        window: Some(prost_types::Duration { seconds: length.unwrap_or(USUAL_WINDOW_S), nanos: 0 }),
        readings: fields::small(readings),
        quality,
        allocated_bytes: bytes(columns.5),
        rss_max_bytes: bytes(columns.6),
        rss_mean_bytes: bytes(columns.7),
        demand_max_bytes: bytes(columns.8),
        demand_mean_bytes: bytes(columns.9),
        predicted_rss_bytes: bytes(columns.10),
        predicted_demand_bytes: bytes(columns.11),
        harvestable_bytes: bytes(columns.12),
        reclaimable_bytes: bytes(columns.13),
        maximum_bytes: bytes(columns.14),
        ..VmRollup::default()
    };
    (host_key, window)
}

impl SqlStore {
    /// Windows of a machine with what it and its hosts are called: told once, and not with every row.
    pub(super) async fn named(
        &self,
        vm: Uuid,
        name: &str,
        windows: Vec<(i32, VmRollup)>,
    ) -> Result<Vec<VmRollup>> {
        let keys: BTreeSet<i32> = windows.iter().map(|(host_key, _)| *host_key).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut query =
            QueryBuilder::<Database>::new("SELECT host_key, host_id FROM hosts WHERE host_key IN (");
        let mut list = query.separated(", ");
        for key in keys {
            list.push_bind(key);
        }
        query.push(")");
        let hosts: Vec<(i32, String)> = query.build_query_as().fetch_all(&self.reader).await?;
        let hosts: BTreeMap<i32, String> = hosts.into_iter().collect();
        let complete = |(host_key, window)| VmRollup {
            vm_id: vm.to_string(),
            vm_name: name.to_owned(),
            host_id: hosts.get(&host_key).cloned().unwrap_or_default(),
            ..window
        };
        Ok(windows.into_iter().map(complete).collect())
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
