//! The audit log's only query: it is written by the changes that it tells of.

use memharvest_proto::registry::v1::AuditEvent;
use sqlx::QueryBuilder;

use super::{SqliteStore, fields};
use crate::store::{AuditStore, Result};

impl AuditStore for SqliteStore {
    async fn audit_events(
        &self,
        subject: &str,
        since_ns: Option<i64>,
        before: u64,
        limit: u32,
    ) -> Result<Vec<AuditEvent>> {
        let mut query = QueryBuilder::new("SELECT * FROM audit_events WHERE event_id < ");
        query.push_bind(fields::figure(before));
        if !subject.is_empty() {
            query.push(" AND subject = ").push_bind(subject);
        }
        if let Some(since) = since_ns {
            query.push(" AND at >= ").push_bind(since);
        }
        query.push(" ORDER BY event_id DESC LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(fields::get_event).collect::<sqlx::Result<_>>()?)
    }
}
