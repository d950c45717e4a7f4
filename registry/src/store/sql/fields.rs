//! Columns to fields and back. Like all files beside it, compiled once for each database: `super` says which.

use memharvest_proto::registry::v1::AuditEvent;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Connection, Row};
use crate::store::{Change, Result, StoreError};
use crate::time::{duration_from_ns, duration_to_ns, instant_from_ns, instant_to_ns};

/// A figure for a column. Figures are checked to fit long before they come here.
pub(super) fn figure(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A figure that may not be known, for a column.
pub(super) fn figure_or_null(value: Option<u64>) -> Option<i64> {
    value.map(figure)
}

/// A figure from a column.
pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A small figure from a column.
pub(super) fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Reads a figure.
pub(super) fn get_count(row: &Row, column: &str) -> sqlx::Result<u64> {
    Ok(count(row.try_get(column)?))
}

/// Reads a figure that may not be known.
pub(super) fn get_count_or_none(row: &Row, column: &str) -> sqlx::Result<Option<u64>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(count))
}

/// Reads an instant.
pub(super) fn get_instant(row: &Row, column: &str) -> sqlx::Result<Option<prost_types::Timestamp>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(instant_from_ns))
}

/// Reads a length of time.
pub(super) fn get_duration(row: &Row, column: &str) -> sqlx::Result<Option<prost_types::Duration>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(duration_from_ns))
}

/// Reads a machine's id.
pub(super) fn get_vm(row: &Row, column: &str) -> sqlx::Result<String> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let uuid = Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(uuid.to_string())
}

/// An instant for a column.
pub(super) fn instant_or_null(at: Option<&prost_types::Timestamp>) -> Option<i64> {
    at.and_then(instant_to_ns)
}

/// A length of time for a column.
pub(super) fn duration_or_null(length: Option<&prost_types::Duration>) -> Option<i64> {
    length.and_then(duration_to_ns)
}

/// A machine's id for a column.
pub(super) fn vm_bytes(vm_id: &str) -> Result<Vec<u8>> {
    let uuid = Uuid::try_parse(vm_id).map_err(|error| StoreError::Failed(Box::new(error)))?;
    Ok(uuid.as_bytes().to_vec())
}

/// Appends to the audit log, within the transaction of the change itself. JSON texts are empty where there is nothing.
pub(super) async fn audit(
    connection: &mut Connection,
    change: &Change,
    action: &str,
    subject: &str,
    before_json: &str,
    after_json: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit_events (at, author, action, subject, reason, before_json, after_json)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(change.at_ns)
    .bind(&change.author)
    .bind(action)
    .bind(subject)
    .bind(&change.reason)
    .bind(before_json)
    .bind(after_json)
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads an event of the audit log.
pub(super) fn get_event(row: &Row) -> sqlx::Result<AuditEvent> {
    Ok(AuditEvent {
        event_id: get_count(row, "event_id")?,
        at: get_instant(row, "at")?,
        author: row.try_get("author")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        reason: row.try_get("reason")?,
        before_json: row.try_get("before_json")?,
        after_json: row.try_get("after_json")?,
    })
}
