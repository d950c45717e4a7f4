//! Recording history: many rows in few statements, in one transaction.

use std::collections::{BTreeMap, HashMap};

use memharvest_proto::registry::v1::{
    CoverageRollup, HostHarvest, HostRollup, RecordHarvestRequest, VmRollup,
};
use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::rollups::{start_s, window_or_null};
use super::{SqliteStore, fields};
use crate::store::Result;
use crate::time::{duration_to_ns, instant_to_ns};

/// Rows in a statement; with at most 17 columns each it stays far below SQLite's limit of 32,766 values.
const ROWS: usize = 400;

const UPSERT_HOSTS: &str = "INSERT INTO hosts (host_id, name, latest_s) ";
const ON_KNOWN_HOST: &str = " ON CONFLICT (host_id) DO UPDATE SET
    name = CASE excluded.name WHEN '' THEN hosts.name ELSE excluded.name END,
    latest_s = CASE WHEN hosts.latest_s IS NULL OR excluded.latest_s > hosts.latest_s THEN excluded.latest_s ELSE hosts.latest_s END";

const UPSERT_VMS: &str = "INSERT INTO vms (vm_id, name, host_key, latest_s) ";
const ON_KNOWN_VM: &str = " ON CONFLICT (vm_id) DO UPDATE SET
    name = CASE excluded.name WHEN '' THEN vms.name ELSE excluded.name END,
    host_key = excluded.host_key, latest_s = excluded.latest_s
    WHERE excluded.latest_s >= vms.latest_s";

// A predictor that was restarted in the middle of a window tells it in two parts: the larger one stays.
/// A predictor that was killed sees the last readings of a window again, and only those: such a part never takes the
/// place of the whole. The same holds for hosts and coverage.
const UPSERT_VM_ROLLUPS: &str = "INSERT INTO vm_rollups (hour, vm_key, offset_s, window_s, host_key, readings, quality, allocated,
    maximum, rss_max, rss_mean, demand_max, demand_mean, predicted_rss, predicted_demand, harvestable, reclaimable) ";
const ON_KNOWN_VM_ROLLUP: &str = " ON CONFLICT (hour, vm_key, offset_s) DO UPDATE SET
    window_s = excluded.window_s, host_key = excluded.host_key, readings = excluded.readings, quality = excluded.quality,
    allocated = excluded.allocated, maximum = excluded.maximum, rss_max = excluded.rss_max, rss_mean = excluded.rss_mean,
    demand_max = excluded.demand_max, demand_mean = excluded.demand_mean, predicted_rss = excluded.predicted_rss,
    predicted_demand = excluded.predicted_demand, harvestable = excluded.harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings >= vm_rollups.readings";

const UPSERT_HOST_ROLLUPS: &str =
    "INSERT INTO host_rollups (hour, host_key, offset_s, window_s, readings, vms_running, total,
    available_min, allocated, rss_max, harvestable, pooled_harvestable, reclaimable) ";
const ON_KNOWN_HOST_ROLLUP: &str = " ON CONFLICT (hour, host_key, offset_s) DO UPDATE SET
    window_s = excluded.window_s, readings = excluded.readings, vms_running = excluded.vms_running, total = excluded.total,
    available_min = excluded.available_min, allocated = excluded.allocated, rss_max = excluded.rss_max,
    harvestable = excluded.harvestable, pooled_harvestable = excluded.pooled_harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings >= host_rollups.readings";

const UPSERT_COVERAGE: &str =
    "INSERT INTO coverage (start_s, host_key, signal, horizon_ns, target_violation_rate, judged, held) ";
const ON_KNOWN_COVERAGE: &str =
    " ON CONFLICT (start_s, host_key, signal, horizon_ns, target_violation_rate) DO UPDATE SET
    judged = excluded.judged, held = excluded.held WHERE excluded.judged >= coverage.judged";

const UPSERT_HARVESTS: &str =
    "INSERT INTO host_harvests (host_key, read_at, harvestable, valid_until, breaker_open) ";
const ON_KNOWN_HARVEST: &str = " ON CONFLICT (host_key) DO UPDATE SET
    read_at = excluded.read_at, harvestable = excluded.harvestable, valid_until = excluded.valid_until,
    breaker_open = excluded.breaker_open WHERE excluded.read_at >= host_harvests.read_at";

type RowValues<'a> = Separated<'a, Sqlite, &'static str>;

/// Writes rows by statements of at most [`ROWS`]; returns how many were written.
async fn upsert<T>(
    connection: &mut SqliteConnection,
    insert: &str,
    on_conflict: &str,
    rows: &[T],
    mut push: impl FnMut(RowValues<'_>, &T),
) -> sqlx::Result<u64> {
    let mut written = 0;
    for chunk in rows.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(insert);
        query.push_values(chunk, &mut push);
        query.push(on_conflict);
        // Only the statement of full chunks comes again and is worth keeping.
        let statement = query.build().persistent(chunk.len() == ROWS);
        written += statement.execute(&mut *connection).await?.rows_affected();
    }
    Ok(written)
}

