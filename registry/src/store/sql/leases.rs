//! Leases: made in the transaction that looks at what is left, so that no two spend the same byte.

use memharvest_proto::registry::v1::{HostHarvest, Lease, LeaseState};
use sqlx::{QueryBuilder, Row as _};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Connection, Database, Row, SqlStore, counter, fields, raise_counter};
use crate::lease::{self, Harvest, Moment, Refusal, Reservation, Supply};
use crate::store::hints::LEASE_SEQUENCE;
use crate::store::{Change, LeaseFilter, LeaseStore, Result, StoreError};

/// Leases that end in one transaction.
const AT_ONCE: i64 = 500;

/// States that hold memory back, spelled out so that the indexes over them serve.
const HOLDS: &str = "l.state IN (1, 2)";

/// Leases with what is known of their consumers: the newest window that began at `$1` or later, if it was on the lease's host.
fn select(now: Moment) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new(
        "SELECT l.lease_key, l.lease_id, l.sequence, l.host_id, l.consumer_vm, l.bytes, l.state, l.holder, l.idempotency_key,
             l.request, l.created_at, l.expires_at, l.revoke_reason, l.revoke_at, l.ended_at,
             r.rss_mean AS consumer_rss, r.harvestable AS consumer_harvestable,
             (SELECT CAST(coalesce(sum(o.bytes), 0) AS BIGINT) FROM leases o WHERE o.consumer_vm = l.consumer_vm AND o.state IN (1, 2)
              AND o.host_id = l.host_id AND o.lease_key < l.lease_key) AS bytes_before
         FROM leases l
         LEFT JOIN hosts h ON h.host_id = l.host_id
         LEFT JOIN vms v ON v.vm_id = l.consumer_vm AND v.host_key = h.host_key AND v.latest_s >= ",
    );
    query.push_bind(now.usage_counts_from_s()).push(
        " LEFT JOIN vm_rollups r ON r.hour = v.latest_s / 3600 AND r.vm_key = v.vm_key AND r.offset_s = v.latest_s % 3600
              AND r.hour >= ",
    );
    query.push_bind(now.usage_counts_from_s() / 3600);
    query
}

fn get_lease(row: &Row) -> sqlx::Result<Lease> {
    let consumer: Option<Vec<u8>> = row.try_get("consumer_vm")?;
    let mut lease = Lease {
        lease_id: row.try_get("lease_id")?,
        host_id: row.try_get("host_id")?,
        consumer_vm_id: if consumer.is_some() { fields::get_vm(row, "consumer_vm")? } else { String::new() },
        bytes: fields::get_count(row, "bytes")?,
        state: row.try_get("state")?,
        holder: row.try_get("holder")?,
        expires_at: fields::get_instant(row, "expires_at")?,
        idempotency_key: row.try_get::<Option<String>, _>("idempotency_key")?.unwrap_or_default(),
        created_at: fields::get_instant(row, "created_at")?,
        held_back_bytes: 0,
        revoke_reason: row.try_get("revoke_reason")?,
        revoke_at: fields::get_instant(row, "revoke_at")?,
        ended_at: fields::get_instant(row, "ended_at")?,
    };
    let rss = fields::get_count_or_none(row, "consumer_rss")?;
    lease.held_back_bytes =
        lease::held_back(lease.state(), lease.bytes, rss, fields::get_count(row, "bytes_before")?);
    Ok(lease)
}

fn numbered(row: &Row, number: &str) -> sqlx::Result<(u64, Lease)> {
    Ok((fields::get_count(row, number)?, get_lease(row)?))
}

async fn find(
    connection: &mut Connection,
    column: &'static str,
    value: &str,
    now: Moment,
) -> Result<Option<(Lease, String)>> {
    let mut query = select(now);
    query.push(" WHERE l.").push(column).push(" = ").push_bind(value);
    let row = query.build().fetch_optional(connection).await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((get_lease(&row)?, row.try_get("request")?))).transpose()?)
}

