//! `AuditService`: who changed what, when and why.

use std::sync::Arc;

use memharvest_proto::registry::v1::audit_service_server::AuditService;
use memharvest_proto::registry::v1::{ListAuditEventsRequest, ListAuditEventsResponse};
use tonic::{Request, Response, Status};

use crate::check::{Check, MAX_TEXT};
use crate::page::Page;
use crate::store::Store;

/// Serves the audit log from a store.
#[derive(Debug)]
pub struct AuditRpc<S> {
    store: Arc<S>,
}

impl<S: Store> AuditRpc<S> {
    /// Serves the audit log of `store`.
    pub fn new(store: Arc<S>) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl<S: Store> AuditService for AuditRpc<S> {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.text("subject", &request.subject, MAX_TEXT);
        let since = check.instant_or_none("since", request.since.as_ref());
        check.done()?;
        let page =
            Page::of(format!("audit {since:?} {}", request.subject), request.page_size, &request.page_token)?;
        let before = page.cursor_as()?.unwrap_or(u64::MAX);
        let mut events = self.store.audit_events(&request.subject, since, before, page.limit()).await?;
        let next_page_token = page.cut(&mut events, |event| event.event_id.to_string());
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}
