//! Everything of a SQLite store into an empty database, in one transaction: it is all there, or nothing is.
//!
//! Columns are found by their names in the source, so that none that a later migration adds can be forgotten: one that is missing
//! here is an error.

use futures::TryStreamExt;
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{AssertSqlSafe, Decode, PgConnection, Row as _, Sqlite, SqlitePool, TypeInfo as _, ValueRef as _};

use super::PostgresStore;
use super::partitions::{COVERAGE, HOST_HOURS, HOST_ROLLUPS, Partitioned, VM_HOURS, VM_ROLLUPS};
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;

/// Bytes that are sent at once.
const CHUNK: usize = 1 << 20;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something is there already.
    #[error("the target holds {0} already; give an empty database")]
    NotEmpty(&'static str),
    /// Rows did not arrive.
    #[error("{table}: {sent} rows were sent and {stored} stored; nothing is kept of the copy, try again")]
    Lost {
        /// The table.
        table: &'static str,
        /// Rows read from the source.
        sent: u64,
        /// Rows that the target says it stored.
        stored: u64,
    },
    /// A database failed.
    #[error("{table}: {source}")]
    Failed {
        /// The table that was copied then.
        table: &'static str,
        /// Why.
        source: StoreError,
    },
}

/// Rows of a table of the source, and where they go.
struct Table {
    from: &'static str,
    /// Which rows, where not all.
    only: &'static str,
    into: &'static str,
    /// A column that is left out.
    without: &'static str,
    /// Its partitions, and the column of the source by which they are found.
    parts: Option<(&'static Partitioned, &'static str, i64)>,
    /// The column that the database numbers by itself.
    numbered: Option<&'static str>,
}

const fn table(name: &'static str) -> Table {
    Table { from: name, only: "true", into: name, without: "", parts: None, numbered: None }
}

const fn numbered(name: &'static str, key: &'static str) -> Table {
    Table { numbered: Some(key), ..table(name) }
}

/// Windows that were merged to hours have a table of their own here.
const HOURLY: &str = "offset_s = 0 AND window_s >= 3600";
const NOT_HOURLY: &str = "NOT (offset_s = 0 AND coalesce(window_s, 0) >= 3600)";

const fn rollups(name: &'static str, parts: &'static Partitioned) -> Table {
    Table { only: NOT_HOURLY, parts: Some((parts, "hour", 3600)), ..table(name) }
}

const fn hours(name: &'static str, into: &'static str, parts: &'static Partitioned) -> Table {
    let parts = Some((parts, "hour", 3600));
    Table { only: HOURLY, into, without: "offset_s", parts, ..table(name) }
}

/// All tables but `counters`, those first that others refer to.
const TABLES: [Table; 18] = [
    table("agents"),
    table("other_instances"),
    table("boundary_versions"),
    table("boundaries"),
    numbered("hosts", "host_key"),
    numbered("vms", "vm_key"),
    rollups("vm_rollups", &VM_ROLLUPS),
    hours("vm_rollups", "vm_hours", &VM_HOURS),
    rollups("host_rollups", &HOST_ROLLUPS),
    hours("host_rollups", "host_hours", &HOST_HOURS),
    table("host_harvests"),
    Table { parts: Some((&COVERAGE, "start_s", 1)), ..table("coverage") },
    numbered("violations", "violation_key"),
    table("violation_series"),
    numbered("leases", "lease_key"),
    table("model_snapshots"),
    numbered("tokens", "token_key"),
    numbered("audit_events", "event_id"),
];

impl PostgresStore {
    /// Copies everything from a store that nobody else has open. `told` hears of each table and its rows.
    ///
    /// # Errors
    /// See [`ImportError`]; nothing is kept then.
    pub async fn import(
        &self,
        source: &SqliteStore,
        mut told: impl FnMut(&'static str, u64),
    ) -> Result<(), ImportError> {
        let from = &source.reader;
        for table in &TABLES {
            self.make_room(from, table).await.map_err(|source| failed(table, source))?;
        }
        let mut transaction = self.begin().await.map_err(|source| failed(&TABLES[0], source))?;
        let into = &mut *transaction;
        for table in &TABLES {
            if holds_any(into, table).await.map_err(|error| failed(table, error.into()))? {
                return Err(ImportError::NotEmpty(table.into));
            }
        }
        let unhurried = "SELECT set_config('statement_timeout', '0', true)";
        sqlx::query(unhurried).execute(&mut *into).await.map_err(|error| failed(&TABLES[0], error.into()))?;
        for table in &TABLES {
            let (sent, stored) =
                copy(from, into, table).await.map_err(|error| failed(table, error.into()))?;
            if sent != stored {
                return Err(ImportError::Lost { table: table.into, sent, stored });
            }
            told(table.into, stored);
        }
        let counters = table("counters");
        copy_counters(from, into).await.map_err(|error| failed(&counters, error.into()))?;
        transaction.commit().await.map_err(|error| failed(&counters, error.into()))?;
        self.read_counters().await.map_err(|error| failed(&counters, error.into()))
    }

    /// Makes the partitions that a table's rows need.
    async fn make_room(&self, from: &SqlitePool, table: &Table) -> crate::store::Result<()> {
        let Some((parts, column, unit)) = table.parts else { return Ok(()) };
        let Table { from: name, only, .. } = table;
        let sql = format!("SELECT DISTINCT {column} * {unit} FROM {name} WHERE {only}");
        let seconds: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(from).await?;
        self.make_partitions(parts, seconds.into_iter()).await
    }
}

fn failed(table: &Table, source: StoreError) -> ImportError {
    ImportError::Failed { table: table.into, source }
}

async fn holds_any(into: &mut PgConnection, table: &Table) -> sqlx::Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.into);
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(into).await
}

