//! Recording history: a few statements for a batch of any size, in one transaction. A column travels as one array.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use memharvest_proto::registry::v1::{
    CoverageRollup, HostHarvest, HostRollup, RecordHarvestRequest, VmRollup,
};
use sqlx::{PgConnection, Row};

use super::partitions::{COVERAGE, HOST_ROLLUPS, VM_ROLLUPS};
use super::rollups::{start_s, window_or_null};
use super::{PostgresStore, fields};
use crate::history::HOUR_S;
use crate::store::failure::sql_state;
use crate::store::{Result, StoreError};
use crate::time::{duration_to_ns, instant_to_ns};

/// How often a batch is tried where others record the same machines in another order, or a partition goes meanwhile.
const TRIES: u32 = 5;

const ADD_HOSTS: &str = "INSERT INTO hosts (host_id, name) SELECT id, '' FROM unnest($1::text[]) AS new (id) ON CONFLICT (host_id) DO NOTHING";
const UPDATE_HOSTS: &str = "UPDATE hosts SET name = CASE new.name WHEN '' THEN hosts.name ELSE new.name END,
        latest_s = CASE WHEN hosts.latest_s IS NULL OR new.latest_s > hosts.latest_s THEN new.latest_s ELSE hosts.latest_s END
    FROM unnest($1::text[], $2::text[], $3::int8[]) AS new (id, name, latest_s)
    WHERE hosts.host_id = new.id
        AND ((new.name <> '' AND new.name <> hosts.name) OR hosts.latest_s IS NULL OR new.latest_s > hosts.latest_s)";

const ADD_VMS: &str = "INSERT INTO vms (vm_id, name, host_key, latest_s)
    SELECT * FROM unnest($1::bytea[], $2::text[], $3::int4[], $4::int8[]) ON CONFLICT (vm_id) DO NOTHING";
const UPDATE_VMS: &str = "UPDATE vms SET name = CASE new.name WHEN '' THEN vms.name ELSE new.name END,
        host_key = new.host_key, latest_s = new.latest_s
    FROM unnest($1::bytea[], $2::text[], $3::int4[], $4::int8[]) AS new (id, name, host_key, latest_s)
    WHERE vms.vm_id = new.id AND (new.latest_s > vms.latest_s
        OR (new.latest_s = vms.latest_s AND (new.host_key <> vms.host_key OR (new.name <> '' AND new.name <> vms.name))))";

// A predictor that was killed sees the last readings of a window again, and only those: such a part never takes the place of the
// whole. The same holds for hosts and coverage.
const UPSERT_VM_ROLLUPS: &str = "INSERT INTO vm_rollups (hour, vm_key, offset_s, window_s, host_key, quality, readings, allocated,
        maximum, rss_max, rss_mean, demand_max, demand_mean, predicted_rss, predicted_demand, harvestable, reclaimable)
    SELECT * FROM unnest($1::int4[], $2::int4[], $3::int4[], $4::int4[], $5::int4[], $6::int4[], $7::int8[], $8::int8[],
        $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[])
    ON CONFLICT (hour, vm_key, offset_s) DO UPDATE SET
        window_s = excluded.window_s, host_key = excluded.host_key, quality = excluded.quality, readings = excluded.readings,
        allocated = excluded.allocated, maximum = excluded.maximum, rss_max = excluded.rss_max, rss_mean = excluded.rss_mean,
        demand_max = excluded.demand_max, demand_mean = excluded.demand_mean, predicted_rss = excluded.predicted_rss,
        predicted_demand = excluded.predicted_demand, harvestable = excluded.harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings >= vm_rollups.readings";

