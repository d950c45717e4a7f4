//! The ledger: episodes only go forward, and every change has its place in one sequence.

use memharvest_proto::registry::v1::{Violation, ViolationCount, ViolationState};
use prost::Message;
use sqlx::{QueryBuilder, Row as _};
use tokio::sync::watch;

use super::{Connection, Database, Row, SqlStore, counter, fields, raise_counter};
use crate::store::hints::VIOLATION_SEQUENCE;
use crate::store::{Change, Result, StoreError, ViolationFilter, ViolationStore};

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "violation_key, violation_id, sequence, revision, vm_id, vm_name, host_id, kind, signal, state, opened_at, closed_at,
    predicted, actual, overshoot, overshoot_ratio, allocated, horizon_ns, target_violation_rate, model_version, boundary_version,
    close_reason, traceparent, acknowledged_by, acknowledged_at, note, explained_by, explained_at, explanation";

/// A report replaces a stored one where it is newer and does not go back from closed to open. What names the episode stays.
const UPSERT: &str = "INSERT INTO violations (violation_id, sequence, revision, predictor_id, vm_id, vm_name, host_id, kind, signal,
        state, opened_at, closed_at, predicted, actual, overshoot, overshoot_ratio, allocated, horizon_ns,
        target_violation_rate, model_version, boundary_version, close_reason, traceparent)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
    ON CONFLICT (violation_id) DO UPDATE SET
        sequence = excluded.sequence, revision = excluded.revision, predictor_id = excluded.predictor_id,
        vm_name = excluded.vm_name, state = excluded.state, closed_at = excluded.closed_at, predicted = excluded.predicted,
        actual = excluded.actual, overshoot = excluded.overshoot, overshoot_ratio = excluded.overshoot_ratio,
        allocated = excluded.allocated, horizon_ns = excluded.horizon_ns,
        target_violation_rate = excluded.target_violation_rate, model_version = excluded.model_version,
        boundary_version = excluded.boundary_version, close_reason = excluded.close_reason, traceparent = excluded.traceparent
    WHERE excluded.state >= violations.state AND (excluded.revision > violations.revision
        OR (excluded.revision = violations.revision AND excluded.state > violations.state))
    RETURNING violation_key";

fn get_violation(row: &Row) -> sqlx::Result<Violation> {
    Ok(Violation {
        violation_id: row.try_get("violation_id")?,
        vm_id: fields::get_vm(row, "vm_id")?,
        vm_name: row.try_get("vm_name")?,
        host_id: row.try_get("host_id")?,
        kind: row.try_get("kind")?,
        signal: row.try_get("signal")?,
        state: row.try_get("state")?,
        opened_at: fields::get_instant(row, "opened_at")?,
        closed_at: fields::get_instant(row, "closed_at")?,
        predicted_bytes: fields::get_count(row, "predicted")?,
        actual_bytes: fields::get_count(row, "actual")?,
        overshoot_bytes: fields::get_count(row, "overshoot")?,
        overshoot_ratio: row.try_get("overshoot_ratio")?,
        allocated_bytes: fields::get_count(row, "allocated")?,
        horizon: fields::get_duration(row, "horizon_ns")?,
        target_violation_rate: row.try_get("target_violation_rate")?,
        model_version: row.try_get("model_version")?,
        boundary_version: row.try_get("boundary_version")?,
        series: Vec::new(),
        acknowledged_by: row.try_get("acknowledged_by")?,
        acknowledged_at: fields::get_instant(row, "acknowledged_at")?,
        note: row.try_get("note")?,
        explained_by: row.try_get("explained_by")?,
        explained_at: fields::get_instant(row, "explained_at")?,
        explanation: row.try_get("explanation")?,
        close_reason: row.try_get("close_reason")?,
        traceparent: row.try_get("traceparent")?,
        revision: fields::get_count(row, "revision")?,
    })
}

fn get_change(row: &Row) -> sqlx::Result<(u64, Violation)> {
    Ok((fields::get_count(row, "sequence")?, get_violation(row)?))
}

fn get_count(row: &Row) -> sqlx::Result<ViolationCount> {
    Ok(ViolationCount {
        kind: row.try_get("kind")?,
        state: row.try_get("state")?,
        count: fields::get_count(row, "count")?,
    })
}

