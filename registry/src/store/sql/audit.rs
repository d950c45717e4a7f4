//! The audit log: written by the changes that it tells of, and by whoever was refused.

use memharvest_proto::registry::v1::AuditEvent;
use sqlx::QueryBuilder;

use super::{Database, SqlStore, fields};
use crate::store::{AuditFilter, AuditStore, Change, Result};

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "event_id, at, author, action, subject, reason, before_json, after_json";

impl AuditStore for SqlStore {
    async fn audit_events(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditEvent>> {
        let mut query =
            QueryBuilder::<Database>::new(format!("SELECT {COLUMNS} FROM audit_events WHERE event_id < "));
        query.push_bind(filter.before.map_or(i64::MAX, fields::figure));
        if !filter.subject.is_empty() {
            query.push(" AND subject = ").push_bind(&filter.subject);
        }
        if !filter.author.is_empty() {
            query.push(" AND author = ").push_bind(&filter.author);
        }
        if !filter.action.is_empty() {
            // What begins with the word and a dot lies between `word.` and `word/`, the next character.
            query.push(" AND (action = ").push_bind(&filter.action);
            query.push(" OR (action > ").push_bind(format!("{}.", filter.action));
            query.push(" AND action < ").push_bind(format!("{}/", filter.action)).push("))");
        }
        if let Some(since) = filter.since_ns {
            query.push(" AND at >= ").push_bind(since);
        }
        if let Some(until) = filter.until_ns {
            query.push(" AND at < ").push_bind(until);
        }
        query.push(" ORDER BY event_id DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(fields::get_event).collect::<sqlx::Result<_>>()?)
    }

    async fn note_refusal(&self, subject: &str, change: &Change) -> Result<()> {
        let mut transaction = self.begin().await?;
        fields::audit(&mut transaction, change, "access.refuse", subject, "", "").await?;
        Ok(transaction.commit().await?)
    }
}
