//! What a store tells of the audit log.

use memharvest_proto::registry::v1::AuditEvent;

use crate::store::{Change, Result};

/// Which events of the audit log a list holds. `None` and empty: all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only on this subject.
    pub subject: String,
    /// Only by this author.
    pub author: String,
    /// Only this action, or all whose name begins with it and a dot.
    pub action: String,
    /// Only at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Only before this time, in nanoseconds since 1970.
    pub until_ns: Option<i64>,
    /// Only with an id below this one.
    pub before: Option<u64>,
}

/// The audit log.
pub trait AuditStore: Send + Sync + 'static {
    /// Events, newest first.
    fn audit_events(
        &self,
        filter: &AuditFilter,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<AuditEvent>>> + Send;

    /// Notes that a caller was refused: `change` says who, why and when, `subject` what it tried.
    fn note_refusal(&self, subject: &str, change: &Change) -> impl Future<Output = Result<()>> + Send;
}
