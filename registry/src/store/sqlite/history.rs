//! Reading history, and pruning it.

use memharvest_proto::registry::v1::{
    CoverageRollup, HostRollup, RecordHarvestRequest, StreamHistoryResponse, VmRollup,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use super::rollups::{
    SERIES_COLUMNS, SeriesColumns, get_coverage, get_host_rollup, get_vm_rollup, series_window,
};
use super::{SqliteStore, fields};
use crate::history::{without_folded_host, without_folded_vm};
use crate::store::{HarvestStore, Range, Result, StoreError, Stored};

/// Rows that one step of pruning removes: a few milliseconds of the writer's time.
const PRUNED_ROWS: i64 = 2000;

const TABLES_BY_HOUR: [(&str, &str); 2] = [("vm_rollups", "vm_key"), ("host_rollups", "host_key")];

/// The hours that a range and a table's rows have in common; each is then one short search in the table.
const HOURS: &str =
    "WITH RECURSIVE hours (hour) AS (SELECT max($1, (SELECT min(hour) FROM rollups)) UNION ALL
    SELECT hour + 1 FROM hours WHERE hour < min($2, (SELECT max(hour) FROM rollups)))";

impl SqliteStore {
    /// Windows of one subject over a range, oldest first.
    async fn windows(
        &self,
        table: &'static str,
        key: &'static str,
        select: &str,
        join: &str,
        subject: i64,
        range: Range,
    ) -> Result<Vec<SqliteRow>> {
        let hours = HOURS.replace("rollups", table);
        let sql = format!(
            "{hours} {select} FROM hours CROSS JOIN {table} r ON r.hour = hours.hour AND r.{key} = $3
             {join}
             WHERE r.hour * 3600 + r.offset_s >= $4 AND r.hour * 3600 + r.offset_s < $5 LIMIT $6"
        );
        let limit = i64::try_from(range.limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(range.from_s.div_euclid(3600))
            .bind(range.to_s.div_euclid(3600))
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

    /// A machine's windows over a range, an hour's in one row: a row by itself costs more than what is in it.
    async fn series(&self, vm: i64, range: Range) -> Result<Vec<(i32, VmRollup)>> {
        let hours = HOURS.replace("rollups", "vm_rollups");
        let sql = format!(
            "{hours} SELECT hour, (SELECT json_group_array(json_array({SERIES_COLUMNS})) FROM vm_rollups r
                 WHERE r.hour = hours.hour AND r.vm_key = $3
                 AND r.hour * 3600 + r.offset_s >= $4 AND r.hour * 3600 + r.offset_s < $5)
             FROM hours WHERE hour IS NOT NULL"
        );
        let rows: Vec<(i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(range.from_s.div_euclid(3600))
            .bind(range.to_s.div_euclid(3600))
            .bind(vm)
            .bind(range.from_s)
            .bind(range.to_s)
            .fetch_all(&self.reader)
            .await?;
        let mut windows = Vec::new();
        for (hour, json) in rows {
            let columns: Vec<SeriesColumns> =
                serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))?;
            windows.extend(columns.into_iter().map(|columns| series_window(hour, columns)));
            if windows.len() > range.limit {
                return Err(StoreError::TooMany(range.limit));
            }
        }
        Ok(windows)
    }

    async fn prune_table(&self, delete: String, before: i64) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let gone = sqlx::query(sqlx::AssertSqlSafe(delete))
            .bind(before)
            .bind(PRUNED_ROWS)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        transaction.commit().await?;
        Ok(gone)
    }
}

impl HarvestStore for SqliteStore {
    async fn record_harvest(&self, batch: &RecordHarvestRequest) -> Result<u64> {
        self.record_batch(batch).await
    }

    async fn vm_history(&self, vm: Uuid, range: Range) -> Result<Vec<VmRollup>> {
        let (key, name): (i64, String) = sqlx::query_as("SELECT vm_key, name FROM vms WHERE vm_id = $1")
            .bind(vm.as_bytes().as_slice())
            .fetch_optional(&self.reader)
            .await?
            .ok_or_else(|| StoreError::NotFound(format!("machine {vm}")))?;
        let windows = self.series(key, range).await?;
        Ok(without_folded_vm(self.named(vm, &name, windows).await?))
    }

