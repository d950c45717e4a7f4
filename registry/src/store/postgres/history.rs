//! Reading history, and removing the oldest: windows as they were recorded, and hourly ones of older days.

use memharvest_proto::registry::v1::{
    CoverageRollup, HostRollup, RecordHarvestRequest, StreamHistoryResponse, VmRollup,
};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row};
use uuid::Uuid;

use super::partitions::{ALL, COVERAGE, HOST_HOURS, HOST_ROLLUPS, VM_HOURS, VM_ROLLUPS};
use super::rollups::{SERIES_COLUMNS, get_coverage, get_host_rollup, get_vm_rollup, series_window};
use super::{PostgresStore, fields};
use crate::history::{HOUR_S, without_folded_host, without_folded_vm};
use crate::store::{HarvestStore, Range, Result, StoreError, Stored};

const VM_COLUMNS: &str =
    "host_key, quality, readings, allocated, maximum, rss_max, rss_mean, demand_max, demand_mean,
    predicted_rss, predicted_demand, harvestable, reclaimable";
const HOST_COLUMNS: &str = "readings, vms_running, total, available_min, allocated, rss_max, harvestable,
    pooled_harvestable, reclaimable";

/// Partitions are made for today and for tomorrow.
const AHEAD_S: [i64; 2] = [0, 24 * HOUR_S];

/// The tables of one kind of subject.
struct Kind {
    rollups: &'static str,
    hours: &'static str,
    key: &'static str,
    columns: &'static str,
}

const VMS: Kind =
    Kind { rollups: VM_ROLLUPS.table, hours: VM_HOURS.table, key: "vm_key", columns: VM_COLUMNS };
const HOSTS: Kind =
    Kind { rollups: HOST_ROLLUPS.table, hours: HOST_HOURS.table, key: "host_key", columns: HOST_COLUMNS };

impl PostgresStore {
    /// Windows of one subject over a range, in any order. `names` completes them by columns of `r`'s subject.
    async fn windows(
        &self,
        kind: &Kind,
        select: &str,
        join: &str,
        subject: i32,
        range: Range,
    ) -> Result<Vec<PgRow>> {
        let Kind { rollups, hours, key, columns } = kind;
        // Each hour that the range and the recorded windows have in common is one short search.
        let sql = format!(
            "SELECT {select} FROM (
                 SELECT r.hour::int8 AS hour, r.offset_s::int8 AS offset_s, r.window_s::int8 AS window_s, r.{key}, {columns}
                 FROM generate_series(greatest($1::int4, (SELECT min(hour) FROM {rollups})),
                                      least($2::int4, (SELECT max(hour) FROM {rollups}))) AS within (hour)
                 CROSS JOIN LATERAL (SELECT * FROM {rollups} WHERE hour = within.hour AND {key} = $3 ORDER BY offset_s LIMIT 3600) r
                 UNION ALL
                 SELECT hour::int8, 0::int8, window_s::int8, {key}, {columns}
                 FROM {hours} WHERE {key} = $3 AND hour >= $1 AND hour <= $2
             ) r {join}
             WHERE r.hour * 3600 + r.offset_s >= $4 AND r.hour * 3600 + r.offset_s < $5 LIMIT $6"
        );
        let hour = |second: i64| i32::try_from(second.div_euclid(HOUR_S)).unwrap_or(i32::MAX);
        let limit = i64::try_from(range.limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(hour(range.from_s))
            .bind(hour(range.to_s))
            .bind(subject)
            .bind(range.from_s)
            .bind(range.to_s)
            .bind(limit)
            .fetch_all(&self.reader)
            .await?;
        if rows.len() > range.limit {
            return Err(StoreError::TooMany(range.limit));
        }
        Ok(rows)
    }

    /// A machine's windows over a range.
    async fn series(&self, vm: i32, range: Range) -> Result<Vec<(i32, VmRollup)>> {
        let rows = self.windows(&VMS, &format!("r.hour, {SERIES_COLUMNS}"), "", vm, range).await?;
        Ok(rows.iter().map(get_series_window).collect::<sqlx::Result<_>>()?)
    }
}