const UPSERT_HOST_ROLLUPS: &str = "INSERT INTO host_rollups (hour, host_key, offset_s, window_s, readings, vms_running, total,
        available_min, allocated, rss_max, harvestable, pooled_harvestable, reclaimable)
    SELECT * FROM unnest($1::int4[], $2::int4[], $3::int4[], $4::int4[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
        $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[])
    ON CONFLICT (hour, host_key, offset_s) DO UPDATE SET
        window_s = excluded.window_s, readings = excluded.readings, vms_running = excluded.vms_running, total = excluded.total,
        available_min = excluded.available_min, allocated = excluded.allocated, rss_max = excluded.rss_max,
        harvestable = excluded.harvestable, pooled_harvestable = excluded.pooled_harvestable, reclaimable = excluded.reclaimable
    WHERE excluded.readings >= host_rollups.readings";

const UPSERT_COVERAGE: &str =
    "INSERT INTO coverage (start_s, host_key, signal, horizon_ns, target_violation_rate, judged, held)
    SELECT * FROM unnest($1::int8[], $2::int4[], $3::int4[], $4::int8[], $5::float8[], $6::int8[], $7::int8[])
    ON CONFLICT (start_s, host_key, signal, horizon_ns, target_violation_rate) DO UPDATE SET
        judged = excluded.judged, held = excluded.held WHERE excluded.judged >= coverage.judged";

const UPSERT_HARVESTS: &str =
    "INSERT INTO host_harvests (host_key, read_at, harvestable, valid_until, breaker_open)
    SELECT * FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[], $5::bool[])
    ON CONFLICT (host_key) DO UPDATE SET
        read_at = excluded.read_at, harvestable = excluded.harvestable, valid_until = excluded.valid_until,
        breaker_open = excluded.breaker_open WHERE excluded.read_at >= host_harvests.read_at";