    async fn vm_series(&self, vm: Uuid, range: Range) -> Result<StreamHistoryResponse> {
        let (key, vm_name, host_id): (i64, String, String) = sqlx::query_as(
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
        let key: i64 = sqlx::query_scalar("SELECT host_key FROM hosts WHERE host_id = $1")
            .bind(host_id)
            .fetch_optional(&self.reader)
            .await?
            .ok_or_else(|| StoreError::NotFound(format!("host {host_id}")))?;
        let rows = self
            .windows(
                "host_rollups",
                "host_key",
                "SELECT r.*, h.host_id, h.name AS host_name",
                "JOIN hosts h ON h.host_key = r.host_key",
                key,
                range,
            )
            .await?;
        Ok(without_folded_host(rows.iter().map(get_host_rollup).collect::<sqlx::Result<_>>()?))
    }

    async fn fleet_history(&self, range: Range) -> Result<Vec<HostRollup>> {
        let sql =
            "SELECT '' AS host_id, '' AS host_name, hour, offset_s, window_s, sum(readings) AS readings,
                sum(vms_running) AS vms_running, sum(total) AS total, sum(available_min) AS available_min,
                sum(allocated) AS allocated, sum(rss_max) AS rss_max, sum(harvestable) AS harvestable,
                sum(pooled_harvestable) AS pooled_harvestable, sum(reclaimable) AS reclaimable
            FROM host_rollups
            WHERE hour >= $1 AND hour <= $2 AND hour * 3600 + offset_s >= $3 AND hour * 3600 + offset_s < $4
            GROUP BY hour, offset_s, window_s LIMIT $5";
        let limit = i64::try_from(range.limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = sqlx::query(sql)
            .bind(range.from_s.div_euclid(3600))
            .bind(range.to_s.div_euclid(3600))
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
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT r.*, h.host_id, v.vm_id, v.name AS vm_name
             FROM vms v
             CROSS JOIN vm_rollups r ON r.hour = v.latest_s / 3600 AND r.vm_key = v.vm_key AND r.offset_s = v.latest_s % 3600
             JOIN hosts h ON h.host_key = r.host_key WHERE v.vm_id > ",
        );
        query.push_bind(after.map_or_else(Vec::new, |vm| vm.as_bytes().to_vec()));
        if !host_id.is_empty() {
            query
                .push(" AND v.host_key = (SELECT host_key FROM hosts WHERE host_id = ")
                .push_bind(host_id)
                .push(")");
        }
        query.push(" ORDER BY v.vm_id LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_vm_rollup).collect::<sqlx::Result<_>>()?)
    }

    async fn latest_hosts(&self, host_id: &str) -> Result<Vec<HostRollup>> {
        let rows = sqlx::query(
            "SELECT r.*, h.host_id, h.name AS host_name FROM hosts h
             CROSS JOIN host_rollups r ON r.hour = h.latest_s / 3600 AND r.host_key = h.host_key
                  AND r.offset_s = h.latest_s % 3600
             WHERE $1 = '' OR h.host_id = $1 ORDER BY h.host_id",
        )
        .bind(host_id)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_host_rollup).collect::<sqlx::Result<_>>()?)
    }

    async fn coverage(&self, host_id: &str, since_s: i64) -> Result<Vec<CoverageRollup>> {
        let rows = sqlx::query(
            "SELECT $1 AS host_id, signal, horizon_ns, target_violation_rate, min(start_s) AS since_s,
                    sum(judged) AS judged, sum(held) AS held
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

    async fn prepare_history(&self, _now_s: i64) -> Result<()> {
        Ok(())
    }

    async fn fold_history(&self, before_s: i64) -> Result<u64> {
        self.fold_step(before_s).await
    }

    async fn prune_history(&self, before_s: i64) -> Result<u64> {
        let before_hour = before_s.div_euclid(3600);
        for (table, key) in TABLES_BY_HOUR {
            let delete = format!(
                "DELETE FROM {table} WHERE (hour, {key}, offset_s) IN
                    (SELECT hour, {key}, offset_s FROM {table} WHERE hour < $1 LIMIT $2)"
            );
            let gone = self.prune_table(delete, before_hour).await?;
            if gone > 0 {
                return Ok(gone);
            }
        }
        let delete = "DELETE FROM coverage WHERE (start_s, host_key, signal, horizon_ns, target_violation_rate) IN
            (SELECT start_s, host_key, signal, horizon_ns, target_violation_rate FROM coverage WHERE start_s < $1 LIMIT $2)";
        self.prune_table(delete.to_owned(), before_s).await
    }

    async fn stored(&self) -> Result<Stored> {
        let (vms, hosts): (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM vms), (SELECT count(*) FROM hosts)")
                .fetch_one(&self.reader)
                .await?;
        let mut bytes = 0;
        for suffix in ["", "-wal"] {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            bytes += std::fs::metadata(name).map_or(0, |file| file.len());
        }
        Ok(Stored { vms: fields::count(vms), hosts: fields::count(hosts), bytes })
    }
}