/// Writes a lease as it became, under the next sequence.
async fn update(
    connection: &mut Connection,
    before: &Lease,
    after: &Lease,
    action: &str,
    change: &Change,
) -> Result<i64> {
    let sequence = raise_counter(connection, LEASE_SEQUENCE, 1).await?;
    let consumer = Uuid::try_parse(&after.consumer_vm_id).ok().map(|vm| vm.as_bytes().to_vec());
    sqlx::query(
        "UPDATE leases SET sequence = $2, consumer_vm = $3, state = $4, expires_at = $5, revoke_reason = $6, revoke_at = $7,
             ended_at = $8 WHERE lease_id = $1",
    )
    .bind(&after.lease_id)
    .bind(sequence)
    .bind(consumer)
    .bind(after.state)
    .bind(fields::instant_or_null(after.expires_at.as_ref()))
    .bind(&after.revoke_reason)
    .bind(fields::instant_or_null(after.revoke_at.as_ref()))
    .bind(fields::instant_or_null(after.ended_at.as_ref()))
    .execute(&mut *connection)
    .await?;
    let (old, new) = (lease::audit_json(before), lease::audit_json(after));
    fields::audit(connection, change, action, &after.lease_id, &old, &new).await?;
    Ok(sequence)
}

/// Ends leases whose time is over, on one host or on all; returns how many, and the last sequence.
async fn end_due(
    connection: &mut Connection,
    host_id: Option<&str>,
    now: Moment,
    author: &str,
) -> Result<(u64, i64)> {
    let mut query = select(now);
    query.push(" WHERE ").push(HOLDS).push(" AND (l.expires_at <= ").push_bind(now.store_ns);
    query.push(" OR l.revoke_at <= ").push_bind(now.store_ns).push(")");
    if let Some(host_id) = host_id {
        query.push(" AND l.host_id = ").push_bind(host_id);
    }
    query.push(" LIMIT ").push_bind(AT_ONCE);
    let rows = query.build().fetch_all(&mut *connection).await?;
    let (mut count, mut sequence) = (0, 0);
    for row in &rows {
        let before = get_lease(row)?;
        let Some(after) = lease::ended(&before, now.store_ns) else { continue };
        let expired = after.state() == LeaseState::Expired;
        let (action, reason) = if expired {
            ("lease.expire", "its time to live is over")
        } else {
            ("lease.revoke", before.revoke_reason.as_str())
        };
        let change = Change { author: author.to_owned(), reason: reason.to_owned(), at_ns: now.store_ns };
        sequence = update(connection, &before, &after, action, &change).await?;
        count += 1;
    }
    Ok((count, sequence))
}

/// What there is to lease on a host.
async fn supply(connection: &mut Connection, host_id: &str, now: Moment) -> Result<Supply> {
    let harvest = sqlx::query(
        "SELECT harvestable, valid_until, breaker_open FROM host_harvests JOIN hosts USING (host_key) WHERE host_id = $1",
    )
    .bind(host_id)
    .fetch_optional(&mut *connection)
    .await?;
    let harvest = harvest
        .map(|row| {
            Ok::<_, sqlx::Error>(Harvest {
                bytes: fields::get_count(&row, "harvestable")?,
                valid_until_ns: row.try_get("valid_until")?,
                breaker_open: row.try_get("breaker_open")?,
            })
        })
        .transpose()?;
    let decommissioned: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM agents WHERE agent_id = $1 AND decommissioned_at IS NOT NULL)",
    )
    .bind(host_id)
    .fetch_one(&mut *connection)
    .await?;
    let mut query = select(now);
    query.push(" WHERE ").push(HOLDS).push(" AND l.host_id = ").push_bind(host_id);
    let mut supply = Supply { harvest, decommissioned, ..Supply::default() };
    let mut consumers = std::collections::BTreeMap::new();
    for row in query.build().fetch_all(connection).await? {
        let lease = get_lease(&row)?;
        supply.held_back += lease.held_back_bytes;
        consumers.insert(
            lease.consumer_vm_id,
            fields::get_count_or_none(&row, "consumer_harvestable")?.unwrap_or(0),
        );
    }
    supply.of_consumers = consumers.values().sum();
    Ok(supply)
}