/// Copies a table; returns how many rows were sent and how many were stored.
async fn copy(from: &SqlitePool, into: &mut PgConnection, table: &Table) -> sqlx::Result<(u64, u64)> {
    let columns: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info($1) WHERE name <> $2 ORDER BY cid")
            .bind(table.from)
            .bind(table.without)
            .fetch_all(from)
            .await?;
    let columns = columns.join(", ");
    let Table { from: name, only, into: target, .. } = table;
    let select = format!("SELECT {columns} FROM {name} WHERE {only}");
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(from);
    let mut sink = into.copy_in_raw(&format!("COPY {target} ({columns}) FROM STDIN")).await?;
    let (mut sent, mut text) = (0, Vec::with_capacity(2 * CHUNK));
    while let Some(row) = rows.try_next().await? {
        sent += 1;
        push_row(&mut text, &row)?;
        if text.len() >= CHUNK {
            sink.send(std::mem::take(&mut text)).await?;
        }
    }
    sink.send(text).await?;
    let stored = sink.finish().await?;
    if let Some(key) = table.numbered {
        number_on(from, into, target, key).await?;
    }
    Ok((sent, stored))
}

/// A row as `COPY` reads it.
fn push_row(text: &mut Vec<u8>, row: &SqliteRow) -> sqlx::Result<()> {
    for place in 0..row.len() {
        if place > 0 {
            text.push(b'\t');
        }
        push_value(text, row.try_get_raw(place)?).map_err(sqlx::Error::Decode)?;
    }
    text.push(b'\n');
    Ok(())
}

fn push_value(text: &mut Vec<u8>, value: SqliteValueRef<'_>) -> Result<(), sqlx::error::BoxDynError> {
    use std::io::Write as _;
    if value.is_null() {
        text.extend(b"\\N");
        return Ok(());
    }
    let kind = value.type_info().name().to_owned();
    match kind.as_str() {
        "INTEGER" | "BOOLEAN" => write!(text, "{}", <i64 as Decode<Sqlite>>::decode(value)?)?,
        // The shortest text that reads back as the same number.
        "REAL" => write!(text, "{:?}", <f64 as Decode<Sqlite>>::decode(value)?)?,
        "BLOB" => {
            text.extend(b"\\\\x");
            for byte in <&[u8] as Decode<Sqlite>>::decode(value)? {
                write!(text, "{byte:02x}")?;
            }
        }
        _ => {
            for byte in <&str as Decode<Sqlite>>::decode(value)?.bytes() {
                match byte {
                    b'\\' => text.extend(b"\\\\"),
                    b'\t' => text.extend(b"\\t"),
                    b'\n' => text.extend(b"\\n"),
                    b'\r' => text.extend(b"\\r"),
                    byte => text.push(byte),
                }
            }
        }
    }
    Ok(())
}

/// Numbers go on after the highest that was ever given, of rows that are gone as well.
async fn number_on(from: &SqlitePool, into: &mut PgConnection, table: &str, key: &str) -> sqlx::Result<()> {
    let given: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = $1")
        .bind(table)
        .fetch_one(from)
        .await?;
    let sql = format!(
        "SELECT setval(pg_get_serial_sequence('{table}', '{key}')::regclass,
                       greatest((SELECT coalesce(max({key}), 0) FROM {table}), $1) + 1, false)"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(given).execute(into).await?;
    Ok(())
}

/// Takes over the counters that both databases have.
async fn copy_counters(from: &SqlitePool, into: &mut PgConnection) -> sqlx::Result<()> {
    let counters: Vec<(String, i64)> =
        sqlx::query_as("SELECT name, value FROM counters").fetch_all(from).await?;
    for (name, value) in counters {
        sqlx::query("UPDATE counters SET value = $2 WHERE name = $1")
            .bind(name)
            .bind(value)
            .execute(&mut *into)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_table_of_the_source_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("registry.db")).await.unwrap();
        let mut names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx%'",
        )
        .fetch_all(&store.reader)
        .await
        .unwrap();
        names.sort();
        let mut copied: Vec<&str> = TABLES.iter().map(|table| table.from).chain(["counters"]).collect();
        copied.sort_unstable();
        copied.dedup();
        assert_eq!(names, copied);
    }
}
