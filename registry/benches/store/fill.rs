//! History put into the tables by SQL, as recording a month of it would take an hour. It holds what recording would have left there.

use std::path::Path;

use sqlx::{AssertSqlSafe, PgPool, SqlitePool};

use crate::{Error, HOUR};

/// The figures of a window of machine `k` that begins at `t`: spread like those of real machines, so that they take as much room.
const FIGURES: &str = "60, 10, 8589934592, 8589934592, 3221225472 + (k * 7919 + t * 104729) % 1000003 * 4096,
    3221225472 + (k * 7919 + t * 15485863) % 500009 * 4096, 1073741824 + (k * 104729 + t * 7919) % 400009 * 4096,
    1073741824 + (k * 104729 + t * 611953) % 200003 * 4096, 5368709120 + (k * 1299709 + t * 7) % 500009 * 4096,
    3221225472 + (k * 1299709 + t * 11) % 300007 * 4096, 67108864 * ((k + t) % 40), 67108864 * ((k + t) % 20)";

const COLUMNS: &str =
    "readings, quality, allocated, maximum, rss_max, rss_mean, demand_max, demand_mean, predicted_rss,
    predicted_demand, harvestable, reclaimable";

/// A second way into a database, beside its store.
pub(crate) enum Fill {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Fill {
    pub(crate) async fn sqlite(path: &Path) -> Result<Self, Error> {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(std::time::Duration::from_mins(5))
            .pragma("wal_autocheckpoint", "2000");
        Ok(Self::Sqlite(SqlitePool::connect_with(options).await?))
    }

    pub(crate) async fn postgres(url: &str) -> Result<Self, Error> {
        Ok(Self::Postgres(PgPool::connect(url).await?))
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    async fn run(&self, sql: String) -> Result<(), Error> {
        match self {
            Self::Sqlite(pool) => sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(drop)?,
            Self::Postgres(pool) => sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Windows of five minutes of all machines from one hour to another.
    pub(crate) async fn five_minutes(&self, from: i64, to: i64) -> Result<(), Error> {
        let offsets: Vec<String> = (0..12).map(|i| format!("({})", i * 300)).collect();
        for hour in from.div_euclid(HOUR)..to.div_euclid(HOUR) {
            self.part("vm_rollups", hour, 24).await?;
            self.run(format!(
                "WITH w (o) AS (VALUES {}), r AS (SELECT CAST(vm_key AS BIGINT) AS k, host_key, CAST({hour} * 12 + o / 300 AS BIGINT) AS t, o FROM vms CROSS JOIN w)
                 INSERT INTO vm_rollups (hour, vm_key, offset_s, host_key, {COLUMNS}) SELECT {hour}, k, o, host_key, {FIGURES} FROM r",
                offsets.join(", ")
            ))
            .await?;
        }
        Ok(())
    }

    /// Windows of an hour likewise.
    pub(crate) async fn hours(&self, from: i64, to: i64) -> Result<(), Error> {
        let (table, key) = if self.is_sqlite() { ("vm_rollups", ", offset_s") } else { ("vm_hours", "") };
        let zero = if self.is_sqlite() { ", 0" } else { "" };
        for hour in from.div_euclid(HOUR)..to.div_euclid(HOUR) {
            self.part("vm_hours", hour, 30 * 24).await?;
            self.run(format!(
                "WITH r AS (SELECT CAST(vm_key AS BIGINT) AS k, host_key, CAST({hour} AS BIGINT) AS t FROM vms)
                 INSERT INTO {table} (hour, vm_key{key}, window_s, host_key, {COLUMNS})
                 SELECT {hour}, k{zero}, {HOUR}, host_key, {FIGURES} FROM r"
            ))
            .await?;
        }
        Ok(())
    }

    /// Makes the partition that holds an hour, where there are any.
    async fn part(&self, table: &str, hour: i64, hours: i64) -> Result<(), Error> {
        if self.is_sqlite() {
            return Ok(());
        }
        let span = hour.div_euclid(hours);
        let (from, to) = (span * hours, (span + 1) * hours);
        self.run(format!(
            "CREATE TABLE IF NOT EXISTS {table}_{span} PARTITION OF {table} FOR VALUES FROM ({from}) TO ({to})"
        ))
        .await
    }

    /// Does at once what the database would do by itself in the time that a month takes.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => self.run("PRAGMA wal_checkpoint(TRUNCATE)".to_owned()).await,
            Self::Postgres(_) => {
                self.run("VACUUM (ANALYZE)".to_owned()).await?;
                self.run("CHECKPOINT".to_owned()).await
            }
        }
    }

    /// All windows of machines.
    pub(crate) async fn count(&self) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM vm_rollups";
        let rows: i64 = match self {
            Self::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await?,
            Self::Postgres(pool) => {
                let sql = "SELECT (SELECT count(*) FROM vm_rollups) + (SELECT count(*) FROM vm_hours)";
                sqlx::query_scalar(sql).fetch_one(pool).await?
            }
        };
        Ok(u64::try_from(rows)?)
    }
}
