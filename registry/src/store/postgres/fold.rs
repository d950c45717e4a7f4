//! Old windows merged to hourly ones, a day at a time: the server merges them, and the day's partition goes in the same transaction.

use sqlx::{AssertSqlSafe, PgConnection};

use super::PostgresStore;
use super::partitions::{HOST_HOURS, HOST_ROLLUPS, Partitioned, VM_HOURS, VM_ROLLUPS};
use crate::history::HOUR_S;
use crate::store::Result;

// What the figures of an hour are is said by `crate::history`: peaks stay peaks, means are weighted by readings, and what is told of the end
// of a window is that of the last one.
const FOLD_VMS: &str = "WITH sums AS (
        SELECT hour, vm_key, max(offset_s) AS offset_s, greatest(3600, max(window_s)) AS window_s, sum(readings) AS readings,
            coalesce(min(quality) FILTER (WHERE quality <> 0), 0) AS quality,
            max(rss_max) AS rss_max, max(demand_max) AS demand_max,
            floor(sum(rss_mean::float8 * greatest(readings, 1))
                / sum(greatest(readings, 1)) FILTER (WHERE rss_mean IS NOT NULL)) AS rss_mean,
            floor(sum(demand_mean::float8 * greatest(readings, 1))
                / sum(greatest(readings, 1)) FILTER (WHERE demand_mean IS NOT NULL)) AS demand_mean,
            max(predicted_rss) AS predicted_rss, max(predicted_demand) AS predicted_demand
        FROM PARTITION GROUP BY hour, vm_key)
    INSERT INTO vm_hours (hour, vm_key, window_s, host_key, quality, readings, allocated, maximum, rss_max, rss_mean,
        demand_max, demand_mean, predicted_rss, predicted_demand, harvestable, reclaimable)
    SELECT s.hour, s.vm_key, s.window_s, l.host_key, s.quality, s.readings, l.allocated, l.maximum, s.rss_max, s.rss_mean,
        s.demand_max, s.demand_mean, s.predicted_rss, s.predicted_demand, l.harvestable, l.reclaimable
    FROM sums s JOIN PARTITION l ON (l.hour, l.vm_key, l.offset_s) = (s.hour, s.vm_key, s.offset_s)
    ORDER BY s.vm_key, s.hour
    ON CONFLICT (vm_key, hour) DO UPDATE SET
        window_s = excluded.window_s, host_key = excluded.host_key, quality = excluded.quality, readings = excluded.readings,
        allocated = excluded.allocated, maximum = excluded.maximum, rss_max = excluded.rss_max, rss_mean = excluded.rss_mean,
        demand_max = excluded.demand_max, demand_mean = excluded.demand_mean, predicted_rss = excluded.predicted_rss,
        predicted_demand = excluded.predicted_demand, harvestable = excluded.harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings > vm_hours.readings";

const FOLD_HOSTS: &str = "WITH sums AS (
        SELECT hour, host_key, max(offset_s) AS offset_s, greatest(3600, max(window_s)) AS window_s, sum(readings) AS readings,
            min(available_min) AS available_min, max(rss_max) AS rss_max
        FROM PARTITION GROUP BY hour, host_key)
    INSERT INTO host_hours (hour, host_key, window_s, readings, vms_running, total, available_min, allocated, rss_max,
        harvestable, pooled_harvestable, reclaimable)
    SELECT s.hour, s.host_key, s.window_s, s.readings, l.vms_running, l.total, s.available_min, l.allocated, s.rss_max,
        l.harvestable, l.pooled_harvestable, l.reclaimable
    FROM sums s JOIN PARTITION l ON (l.hour, l.host_key, l.offset_s) = (s.hour, s.host_key, s.offset_s)
    ORDER BY s.host_key, s.hour
    ON CONFLICT (host_key, hour) DO UPDATE SET
        window_s = excluded.window_s, readings = excluded.readings, vms_running = excluded.vms_running, total = excluded.total,
        available_min = excluded.available_min, allocated = excluded.allocated, rss_max = excluded.rss_max,
        harvestable = excluded.harvestable, pooled_harvestable = excluded.pooled_harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings > host_hours.readings";

/// What is merged, to what, and how.
struct Kind {
    from: &'static Partitioned,
    to: &'static Partitioned,
    fold: &'static str,
    /// The table of what the windows tell of.
    subjects: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { from: &VM_ROLLUPS, to: &VM_HOURS, fold: FOLD_VMS, subjects: "vms" },
    Kind { from: &HOST_ROLLUPS, to: &HOST_HOURS, fold: FOLD_HOSTS, subjects: "hosts" },
];

impl PostgresStore {
    /// See [`crate::store::HarvestStore::fold_history`]: the oldest day that is old as a whole.
    pub(super) async fn fold_step(&self, before_s: i64) -> Result<u64> {
        for kind in &KINDS {
            let mut connection = self.reader.acquire().await?;
            let oldest = kind.from.spans(&mut connection).await?.into_iter().next();
            drop(connection);
            let Some(span) = oldest.filter(|span| kind.from.start_s(span + 1) <= before_s) else { continue };
            let (first_s, next_s) = (kind.from.start_s(span), kind.from.start_s(span + 1));
            self.make_partitions(kind.to, [first_s, next_s - 1].into_iter()).await?;
            // The same lock as for dropping: another registry may be at it.
            let mut transaction = self.begin_alone(kind.from.table).await?;
            if !kind.from.spans(&mut transaction).await?.contains(&span) {
                return Ok(1);
            }
            let folded = fold(&mut transaction, kind, span, first_s, next_s).await?;
            kind.from.drop(&mut transaction, span).await?;
            transaction.commit().await?;
            self.partitions.forget();
            return Ok(folded.max(1));
        }
        Ok(0)
    }
}

async fn fold(
    connection: &mut PgConnection,
    kind: &Kind,
    span: i64,
    first_s: i64,
    next_s: i64,
) -> Result<u64> {
    // A large fleet's day takes longer than a caller would wait; nobody waits for this.
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *connection).await?;
    // A window that comes late must not get lost between being read and being dropped; readers go on.
    let partition = kind.from.name(span);
    let lock = format!("LOCK TABLE {partition} IN SHARE MODE");
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *connection).await?;
    let fold = kind.fold.replace("PARTITION", &partition);
    let folded = sqlx::query(AssertSqlSafe(fold)).persistent(false).execute(&mut *connection).await?;
    // Where a subject's newest window was one of these, it is the hour's now.
    let newest = format!(
        "UPDATE {} SET latest_s = latest_s / {HOUR_S} * {HOUR_S} WHERE latest_s >= $1 AND latest_s < $2 AND latest_s % {HOUR_S} <> 0",
        kind.subjects
    );
    sqlx::query(AssertSqlSafe(newest)).bind(first_s).bind(next_s).execute(connection).await?;
    Ok(folded.rows_affected())
}