/// The newest window of each subject `s`: as it was recorded, or merged to its hour since.
fn newest(kind: &Kind) -> String {
    let Kind { rollups, hours, key, columns } = kind;
    format!(
        "CROSS JOIN LATERAL (
             SELECT hour::int8 AS hour, offset_s::int8 AS offset_s, window_s::int8 AS window_s, {columns} FROM {rollups}
             WHERE hour = (s.latest_s / 3600)::int4 AND {key} = s.{key} AND offset_s = (s.latest_s % 3600)::int4
             UNION ALL
             SELECT hour::int8, 0::int8, window_s::int8, {columns} FROM {hours}
             WHERE hour = (s.latest_s / 3600)::int4 AND {key} = s.{key}
             LIMIT 1
         ) r"
    )
}

/// Columns go by their places, the hour first.
fn get_series_window(row: &PgRow) -> sqlx::Result<(i32, VmRollup)> {
    let columns = (
        row.try_get(1)?,
        row.try_get(2)?,
        row.try_get(3)?,
        row.try_get(4)?,
        row.try_get(5)?,
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        row.try_get(11)?,
        row.try_get(12)?,
        row.try_get(13)?,
        row.try_get(14)?,
        row.try_get(15)?,
    );
    Ok(series_window(row.try_get(0)?, columns))
}

impl HarvestStore for PostgresStore {
    async fn record_harvest(&self, batch: &RecordHarvestRequest) -> Result<u64> {
        self.record_batch(batch).await
    }

    async fn vm_history(&self, vm: Uuid, range: Range) -> Result<Vec<VmRollup>> {
        let (key, name): (i32, String) = sqlx::query_as("SELECT vm_key, name FROM vms WHERE vm_id = $1")
            .bind(vm.as_bytes().as_slice())
            .fetch_optional(&self.reader)
            .await?
            .ok_or_else(|| StoreError::NotFound(format!("machine {vm}")))?;
        let windows = self.series(key, range).await?;
        Ok(without_folded_vm(self.named(vm, &name, windows).await?))
    }

    async fn vm_series(&self, vm: Uuid, range: Range) -> Result<StreamHistoryResponse> {
        let (key, vm_name, host_id): (i32, String, String) = sqlx::query_as(
            "SELECT v.vm_key, v.name, h.host_id FROM vms v JOIN hosts h ON h.host_key = v.host_key WHERE v.vm_id = $1",
        )
        .bind(vm.as_bytes().as_slice())
        .fetch_optional(&self.reader)
        .await?
        .ok_or_else(|| StoreError::NotFound(format!("machine {vm}")))?;
        let windows =
            without_folded_vm(self.series(key, range).await?.into_iter().map(|(_, window)| window).collect());
        Ok(StreamHistoryResponse { vm_id: vm.to_string(), vm_name, host_id, windows })
    }

    async fn host_history(&self, host_id: &str, range: Range) -> Result<Vec<HostRollup>> {
        let key: i32 = sqlx::query_scalar("SELECT host_key FROM hosts WHERE host_id = $1")
            .bind(host_id)
            .fetch_optional(&self.reader)
            .await?
            .ok_or_else(|| StoreError::NotFound(format!("host {host_id}")))?;
        let select = "r.*, h.host_id, h.name AS host_name";
        let rows =
            self.windows(&HOSTS, select, "JOIN hosts h ON h.host_key = r.host_key", key, range).await?;
        Ok(without_folded_host(rows.iter().map(get_host_rollup).collect::<sqlx::Result<_>>()?))
    }

    async fn fleet_history(&self, range: Range) -> Result<Vec<HostRollup>> {
        let Kind { rollups, hours, columns, .. } = HOSTS;
        // Sums of counts are numeric in Postgres.
        let sums: Vec<String> = columns
            .split(',')
            .map(str::trim)
            .map(|column| format!("sum({column})::int8 AS {column}"))
            .collect();
        let sql = format!(
            "SELECT '' AS host_id, '' AS host_name, hour, offset_s, window_s, {} FROM (
                 SELECT hour::int8 AS hour, offset_s::int8 AS offset_s, window_s::int8 AS window_s, {columns}
                 FROM {rollups} WHERE hour >= $1 AND hour <= $2
                 UNION ALL
                 SELECT hour::int8, 0::int8, window_s::int8, {columns} FROM {hours} WHERE hour >= $1 AND hour <= $2
             ) r
             WHERE hour * 3600 + offset_s >= $3 AND hour * 3600 + offset_s < $4
             GROUP BY hour, offset_s, window_s LIMIT $5",
            sums.join(", ")
        );
        let hour = |second: i64| i32::try_from(second.div_euclid(HOUR_S)).unwrap_or(i32::MAX);
        let limit = i64::try_from(range.limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(hour(range.from_s))
            .bind(hour(range.to_s))
            .bind(range.from_s)
            .bind(range.to_s)
            .bind(limit)
            .fetch_all(&self.reader)
            .await?;
        if rows.len() > range.limit {
            return Err(StoreError::TooMany(range.limit));
        }
        Ok(without_folded_host(rows.iter().map(get_host_rollup).collect::<sqlx::Result<_>>()?))
    }