/// Makes all hosts of a batch known; returns their keys.
async fn host_keys(
    connection: &mut SqliteConnection,
    batch: &RecordHarvestRequest,
) -> Result<HashMap<String, i64>> {
    let mut hosts: BTreeMap<&str, (&str, Option<i64>)> = BTreeMap::new();
    for host in &batch.hosts {
        let start = start_s(host.window_start.as_ref());
        let known = hosts.entry(&host.host_id).or_insert((&host.host_name, Some(start)));
        if known.1 <= Some(start) {
            *known = (&host.host_name, Some(start));
        }
    }
    let others = (batch.vms.iter().map(|vm| &vm.host_id))
        .chain(batch.harvests.iter().map(|harvest| &harvest.host_id))
        .chain(batch.coverage.iter().map(|coverage| &coverage.host_id));
    for host_id in others {
        hosts.entry(host_id).or_insert(("", None));
    }
    let hosts: Vec<_> = hosts.into_iter().collect();
    upsert(connection, UPSERT_HOSTS, ON_KNOWN_HOST, &hosts, |mut row, (host_id, (name, latest))| {
        row.push_bind(*host_id).push_bind(*name).push_bind(*latest);
    })
    .await?;
    let mut keys = HashMap::with_capacity(hosts.len());
    for chunk in hosts.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT host_id, host_key FROM hosts WHERE host_id IN (");
        let mut list = query.separated(", ");
        for (host_id, _) in chunk {
            list.push_bind(*host_id);
        }
        query.push(")");
        for row in query.build().persistent(false).fetch_all(&mut *connection).await? {
            keys.insert(row.try_get("host_id")?, row.try_get("host_key")?);
        }
    }
    Ok(keys)
}

/// Makes all machines of a batch known; returns their keys.
async fn vm_keys(
    connection: &mut SqliteConnection,
    vms: &[VmRollup],
    host_keys: &HashMap<String, i64>,
) -> Result<HashMap<Vec<u8>, i64>> {
    let mut newest: BTreeMap<Vec<u8>, &VmRollup> = BTreeMap::new();
    for vm in vms {
        let known = newest.entry(fields::vm_bytes(&vm.vm_id)?).or_insert(vm);
        if start_s(known.window_start.as_ref()) <= start_s(vm.window_start.as_ref()) {
            *known = vm;
        }
    }
    let newest: Vec<_> = newest.into_iter().collect();
    upsert(connection, UPSERT_VMS, ON_KNOWN_VM, &newest, |mut row, (vm_id, vm)| {
        row.push_bind(vm_id.as_slice())
            .push_bind(&vm.vm_name)
            .push_bind(host_keys.get(&vm.host_id).copied())
            .push_bind(start_s(vm.window_start.as_ref()));
    })
    .await?;
    let mut keys = HashMap::with_capacity(newest.len());
    for chunk in newest.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT vm_id, vm_key FROM vms WHERE vm_id IN (");
        let mut list = query.separated(", ");
        for (vm_id, _) in chunk {
            list.push_bind(vm_id.as_slice());
        }
        query.push(")");
        for row in query.build().persistent(chunk.len() == ROWS).fetch_all(&mut *connection).await? {
            keys.insert(row.try_get("vm_id")?, row.try_get("vm_key")?);
        }
    }
    Ok(keys)
}

async fn record_vms(
    connection: &mut SqliteConnection,
    vms: &[VmRollup],
    host_keys: &HashMap<String, i64>,
) -> Result<u64> {
    let vm_keys = vm_keys(connection, vms, host_keys).await?;
    let mut rows = Vec::with_capacity(vms.len());
    for vm in vms {
        let start = start_s(vm.window_start.as_ref());
        rows.push((start / 3600, vm_keys.get(&fields::vm_bytes(&vm.vm_id)?).copied(), start % 3600, vm));
    }
    // In the order of the key, so that neighbours share a page.
    rows.sort_by_key(|(hour, vm, offset, _)| (*hour, *vm, *offset));
    let written = upsert(
        connection,
        UPSERT_VM_ROLLUPS,
        ON_KNOWN_VM_ROLLUP,
        &rows,
        |mut row, (hour, key, offset, vm)| {
            row.push_bind(*hour)
                .push_bind(*key)
                .push_bind(*offset)
                .push_bind(window_or_null(vm.window.as_ref()))
                .push_bind(host_keys.get(&vm.host_id).copied())
                .push_bind(vm.readings)
                .push_bind(vm.quality)
                .push_bind(fields::figure_or_null(vm.allocated_bytes))
                .push_bind(fields::figure_or_null(vm.maximum_bytes))
                .push_bind(fields::figure_or_null(vm.rss_max_bytes))
                .push_bind(fields::figure_or_null(vm.rss_mean_bytes))
                .push_bind(fields::figure_or_null(vm.demand_max_bytes))
                .push_bind(fields::figure_or_null(vm.demand_mean_bytes))
                .push_bind(fields::figure_or_null(vm.predicted_rss_bytes))
                .push_bind(fields::figure_or_null(vm.predicted_demand_bytes))
                .push_bind(fields::figure_or_null(vm.harvestable_bytes))
                .push_bind(fields::figure_or_null(vm.reclaimable_bytes));
        },
    )
    .await?;
    Ok(written)
}