/// A figure for a narrow column. Hours of this and the next centuries and lengths of windows fit.
fn narrow(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// One column of many rows.
fn column<T, U>(rows: &[T], of: impl FnMut(&T) -> U) -> Vec<U> {
    rows.iter().map(of).collect()
}

/// One column of figures that may not be known.
fn figures<K, T>(rows: &[(K, &T)], of: impl Fn(&T) -> Option<u64>) -> Vec<Option<i64>> {
    column(rows, |(_, row)| fields::figure_or_null(of(row)))
}

/// One row for each key, the fullest one: a statement may touch a row only once.
fn fullest<'a, K: Ord, T>(
    rows: impl Iterator<Item = (K, &'a T)>,
    fuller: impl Fn(&T, &T) -> bool,
) -> Vec<(K, &'a T)> {
    let mut kept: BTreeMap<K, &'a T> = BTreeMap::new();
    for (key, row) in rows {
        kept.entry(key)
            .and_modify(|known| {
                if fuller(row, known) {
                    *known = row;
                }
            })
            .or_insert(row);
    }
    kept.into_iter().collect()
}

/// Makes all hosts of a batch known; returns their keys.
async fn host_keys(
    connection: &mut PgConnection,
    batch: &RecordHarvestRequest,
) -> Result<HashMap<String, i32>> {
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
    let ids: Vec<&str> = hosts.keys().copied().collect();
    let mut keys = find_hosts(connection, &ids).await?;
    let new: Vec<&str> = ids.iter().copied().filter(|id| !keys.contains_key(*id)).collect();
    if !new.is_empty() {
        sqlx::query(ADD_HOSTS).bind(&new).execute(&mut *connection).await?;
        keys.extend(find_hosts(connection, &new).await?);
    }
    let told: Vec<_> = hosts.into_iter().filter(|(_, (_, latest))| latest.is_some()).collect();
    if !told.is_empty() {
        sqlx::query(UPDATE_HOSTS)
            .bind(column(&told, |(id, _)| *id))
            .bind(column(&told, |(_, (name, _))| *name))
            .bind(column(&told, |(_, (_, latest))| *latest))
            .execute(connection)
            .await?;
    }
    Ok(keys)
}

async fn find_hosts(connection: &mut PgConnection, ids: &[&str]) -> sqlx::Result<HashMap<String, i32>> {
    let rows = sqlx::query("SELECT host_id, host_key FROM hosts WHERE host_id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("host_id")?, row.try_get("host_key")?))).collect()
}

async fn find_vms(connection: &mut PgConnection, ids: &[&[u8]]) -> sqlx::Result<HashMap<Vec<u8>, i32>> {
    let rows = sqlx::query("SELECT vm_id, vm_key FROM vms WHERE vm_id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("vm_id")?, row.try_get("vm_key")?))).collect()
}

/// Makes all machines of a batch known; returns their keys.
async fn vm_keys(
    connection: &mut PgConnection,
    vms: &[VmRollup],
    host_keys: &HashMap<String, i32>,
) -> Result<HashMap<Vec<u8>, i32>> {
    let mut newest: BTreeMap<Vec<u8>, &VmRollup> = BTreeMap::new();
    for vm in vms {
        let known = newest.entry(fields::vm_bytes(&vm.vm_id)?).or_insert(vm);
        if start_s(known.window_start.as_ref()) <= start_s(vm.window_start.as_ref()) {
            *known = vm;
        }
    }
    let ids: Vec<&[u8]> = newest.keys().map(Vec::as_slice).collect();
    let mut keys = find_vms(connection, &ids).await?;
    let (known, new): (Vec<_>, Vec<_>) = newest.iter().partition(|(id, _)| keys.contains_key(*id));
    for (sql, rows) in [(ADD_VMS, &new), (UPDATE_VMS, &known)] {
        if rows.is_empty() {
            continue;
        }
        sqlx::query(sql)
            .bind(column(rows, |(id, _)| id.as_slice()))
            .bind(column(rows, |(_, vm)| vm.vm_name.as_str()))
            .bind(column(rows, |(_, vm)| host_keys.get(&vm.host_id).copied()))
            .bind(column(rows, |(_, vm)| start_s(vm.window_start.as_ref())))
            .execute(&mut *connection)
            .await?;
    }
    if !new.is_empty() {
        keys.extend(find_vms(connection, &column(&new, |(id, _)| id.as_slice())).await?);
    }
    Ok(keys)
}

async fn record_vms(
    connection: &mut PgConnection,
    vms: &[VmRollup],
    host_keys: &HashMap<String, i32>,
) -> Result<u64> {
    let vm_keys = vm_keys(connection, vms, host_keys).await?;
    let mut keyed = Vec::with_capacity(vms.len());
    for vm in vms {
        let start = start_s(vm.window_start.as_ref());
        let key = vm_keys.get(&fields::vm_bytes(&vm.vm_id)?).copied();
        keyed.push(((narrow(start.div_euclid(HOUR_S)), key, narrow(start.rem_euclid(HOUR_S))), vm));
    }
    // In the order of the key, so that neighbours share a page.
    let rows = fullest(keyed.into_iter(), |new, known| new.readings >= known.readings);
    let written = sqlx::query(UPSERT_VM_ROLLUPS)
        .bind(column(&rows, |((hour, _, _), _)| *hour))
        .bind(column(&rows, |((_, key, _), _)| *key))
        .bind(column(&rows, |((_, _, offset), _)| *offset))
        .bind(column(&rows, |(_, vm)| window_or_null(vm.window.as_ref()).map(narrow)))
        .bind(column(&rows, |(_, vm)| host_keys.get(&vm.host_id).copied()))
        .bind(column(&rows, |(_, vm)| vm.quality))
        .bind(column(&rows, |(_, vm)| i64::from(vm.readings)))
        .bind(figures(&rows, |vm| vm.allocated_bytes))
        .bind(figures(&rows, |vm| vm.maximum_bytes))
        .bind(figures(&rows, |vm| vm.rss_max_bytes))
        .bind(figures(&rows, |vm| vm.rss_mean_bytes))
        .bind(figures(&rows, |vm| vm.demand_max_bytes))
        .bind(figures(&rows, |vm| vm.demand_mean_bytes))
        .bind(figures(&rows, |vm| vm.predicted_rss_bytes))
        .bind(figures(&rows, |vm| vm.predicted_demand_bytes))
        .bind(figures(&rows, |vm| vm.harvestable_bytes))
        .bind(figures(&rows, |vm| vm.reclaimable_bytes))
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

async fn record_hosts(
    connection: &mut PgConnection,
    hosts: &[HostRollup],
    keys: &HashMap<String, i32>,
) -> sqlx::Result<u64> {
    let keyed = hosts.iter().map(|host| {
        let start = start_s(host.window_start.as_ref());
        let key = keys.get(&host.host_id).copied();
        ((narrow(start.div_euclid(HOUR_S)), key, narrow(start.rem_euclid(HOUR_S))), host)
    });
    let rows = fullest(keyed, |new, known| new.readings >= known.readings);
    let written = sqlx::query(UPSERT_HOST_ROLLUPS)
        .bind(column(&rows, |((hour, _, _), _)| *hour))
        .bind(column(&rows, |((_, key, _), _)| *key))
        .bind(column(&rows, |((_, _, offset), _)| *offset))
        .bind(column(&rows, |(_, host)| window_or_null(host.window.as_ref()).map(narrow)))
        .bind(column(&rows, |(_, host)| i64::from(host.readings)))
        .bind(column(&rows, |(_, host)| i64::from(host.vms_running)))
        .bind(figures(&rows, |host| host.total_bytes))
        .bind(figures(&rows, |host| host.available_min_bytes))
        .bind(figures(&rows, |host| host.allocated_bytes))
        .bind(figures(&rows, |host| host.rss_max_bytes))
        .bind(figures(&rows, |host| host.harvestable_bytes))
        .bind(figures(&rows, |host| host.pooled_harvestable_bytes))
        .bind(figures(&rows, |host| host.reclaimable_bytes))
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

async fn record_harvests(
    connection: &mut PgConnection,
    harvests: &[HostHarvest],
    keys: &HashMap<String, i32>,
) -> sqlx::Result<u64> {
    let read_at = |harvest: &HostHarvest| harvest.read_at.as_ref().and_then(instant_to_ns);
    let keyed = harvests.iter().map(|harvest| (keys.get(&harvest.host_id).copied(), harvest));
    let rows = fullest(keyed, |new, known| read_at(new) >= read_at(known));
    let written = sqlx::query(UPSERT_HARVESTS)
        .bind(column(&rows, |(key, _)| *key))
        .bind(column(&rows, |(_, harvest)| read_at(harvest)))
        .bind(figures(&rows, |harvest| Some(harvest.harvestable_bytes)))
        .bind(column(&rows, |(_, harvest)| harvest.valid_until.as_ref().and_then(instant_to_ns)))
        .bind(column(&rows, |(_, harvest)| harvest.breaker_open))
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

async fn record_coverage(
    connection: &mut PgConnection,
    coverage: &[CoverageRollup],
    keys: &HashMap<String, i32>,
) -> sqlx::Result<u64> {
    let keyed = coverage.iter().map(|one| {
        let horizon = one.horizon.as_ref().and_then(duration_to_ns);
        let host = keys.get(&one.host_id).copied();
        // Rates are above zero, so that their bits are in the same order as they are.
        let rate = one.target_violation_rate.to_bits();
        ((start_s(one.window_start.as_ref()), host, one.signal, horizon, rate), one)
    });
    let rows = fullest(keyed, |new, known| new.judged >= known.judged);
    let written = sqlx::query(UPSERT_COVERAGE)
        .bind(column(&rows, |((start, ..), _)| *start))
        .bind(column(&rows, |((_, host, ..), _)| *host))
        .bind(column(&rows, |(_, one)| one.signal))
        .bind(column(&rows, |((_, _, _, horizon, _), _)| *horizon))
        .bind(column(&rows, |(_, one)| one.target_violation_rate))
        .bind(figures(&rows, |one| Some(one.judged)))
        .bind(figures(&rows, |one| Some(one.held)))
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

/// Whether the same batch may pass at another try: others had the same rows, or a partition was dropped meanwhile.
fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Conflict => true,
        // check_violation: no partition; undefined_table and internal_error: it went while it was waited for.
        StoreError::Failed(cause) => cause
            .downcast_ref::<sqlx::Error>()
            .is_some_and(|error| matches!(sql_state(error), Some("23514" | "42P01" | "XX000"))),
        _ => false,
    }
}

impl PostgresStore {
    /// See [`crate::store::HarvestStore::record_harvest`].
    pub(super) async fn record_batch(&self, batch: &RecordHarvestRequest) -> Result<u64> {
        let mut tries = 1;
        loop {
            match self.try_record(batch).await {
                Err(error) if tries < TRIES && may_pass(&error) => {
                    self.partitions.forget();
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_record(&self, batch: &RecordHarvestRequest) -> Result<u64> {
        let starts: BTreeSet<i64> =
            batch.coverage.iter().map(|one| start_s(one.window_start.as_ref())).collect();
        self.make_partitions(&COVERAGE, starts.into_iter()).await?;
        let starts = batch.vms.iter().map(|vm| start_s(vm.window_start.as_ref()));
        self.make_partitions(&VM_ROLLUPS, starts).await?;
        let starts = batch.hosts.iter().map(|host| start_s(host.window_start.as_ref()));
        self.make_partitions(&HOST_ROLLUPS, starts).await?;
        let mut transaction = self.begin().await?;
        let keys = host_keys(&mut transaction, batch).await?;
        let mut stored = 0;
        if !batch.vms.is_empty() {
            stored += record_vms(&mut transaction, &batch.vms, &keys).await?;
        }
        if !batch.hosts.is_empty() {
            stored += record_hosts(&mut transaction, &batch.hosts, &keys).await?;
        }
        if !batch.harvests.is_empty() {
            stored += record_harvests(&mut transaction, &batch.harvests, &keys).await?;
        }
        if !batch.coverage.is_empty() {
            stored += record_coverage(&mut transaction, &batch.coverage, &keys).await?;
        }
        transaction.commit().await?;
        Ok(stored)
    }
}
