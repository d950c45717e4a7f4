//! Snapshots of models: the newest of each machine.

use memharvest_proto::registry::v1::ModelSnapshot;
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::{Database, Row, SqlStore, fields};
use crate::store::{ModelStore, Result};

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "vm_id, host_id, model_version, taken_at, state, checksum";

/// Snapshots that are removed in one step.
const AT_ONCE: i64 = 200;

fn get_snapshot(row: &Row) -> sqlx::Result<ModelSnapshot> {
    Ok(ModelSnapshot {
        vm_id: fields::get_vm(row, "vm_id")?,
        host_id: row.try_get("host_id")?,
        model_version: row.try_get("model_version")?,
        taken_at: fields::get_instant(row, "taken_at")?,
        state: row.try_get("state")?,
        checksum: row.try_get("checksum")?,
    })
}

impl ModelStore for SqlStore {
    async fn put_snapshots(&self, snapshots: &[ModelSnapshot]) -> Result<Vec<String>> {
        let mut passed_over = Vec::new();
        let mut transaction = self.begin().await?;
        for snapshot in snapshots {
            let written = sqlx::query(
                "INSERT INTO model_snapshots (vm_id, host_id, model_version, taken_at, state, checksum)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (vm_id) DO UPDATE SET host_id = excluded.host_id, model_version = excluded.model_version,
                     taken_at = excluded.taken_at, state = excluded.state, checksum = excluded.checksum
                 WHERE excluded.taken_at >= model_snapshots.taken_at",
            )
            .bind(fields::vm_bytes(&snapshot.vm_id)?)
            .bind(&snapshot.host_id)
            .bind(&snapshot.model_version)
            .bind(fields::instant_or_null(snapshot.taken_at.as_ref()))
            .bind(&snapshot.state)
            .bind(&snapshot.checksum)
            .execute(&mut *transaction)
            .await?;
            if written.rows_affected() == 0 {
                passed_over.push(snapshot.vm_id.clone());
            }
        }
        transaction.commit().await?;
        Ok(passed_over)
    }

    async fn snapshots_of_host(
        &self,
        host_id: &str,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<ModelSnapshot>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM model_snapshots WHERE host_id = $1 AND vm_id > $2 ORDER BY vm_id LIMIT $3"
        )))
        .bind(host_id)
        .bind(after.map(|vm| vm.as_bytes().to_vec()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_snapshot).collect::<sqlx::Result<_>>()?)
    }

    async fn snapshots_of(&self, vms: &[Uuid]) -> Result<Vec<ModelSnapshot>> {
        let mut query =
            QueryBuilder::<Database>::new(format!("SELECT {COLUMNS} FROM model_snapshots WHERE vm_id IN ("));
        let mut list = query.separated(", ");
        for vm in vms {
            list.push_bind(vm.as_bytes().to_vec());
        }
        query.push(") ORDER BY vm_id");
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_snapshot).collect::<sqlx::Result<_>>()?)
    }

    async fn prune_snapshots(&self, before_ns: i64) -> Result<u64> {
        let sql = "DELETE FROM model_snapshots WHERE vm_id IN
            (SELECT vm_id FROM model_snapshots WHERE taken_at < $1 LIMIT $2)";
        let gone = sqlx::query(sql).bind(before_ns).bind(AT_ONCE).execute(&self.writer).await?;
        Ok(gone.rows_affected())
    }
}