impl SqlStore {
    /// Reads some leases without waiting for the writer.
    async fn read_leases(
        &self,
        mut query: QueryBuilder<Database>,
        number: &str,
    ) -> Result<Vec<(u64, Lease)>> {
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(|row| numbered(row, number)).collect::<sqlx::Result<_>>()?)
    }
}

impl LeaseStore for SqlStore {
    async fn clock_ns(&self) -> Result<i64> {
        self.database_clock_ns().await
    }

    async fn reserve(&self, reservation: &Reservation, now: Moment) -> Result<Lease> {
        let mut transaction = self.begin_alone(LEASE_SEQUENCE).await?;
        if !reservation.idempotency_key.is_empty()
            && let Some((lease, request)) =
                find(&mut transaction, "idempotency_key", &reservation.idempotency_key, now).await?
        {
            reservation.check_same(&request)?;
            return Ok(lease);
        }
        let change =
            Change { author: reservation.author.clone(), reason: String::new(), at_ns: now.store_ns };
        end_due(&mut transaction, Some(&reservation.host_id), now, "registry").await?;
        let supply = supply(&mut transaction, &reservation.host_id, now).await?;
        lease::admit(&reservation.host_id, reservation.bytes, &supply, now.mesh_ns)?;
        let lease = reservation.lease(now.store_ns);
        let sequence = raise_counter(&mut transaction, LEASE_SEQUENCE, 1).await?;
        sqlx::query(
            "INSERT INTO leases (lease_id, sequence, host_id, consumer_vm, bytes, state, holder, idempotency_key, request,
                 created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&lease.lease_id)
        .bind(sequence)
        .bind(&lease.host_id)
        .bind(reservation.consumer.map(|vm| vm.as_bytes().to_vec()))
        .bind(fields::figure(lease.bytes))
        .bind(lease.state)
        .bind(&lease.holder)
        .bind((!lease.idempotency_key.is_empty()).then_some(&lease.idempotency_key))
        .bind(reservation.request_json())
        .bind(now.store_ns)
        .bind(fields::instant_or_null(lease.expires_at.as_ref()))
        .execute(&mut *transaction)
        .await?;
        let after = lease::audit_json(&lease);
        fields::audit(&mut transaction, &change, "lease.reserve", &lease.lease_id, "", &after).await?;
        let stored = find(&mut transaction, "lease_id", &lease.lease_id, now).await?;
        transaction.commit().await?;
        self.hints.tell(LEASE_SEQUENCE, fields::count(sequence));
        Ok(stored.map_or(lease, |(stored, _)| stored))
    }

    async fn change_lease(
        &self,
        lease_id: &str,
        now: Moment,
        action: &'static str,
        change: &Change,
        function: impl Fn(&Lease) -> std::result::Result<Option<Lease>, Refusal> + Send + Sync,
    ) -> Result<Lease> {
        let mut transaction = self.begin_alone(LEASE_SEQUENCE).await?;
        let unknown = || StoreError::NotFound(format!("lease {lease_id}"));
        let (before, _) = find(&mut transaction, "lease_id", lease_id, now).await?.ok_or_else(unknown)?;
        let Some(after) = function(&before)? else { return Ok(before) };
        let sequence = update(&mut transaction, &before, &after, action, change).await?;
        let (stored, _) = find(&mut transaction, "lease_id", lease_id, now).await?.ok_or_else(unknown)?;
        transaction.commit().await?;
        self.hints.tell(LEASE_SEQUENCE, fields::count(sequence));
        Ok(stored)
    }