async fn record_hosts(
    connection: &mut SqliteConnection,
    hosts: &[HostRollup],
    keys: &HashMap<String, i64>,
) -> sqlx::Result<u64> {
    upsert(connection, UPSERT_HOST_ROLLUPS, ON_KNOWN_HOST_ROLLUP, hosts, |mut row, host| {
        let start = start_s(host.window_start.as_ref());
        row.push_bind(start / 3600)
            .push_bind(keys.get(&host.host_id).copied())
            .push_bind(start % 3600)
            .push_bind(window_or_null(host.window.as_ref()))
            .push_bind(host.readings)
            .push_bind(host.vms_running)
            .push_bind(fields::figure_or_null(host.total_bytes))
            .push_bind(fields::figure_or_null(host.available_min_bytes))
            .push_bind(fields::figure_or_null(host.allocated_bytes))
            .push_bind(fields::figure_or_null(host.rss_max_bytes))
            .push_bind(fields::figure_or_null(host.harvestable_bytes))
            .push_bind(fields::figure_or_null(host.pooled_harvestable_bytes))
            .push_bind(fields::figure_or_null(host.reclaimable_bytes));
    })
    .await
}

async fn record_harvests(
    connection: &mut SqliteConnection,
    harvests: &[HostHarvest],
    keys: &HashMap<String, i64>,
) -> sqlx::Result<u64> {
    upsert(connection, UPSERT_HARVESTS, ON_KNOWN_HARVEST, harvests, |mut row, harvest| {
        row.push_bind(keys.get(&harvest.host_id).copied())
            .push_bind(harvest.read_at.as_ref().and_then(instant_to_ns))
            .push_bind(fields::figure(harvest.harvestable_bytes))
            .push_bind(harvest.valid_until.as_ref().and_then(instant_to_ns))
            .push_bind(harvest.breaker_open);
    })
    .await
}

async fn record_coverage(
    connection: &mut SqliteConnection,
    coverage: &[CoverageRollup],
    keys: &HashMap<String, i64>,
) -> sqlx::Result<u64> {
    upsert(connection, UPSERT_COVERAGE, ON_KNOWN_COVERAGE, coverage, |mut row, coverage| {
        row.push_bind(start_s(coverage.window_start.as_ref()))
            .push_bind(keys.get(&coverage.host_id).copied())
            .push_bind(coverage.signal)
            .push_bind(coverage.horizon.as_ref().and_then(duration_to_ns))
            .push_bind(coverage.target_violation_rate)
            .push_bind(fields::figure(coverage.judged))
            .push_bind(fields::figure(coverage.held));
    })
    .await
}

/// Stores windows of machines within a transaction.
pub(super) async fn store_vms(connection: &mut SqliteConnection, vms: &[VmRollup]) -> Result<u64> {
    let batch = RecordHarvestRequest { vms: vms.to_vec(), ..RecordHarvestRequest::default() };
    let keys = host_keys(connection, &batch).await?;
    record_vms(connection, vms, &keys).await
}

/// Stores windows of hosts within a transaction.
pub(super) async fn store_hosts(connection: &mut SqliteConnection, hosts: &[HostRollup]) -> Result<u64> {
    let batch = RecordHarvestRequest { hosts: hosts.to_vec(), ..RecordHarvestRequest::default() };
    let keys = host_keys(connection, &batch).await?;
    Ok(record_hosts(connection, hosts, &keys).await?)
}

impl SqliteStore {
    /// See [`crate::store::HarvestStore::record_harvest`].
    pub(super) async fn record_batch(&self, batch: &RecordHarvestRequest) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let keys = host_keys(&mut transaction, batch).await?;
        let mut stored = record_vms(&mut transaction, &batch.vms, &keys).await?;
        stored += record_hosts(&mut transaction, &batch.hosts, &keys).await?;
        stored += record_harvests(&mut transaction, &batch.harvests, &keys).await?;
        stored += record_coverage(&mut transaction, &batch.coverage, &keys).await?;
        transaction.commit().await?;
        Ok(stored)
    }
}