async fn find(connection: &mut Connection, violation_id: &str) -> Result<Violation> {
    let row =
        sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM violations WHERE violation_id = $1")))
            .bind(violation_id)
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(|| StoreError::NotFound(format!("violation {violation_id}")))?;
    let mut violation = get_violation(&row)?;
    let points: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT points FROM violation_series WHERE violation_key = $1")
            .bind(row.try_get::<i64, _>("violation_key")?)
            .fetch_optional(connection)
            .await?;
    if let Some(points) = points {
        let decoded =
            Violation::decode(points.as_slice()).map_err(|error| StoreError::Failed(Box::new(error)))?;
        violation.series = decoded.series;
    }
    Ok(violation)
}

/// Stores one episode under a sequence; tells whether anything changed.
async fn record(
    connection: &mut Connection,
    predictor_id: &str,
    violation: &Violation,
    sequence: i64,
) -> Result<bool> {
    let key: Option<i64> = sqlx::query_scalar(UPSERT)
        .bind(&violation.violation_id)
        .bind(sequence)
        .bind(fields::figure(violation.revision))
        .bind(predictor_id)
        .bind(fields::vm_bytes(&violation.vm_id)?)
        .bind(&violation.vm_name)
        .bind(&violation.host_id)
        .bind(violation.kind)
        .bind(violation.signal)
        .bind(violation.state)
        .bind(fields::instant_or_null(violation.opened_at.as_ref()))
        .bind(fields::instant_or_null(violation.closed_at.as_ref()))
        .bind(fields::figure(violation.predicted_bytes))
        .bind(fields::figure(violation.actual_bytes))
        .bind(fields::figure(violation.overshoot_bytes))
        .bind(violation.overshoot_ratio)
        .bind(fields::figure(violation.allocated_bytes))
        .bind(fields::duration_or_null(violation.horizon.as_ref()))
        .bind(violation.target_violation_rate)
        .bind(&violation.model_version)
        .bind(&violation.boundary_version)
        .bind(&violation.close_reason)
        .bind(&violation.traceparent)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(key) = key else { return Ok(false) };
    if !violation.series.is_empty() {
        let only_series = Violation { series: violation.series.clone(), ..Violation::default() };
        sqlx::query(
            "INSERT INTO violation_series (violation_key, points) VALUES ($1, $2)
             ON CONFLICT (violation_key) DO UPDATE SET points = excluded.points",
        )
        .bind(key)
        .bind(only_series.encode_to_vec())
        .execute(connection)
        .await?;
    }
    Ok(true)
}

/// A note of a person, for the audit log.
fn note_json(author: &str, text: &str) -> String {
    if author.is_empty() {
        String::new()
    } else {
        serde_json::json!({ "author": author, "text": text }).to_string()
    }
}

impl SqlStore {
    /// Writes a person's word on a violation by `update` ($1 its id, $2 who, $3 when, $4 the text, $5 the sequence).
    async fn annotate(
        &self,
        violation_id: &str,
        text: &str,
        change: &Change,
        action: &str,
        update: &'static str,
        before: fn(&Violation) -> (&str, &str),
    ) -> Result<Violation> {
        let mut transaction = self.begin_alone(VIOLATION_SEQUENCE).await?;
        let stored = find(&mut transaction, violation_id).await?;
        let (old_author, old_text) = before(&stored);
        let old = note_json(old_author, old_text);
        let sequence = raise_counter(&mut transaction, VIOLATION_SEQUENCE, 1).await?;
        sqlx::query(update)
            .bind(violation_id)
            .bind(&change.author)
            .bind(change.at_ns)
            .bind(text)
            .bind(sequence)
            .execute(&mut *transaction)
            .await?;
        let new = note_json(&change.author, text);
        fields::audit(&mut transaction, change, action, violation_id, &old, &new).await?;
        let violation = find(&mut transaction, violation_id).await?;
        transaction.commit().await?;
        self.hints.tell(VIOLATION_SEQUENCE, fields::count(sequence));
        Ok(violation)
    }
}

