//! Tables that are partitioned by time: a partition is made before its first row, and dropped as a whole.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::PostgresStore;
use crate::history::HOUR_S;
use crate::store::failure::sql_state;
use crate::store::{Result, StoreError};

/// Spans of time that partitions hold, in hours.
const DAY: i64 = 24;
const THIRTY_DAYS: i64 = 30 * DAY;

/// Tries to drop a partition, and the pause between two of them: the whole table must be free for a moment.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A partitioned table.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Partitioned {
    pub(super) table: &'static str,
    /// Hours that one partition holds.
    hours: i64,
    /// What the key counts in, in seconds.
    unit_s: i64,
}

pub(super) const VM_ROLLUPS: Partitioned = Partitioned { table: "vm_rollups", hours: DAY, unit_s: HOUR_S };
pub(super) const HOST_ROLLUPS: Partitioned =
    Partitioned { table: "host_rollups", hours: DAY, unit_s: HOUR_S };
pub(super) const VM_HOURS: Partitioned =
    Partitioned { table: "vm_hours", hours: THIRTY_DAYS, unit_s: HOUR_S };
pub(super) const HOST_HOURS: Partitioned =
    Partitioned { table: "host_hours", hours: THIRTY_DAYS, unit_s: HOUR_S };
pub(super) const COVERAGE: Partitioned = Partitioned { table: "coverage", hours: THIRTY_DAYS, unit_s: 1 };

pub(super) const ALL: [&Partitioned; 5] = [&VM_ROLLUPS, &HOST_ROLLUPS, &VM_HOURS, &HOST_HOURS, &COVERAGE];

impl Partitioned {
    /// The partition that holds a second: the number of its span since 1970.
    pub(super) fn span_of(&self, second: i64) -> i64 {
        second.div_euclid(self.hours * HOUR_S)
    }

    /// The second at which a span begins.
    pub(super) fn start_s(&self, span: i64) -> i64 {
        span * self.hours * HOUR_S
    }

    /// The name of a partition.
    pub(super) fn name(&self, span: i64) -> String {
        format!("{}_{span}", self.table)
    }

    /// The spans that have a partition, oldest first.
    pub(super) async fn spans(&self, connection: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1::regclass",
        )
        .bind(self.table)
        .fetch_all(connection)
        .await?;
        let span = |name: &String| name.rsplit_once('_').and_then(|(_, span)| span.parse().ok());
        let mut spans: Vec<i64> = names.iter().filter_map(span).collect();
        spans.sort_unstable();
        Ok(spans)
    }

    /// Drops a partition within a transaction. Readers and writers of the whole table have to be gone for a moment: they are not kept
    /// waiting for long, it is tried again instead.
    pub(super) async fn drop(&self, connection: &mut PgConnection, span: i64) -> Result<()> {
        let sql = format!("DROP TABLE {}", self.name(span));
        for _ in 0..TRIES {
            let mut attempt = connection.begin().await?;
            sqlx::query("SET LOCAL lock_timeout = '100ms'").execute(&mut *attempt).await?;
            match sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut *attempt).await {
                Ok(_) => return Ok(attempt.commit().await?),
                Err(error) if sql_state(&error) == Some("55P03") => attempt.rollback().await?,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        Err(StoreError::Unavailable(format!("{} is in use all the time", self.table)))
    }
}

/// The partitions that are known to be there.
#[derive(Debug, Default)]
pub(super) struct Partitions(Mutex<HashSet<(&'static str, i64)>>);

impl Partitions {
    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<(&'static str, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another registry has dropped some of them.
    pub(super) fn forget(&self) {
        self.known().clear();
    }
}

impl PostgresStore {
    /// Makes the partitions that hold these seconds, where they are not there.
    pub(super) async fn make_partitions(
        &self,
        of: &'static Partitioned,
        seconds: impl Iterator<Item = i64>,
    ) -> Result<()> {
        let mut spans: BTreeSet<i64> = seconds.map(|second| of.span_of(second)).collect();
        {
            let known = self.partitions.known();
            spans.retain(|span| !known.contains(&(of.table, *span)));
        }
        if spans.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin_alone("partitions").await?;
        for span in &spans {
            let (from, to) = (of.start_s(*span) / of.unit_s, of.start_s(span + 1) / of.unit_s);
            let (table, name) = (of.table, of.name(*span));
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table} FOR VALUES FROM ({from}) TO ({to})"
            );
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.partitions.known().extend(spans.iter().map(|span| (of.table, *span)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lies_within_its_partition() {
        for of in ALL {
            for second in [0, 1, 86_399, 86_400, 1_760_000_400] {
                let span = of.span_of(second);
                assert!((of.start_s(span)..of.start_s(span + 1)).contains(&second), "{} {second}", of.table);
            }
        }
        assert_eq!(VM_ROLLUPS.name(VM_ROLLUPS.span_of(1_760_000_400)), "vm_rollups_20370");
    }
}
