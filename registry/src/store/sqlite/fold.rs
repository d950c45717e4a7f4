//! Old windows merged to hourly ones, a small step at a time: a step holds the only writing connection for a few milliseconds.
//!
//! An hourly window takes the place of the first one of its hour; it is told by its length.

use super::rollups::{get_host_rollup, get_vm_rollup};
use super::{SqliteStore, counter, fields, harvest};
use crate::history::{HOUR_S, fold_host, fold_vm};
use crate::store::Result;

/// Machines or hosts that one step merges: up to twelve times as many rows.
const SUBJECTS: i64 = 60;

/// The table, its key, and the table of what it tells of.
struct Kind {
    table: &'static str,
    key: &'static str,
    subjects: &'static str,
    /// The counter of the first hour that may hold windows to merge.
    done: &'static str,
    select: &'static str,
}

const VMS: Kind = Kind {
    table: "vm_rollups",
    key: "vm_key",
    subjects: "vms",
    done: "vms_folded_until",
    select: "SELECT r.*, h.host_id, v.vm_id, v.name AS vm_name FROM vm_rollups r
        JOIN vms v ON v.vm_key = r.vm_key JOIN hosts h ON h.host_key = r.host_key",
};

const HOSTS: Kind = Kind {
    table: "host_rollups",
    key: "host_key",
    subjects: "hosts",
    done: "hosts_folded_until",
    select: "SELECT r.*, h.host_id, h.name AS host_name FROM host_rollups r JOIN hosts h ON h.host_key = r.host_key",
};

/// The keys of one hour that a step merges, both ends included.
struct Step {
    hour: i64,
    first: i64,
    last: i64,
}

impl SqliteStore {
    /// See [`crate::store::HarvestStore::fold_history`].
    pub(super) async fn fold_step(&self, before_s: i64) -> Result<u64> {
        let before_hour = before_s.div_euclid(HOUR_S);
        for kind in [VMS, HOSTS] {
            if let Some(step) = self.next_step(&kind, before_hour).await? {
                return self.fold_keys(&kind, &step).await;
            }
        }
        Ok(0)
    }

    /// The next keys to merge, read beside the writers. Hours without any are noted as done.
    async fn next_step(&self, kind: &Kind, before_hour: i64) -> Result<Option<Step>> {
        let mut hour = fields::figure(counter(&self.reader, kind.done).await?);
        let (table, key) = (kind.table, kind.key);
        let next_hour = format!("SELECT min(hour) FROM {table} WHERE hour >= $1 AND hour < $2");
        let next_keys = format!(
            "SELECT min({key}), max({key}) FROM (SELECT DISTINCT {key} FROM {table} WHERE hour = $1
                AND (window_s IS NULL OR window_s < {HOUR_S}) ORDER BY {key} LIMIT $2)"
        );
        loop {
            let found: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(next_hour.clone()))
                .bind(hour)
                .bind(before_hour)
                .fetch_one(&self.reader)
                .await?;
            let Some(next) = found else { return Ok(None) };
            let (first, last): (Option<i64>, Option<i64>) =
                sqlx::query_as(sqlx::AssertSqlSafe(next_keys.clone()))
                    .bind(next)
                    .bind(SUBJECTS)
                    .fetch_one(&self.reader)
                    .await?;
            if let (Some(first), Some(last)) = (first, last) {
                return Ok(Some(Step { hour: next, first, last }));
            }
            hour = next + 1;
            let mut transaction = self.begin().await?;
            sqlx::query("UPDATE counters SET value = $2 WHERE name = $1")
                .bind(kind.done)
                .bind(hour)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
    }

    async fn fold_keys(&self, kind: &Kind, step: &Step) -> Result<u64> {
        let (table, key, subjects) = (kind.table, kind.key, kind.subjects);
        let within = format!("hour = $1 AND {key} >= $2 AND {key} <= $3");
        let mut transaction = self.begin().await?;
        // Read within the transaction: a window that comes meanwhile must not get lost.
        let select = format!(
            "{} WHERE r.hour = $1 AND r.{key} >= $2 AND r.{key} <= $3 ORDER BY r.{key}, r.offset_s",
            kind.select
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(step.hour)
            .bind(step.first)
            .bind(step.last)
            .fetch_all(&mut *transaction)
            .await?;
        let delete = format!("DELETE FROM {table} WHERE {within}");
        sqlx::query(sqlx::AssertSqlSafe(delete))
            .bind(step.hour)
            .bind(step.first)
            .bind(step.last)
            .execute(&mut *transaction)
            .await?;
        if kind.table == VMS.table {
            let windows = rows.iter().map(get_vm_rollup).collect::<sqlx::Result<Vec<_>>>()?;
            let hours: Vec<_> = windows
                .chunk_by(|a, b| a.vm_id == b.vm_id)
                .filter_map(|windows| fold_vm(windows.to_vec()))
                .collect();
            harvest::store_vms(&mut transaction, &hours).await?;
        } else {
            let windows = rows.iter().map(get_host_rollup).collect::<sqlx::Result<Vec<_>>>()?;
            let hours: Vec<_> = windows
                .chunk_by(|a, b| a.host_id == b.host_id)
                .filter_map(|windows| fold_host(windows.to_vec()))
                .collect();
            harvest::store_hosts(&mut transaction, &hours).await?;
        }
        // Where a subject's newest window was one of these, it is the hour's now.
        let newest = format!(
            "UPDATE {subjects} SET latest_s = $1 * {HOUR_S}
             WHERE {key} >= $2 AND {key} <= $3 AND latest_s >= $1 * {HOUR_S} AND latest_s < ($1 + 1) * {HOUR_S}"
        );
        sqlx::query(sqlx::AssertSqlSafe(newest))
            .bind(step.hour)
            .bind(step.first)
            .bind(step.last)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(rows.len() as u64)
    }
}