impl ViolationStore for SqlStore {
    async fn record_violations(&self, predictor_id: &str, violations: &[Violation]) -> Result<u64> {
        let mut transaction = self.begin_alone(VIOLATION_SEQUENCE).await?;
        let before = fields::figure(counter(&mut *transaction, VIOLATION_SEQUENCE).await?);
        let mut sequence = before;
        for violation in violations {
            if record(&mut transaction, predictor_id, violation, sequence + 1).await? {
                sequence += 1;
            }
        }
        if sequence == before {
            return Ok(0);
        }
        raise_counter(&mut transaction, VIOLATION_SEQUENCE, sequence - before).await?;
        transaction.commit().await?;
        self.hints.tell(VIOLATION_SEQUENCE, fields::count(sequence));
        Ok(fields::count(sequence - before))
    }

    async fn violations(&self, filter: &ViolationFilter, limit: u32) -> Result<Vec<Violation>> {
        let mut query = QueryBuilder::<Database>::new(format!("SELECT {COLUMNS} FROM violations WHERE true"));
        match filter.state {
            // Spelled out, so that the index over open violations serves.
            Some(ViolationState::Open) => drop(query.push(" AND state = 1")),
            Some(state) => drop(query.push(" AND state = ").push_bind(i32::from(state))),
            None => {}
        }
        if let Some(kind) = filter.kind {
            query.push(" AND kind = ").push_bind(i32::from(kind));
        }
        if !filter.host_id.is_empty() {
            query.push(" AND host_id = ").push_bind(&filter.host_id);
        }
        if let Some(vm) = filter.vm {
            query.push(" AND vm_id = ").push_bind(vm.as_bytes().to_vec());
        }
        if let Some(since) = filter.since_ns {
            query.push(" AND opened_at >= ").push_bind(since);
        }
        match filter.acknowledged {
            Some(true) => drop(query.push(" AND acknowledged_by <> ''")),
            Some(false) => drop(query.push(" AND acknowledged_by = ''")),
            None => {}
        }
        if let Some((opened_at, violation_id)) = &filter.older_than {
            query.push(" AND (opened_at, violation_id) < (").push_bind(*opened_at);
            query.push(", ").push_bind(violation_id).push(")");
        }
        query.push(" ORDER BY opened_at DESC, violation_id DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_violation).collect::<sqlx::Result<_>>()?)
    }

    async fn violation_counts(&self) -> Result<Vec<ViolationCount>> {
        let sql =
            "SELECT kind, state, count(*) AS count FROM violations GROUP BY kind, state ORDER BY kind, state";
        let rows = sqlx::query(sql).fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_count).collect::<sqlx::Result<_>>()?)
    }

    async fn violation(&self, violation_id: &str) -> Result<Violation> {
        let mut transaction = self.begin_view().await?;
        find(&mut transaction, violation_id).await
    }

    async fn acknowledge_violation(
        &self,
        violation_id: &str,
        note: &str,
        change: &Change,
    ) -> Result<Violation> {
        let update =
            "UPDATE violations SET acknowledged_by = $2, acknowledged_at = $3, note = $4, sequence = $5
            WHERE violation_id = $1";
        self.annotate(violation_id, note, change, "violation.acknowledge", update, |v| {
            (&v.acknowledged_by, &v.note)
        })
        .await
    }

    async fn explain_violation(
        &self,
        violation_id: &str,
        explanation: &str,
        change: &Change,
    ) -> Result<Violation> {
        let update =
            "UPDATE violations SET explained_by = $2, explained_at = $3, explanation = $4, sequence = $5
            WHERE violation_id = $1";
        self.annotate(violation_id, explanation, change, "violation.explain", update, |v| {
            (&v.explained_by, &v.explanation)
        })
        .await
    }

    async fn open_violations(&self) -> Result<(u64, Vec<Violation>)> {
        // The sequence must be that of these violations.
        let mut transaction = self.begin_view().await?;
        let sequence = counter(&mut *transaction, VIOLATION_SEQUENCE).await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM violations WHERE state = 1 ORDER BY opened_at, violation_id"
        )))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((sequence, rows.iter().map(get_violation).collect::<sqlx::Result<_>>()?))
    }

    async fn violation_changes(&self, after: u64, limit: u32) -> Result<Vec<(u64, Violation)>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM violations WHERE sequence > $1 ORDER BY sequence LIMIT $2"
        )))
        .bind(fields::figure(after))
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_change).collect::<sqlx::Result<_>>()?)
    }

    fn violation_sequence(&self) -> watch::Receiver<u64> {
        self.hints.follow(VIOLATION_SEQUENCE)
    }
}