    async fn latest_vms(&self, after: Option<Uuid>, host_id: &str, limit: u32) -> Result<Vec<VmRollup>> {
        let mut query = QueryBuilder::new(format!(
            "SELECT r.*, h.host_id, s.vm_id, s.name AS vm_name FROM vms s {}
             JOIN hosts h ON h.host_key = r.host_key WHERE s.vm_id > ",
            newest(&VMS)
        ));
        query.push_bind(after.map_or_else(Vec::new, |vm| vm.as_bytes().to_vec()));
        if !host_id.is_empty() {
            query
                .push(" AND s.host_key = (SELECT host_key FROM hosts WHERE host_id = ")
                .push_bind(host_id)
                .push(")");
        }
        query.push(" ORDER BY s.vm_id LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_vm_rollup).collect::<sqlx::Result<_>>()?)
    }

    async fn latest_hosts(&self, host_id: &str) -> Result<Vec<HostRollup>> {
        let sql = format!(
            "SELECT r.*, s.host_id, s.name AS host_name FROM hosts s {}
             WHERE $1 = '' OR s.host_id = $1 ORDER BY s.host_id",
            newest(&HOSTS)
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(host_id).fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_host_rollup).collect::<sqlx::Result<_>>()?)
    }

    async fn coverage(&self, host_id: &str, since_s: i64) -> Result<Vec<CoverageRollup>> {
        let rows = sqlx::query(
            "SELECT $1 AS host_id, signal, horizon_ns, target_violation_rate, min(start_s) AS since_s,
                    sum(judged)::int8 AS judged, sum(held)::int8 AS held
             FROM coverage
             WHERE start_s >= $2 AND ($1 = '' OR host_key = (SELECT host_key FROM hosts WHERE host_id = $1))
             GROUP BY signal, horizon_ns, target_violation_rate ORDER BY signal, horizon_ns, target_violation_rate",
        )
        .bind(host_id)
        .bind(since_s)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_coverage).collect::<sqlx::Result<_>>()?)
    }

    async fn host_of(&self, vm: Uuid) -> Result<Option<String>> {
        let sql = "SELECT h.host_id FROM vms v JOIN hosts h ON h.host_key = v.host_key WHERE v.vm_id = $1";
        Ok(sqlx::query_scalar(sql).bind(vm.as_bytes().as_slice()).fetch_optional(&self.reader).await?)
    }

    async fn prepare_history(&self, now_s: i64) -> Result<()> {
        for of in [&VM_ROLLUPS, &HOST_ROLLUPS, &COVERAGE] {
            self.make_partitions(of, AHEAD_S.iter().map(|ahead| now_s + ahead)).await?;
        }
        Ok(())
    }

    async fn fold_history(&self, before_s: i64) -> Result<u64> {
        self.fold_step(before_s).await
    }

    /// Drops the oldest partition that holds nothing else.
    async fn prune_history(&self, before_s: i64) -> Result<u64> {
        for of in ALL {
            let mut transaction = self.begin_alone(of.table).await?;
            let oldest = of.spans(&mut transaction).await?.into_iter().next();
            let Some(span) = oldest.filter(|span| of.start_s(span + 1) <= before_s) else { continue };
            let count = format!("SELECT count(*) FROM {}", of.name(span));
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *transaction).await?;
            of.drop(&mut transaction, span).await?;
            transaction.commit().await?;
            self.partitions.forget();
            return Ok(fields::count(rows).max(1));
        }
        Ok(0)
    }

    async fn stored(&self) -> Result<Stored> {
        let (vms, hosts, bytes): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM vms), (SELECT count(*) FROM hosts), pg_database_size(current_database())",
        )
        .fetch_one(&self.reader)
        .await?;
        Ok(Stored { vms: fields::count(vms), hosts: fields::count(hosts), bytes: fields::count(bytes) })
    }
}
