//! What error budgets are worked out from: broken promises, and how long machines ran.

use sqlx::Row as _;

use super::rollups::USUAL_WINDOW_S;
use super::{HOST_WINDOWS, Row, SqlStore, fields};
use crate::error_budget::{BrokenPromises, MachineTime};
use crate::store::{BudgetStore, Result};

impl BudgetStore for SqlStore {
    async fn broken_promises(&self, since_ns: i64) -> Result<Vec<BrokenPromises>> {
        // Kind 2 is a promise.
        let rows = sqlx::query(
            "SELECT vm_id, host_id, count(*) AS count FROM violations WHERE kind = 2 AND opened_at >= $1 GROUP BY vm_id, host_id",
        )
        .bind(since_ns)
        .fetch_all(&self.reader)
        .await?;
        let get = |row: &Row| {
            let bytes: Vec<u8> = row.try_get("vm_id")?;
            let vm = uuid::Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok(BrokenPromises {
                vm,
                host_id: row.try_get("host_id")?,
                count: fields::get_count(row, "count")?,
            })
        };
        Ok(rows.iter().map(get).collect::<sqlx::Result<_>>()?)
    }

    async fn machine_time(&self, since_s: i64) -> Result<Vec<MachineTime>> {
        let sql = format!(
            "SELECT h.host_id, CAST(sum(w.vms_running * coalesce(w.window_s, {USUAL_WINDOW_S})) AS BIGINT) AS vm_seconds,
                 CAST(min(w.hour) AS BIGINT) * 3600 AS since_s
             FROM {HOST_WINDOWS} w JOIN hosts h ON h.host_key = w.host_key WHERE w.hour >= $1 GROUP BY h.host_id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(since_s / 3600).fetch_all(&self.reader).await?;
        let get = |row: &Row| {
            Ok(MachineTime {
                host_id: row.try_get("host_id")?,
                vm_seconds: row.try_get("vm_seconds")?,
                since_s: row.try_get("since_s")?,
            })
        };
        Ok(rows.iter().map(get).collect::<sqlx::Result<_>>()?)
    }
}
