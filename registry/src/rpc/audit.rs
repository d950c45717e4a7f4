//! `AuditService`: who changed what, when and why.

use std::sync::Arc;

use memharvest_proto::registry::v1::audit_service_server::AuditService;
use memharvest_proto::registry::v1::{ListAuditEventsRequest, ListAuditEventsResponse};
use tonic::{Request, Response, Status};

use crate::check::{Check, MAX_TEXT};
use crate::page::Page;
use crate::store::{AuditFilter, Store};

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
        check.text("author", &request.author, MAX_TEXT);
        check.text("action", &request.action, MAX_TEXT);
        let since_ns = check.instant_or_none("since", request.since.as_ref());
        let until_ns = check.instant_or_none("until", request.until.as_ref());
        check.done()?;
        let mut filter = AuditFilter {
            subject: request.subject,
            author: request.author,
            action: request.action,
            since_ns,
            until_ns,
            before: None,
        };
        let page = Page::of(format!("audit {filter:?}"), request.page_size, &request.page_token)?;
        filter.before = page.cursor_as()?;
        let mut events = self.store.audit_events(&filter, page.limit()).await?;
        let next_page_token = page.cut(&mut events, |event| event.event_id.to_string());
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}