    async fn leases(&self, filter: &LeaseFilter, limit: u32, now: Moment) -> Result<Vec<(u64, Lease)>> {
        let mut query = select(now);
        query.push(" WHERE true");
        match filter.state {
            Some(LeaseState::Live) => drop(query.push(" AND l.state = 1 AND ").push(HOLDS)),
            Some(LeaseState::Revoking) => drop(query.push(" AND l.state = 2 AND ").push(HOLDS)),
            Some(state) => drop(query.push(" AND l.state = ").push_bind(i32::from(state))),
            None => {}
        }
        if !filter.host_id.is_empty() {
            query.push(" AND l.host_id = ").push_bind(&filter.host_id);
        }
        if let Some(number) = filter.older_than {
            query.push(" AND l.lease_key < ").push_bind(fields::figure(number));
        }
        query.push(" ORDER BY l.lease_key DESC LIMIT ").push_bind(i64::from(limit));
        self.read_leases(query, "lease_key").await
    }

    async fn holding_leases(&self, now: Moment) -> Result<(u64, Vec<Lease>)> {
        // The sequence must be that of these leases.
        let mut transaction = self.begin_view().await?;
        let sequence = counter(&mut *transaction, LEASE_SEQUENCE).await?;
        let mut query = select(now);
        query.push(" WHERE ").push(HOLDS).push(" ORDER BY l.lease_key DESC");
        let rows = query.build().fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok((sequence, rows.iter().map(get_lease).collect::<sqlx::Result<_>>()?))
    }

    async fn lease_changes(&self, after: u64, limit: u32, now: Moment) -> Result<Vec<(u64, Lease)>> {
        let mut query = select(now);
        query.push(" WHERE l.sequence > ").push_bind(fields::figure(after));
        query.push(" ORDER BY l.sequence LIMIT ").push_bind(i64::from(limit));
        self.read_leases(query, "sequence").await
    }

    fn lease_sequence(&self) -> watch::Receiver<u64> {
        self.hints.follow(LEASE_SEQUENCE)
    }

    async fn end_leases(&self, now: Moment, author: &str) -> Result<u64> {
        let mut query = QueryBuilder::<Database>::new("SELECT EXISTS (SELECT 1 FROM leases l WHERE ");
        query.push(HOLDS).push(" AND (expires_at <= ").push_bind(now.store_ns);
        query.push(" OR revoke_at <= ").push_bind(now.store_ns).push("))");
        // Looked at first, so that nobody waits for the writer while there is nothing to write.
        if !query.build_query_scalar::<bool>().fetch_one(&self.reader).await? {
            return Ok(0);
        }
        let mut transaction = self.begin_alone(LEASE_SEQUENCE).await?;
        let (count, sequence) = end_due(&mut transaction, None, now, author).await?;
        transaction.commit().await?;
        self.hints.tell(LEASE_SEQUENCE, fields::count(sequence));
        Ok(count)
    }

    async fn leased_harvests(&self) -> Result<Vec<HostHarvest>> {
        let rows = sqlx::query(
            "SELECT h.host_id, g.read_at, g.harvestable, g.valid_until, g.breaker_open
             FROM host_harvests g JOIN hosts h ON h.host_key = g.host_key
             WHERE h.host_id IN (SELECT host_id FROM leases WHERE state IN (1, 2))",
        )
        .fetch_all(&self.reader)
        .await?;
        let get = |row: &Row| {
            Ok(HostHarvest {
                host_id: row.try_get("host_id")?,
                read_at: fields::get_instant(row, "read_at")?,
                harvestable_bytes: fields::get_count(row, "harvestable")?,
                valid_until: fields::get_instant(row, "valid_until")?,
                breaker_open: row.try_get("breaker_open")?,
            })
        };
        Ok(rows.iter().map(get).collect::<sqlx::Result<_>>()?)
    }

    async fn prune_leases(&self, before_ns: i64) -> Result<u64> {
        let sql = "DELETE FROM leases WHERE lease_key IN
            (SELECT lease_key FROM leases WHERE ended_at IS NOT NULL AND ended_at < $1 LIMIT $2)";
        let gone = sqlx::query(sql).bind(before_ns).bind(AT_ONCE).execute(&self.writer).await?;
        Ok(gone.rows_affected())
    }
}
