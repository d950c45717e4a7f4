//! `ViolationService`: the ledger of broken forecasts, promises and boundaries.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use memharvest_proto::registry::v1::violation_service_server::ViolationService;
use memharvest_proto::registry::v1::{
    AcknowledgeViolationRequest, AcknowledgeViolationResponse, ExplainViolationRequest,
    ExplainViolationResponse, GetViolationRequest, GetViolationResponse, ListErrorBudgetsRequest,
    ListErrorBudgetsResponse, ListViolationsRequest, ListViolationsResponse, RecordViolationsRequest,
    RecordViolationsResponse, Violation, ViolationKind, ViolationState, WatchViolationsRequest,
    WatchViolationsResponse,
};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::rpc_error::invalid_field;
use memharvest_services::trace_context;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::error_budgets;
use super::violation_check::{MAX_WRONG, check_violation};
use super::{CHANGES, changed, now_ns};
use crate::check::{Check, MAX_NOTE};
use crate::metrics::RegistryMetrics;
use crate::page::Page;
use crate::store::{Store, StoreError, ViolationFilter};
use crate::time::instant_to_ns;

/// Most episodes in one batch.
const MAX_VIOLATIONS: usize = 2000;

/// Serves the ledger from a store.
#[derive(Debug)]
pub struct ViolationRpc<S> {
    store: Arc<S>,
    clock: MeshClock,
    metrics: RegistryMetrics,
}

impl<S: Store> ViolationRpc<S> {
    /// Serves the violations of `store`; `clock` is what they run on.
    pub fn new(store: Arc<S>, clock: MeshClock, metrics: RegistryMetrics) -> Self {
        Self { store, clock, metrics }
    }
}

fn check_list(request: &ListViolationsRequest) -> Result<ViolationFilter, Status> {
    let mut check = Check::default();
    let state = ViolationState::try_from(request.state).ok();
    check.that(state.is_some(), "state", "must be open or closed");
    let kind = ViolationKind::try_from(request.kind).ok();
    check.that(kind.is_some(), "kind", "must be forecast, promise or boundary");
    check.id_or_empty("host_id", &request.host_id);
    let vm = if request.vm_id.is_empty() { None } else { check.vm("vm_id", &request.vm_id) };
    let since_ns = check.instant_or_none("since", request.since.as_ref());
    check.done()?;
    Ok(ViolationFilter {
        state: state.filter(|state| *state != ViolationState::Unspecified),
        kind: kind.filter(|kind| *kind != ViolationKind::Unspecified),
        host_id: request.host_id.clone(),
        vm,
        since_ns,
        acknowledged: request.acknowledged,
        older_than: None,
    })
}

/// Where a page ended: the opening and id of its last violation.
fn cursor_of(violation: &Violation) -> String {
    let opened = violation.opened_at.as_ref().and_then(instant_to_ns).unwrap_or(0);
    format!("{opened} {}", violation.violation_id)
}

fn parse_cursor(cursor: &str) -> Result<(i64, String), Status> {
    cursor
        .split_once(' ')
        .and_then(|(opened, id)| Some((opened.parse().ok()?, id.to_owned())))
        .ok_or_else(|| invalid_field("page_token", "is damaged; start without one"))
}

/// One watch: what it has to send, and from where it reads on.
struct Watch<S> {
    store: Arc<S>,
    hint: watch::Receiver<u64>,
    ready: VecDeque<Violation>,
    after: u64,
}

impl<S: Store> Watch<S> {
    /// Reads the next changes, or waits for some. They are read by their place in the sequence of changes, so that none can be missed.
    async fn read_on(&mut self) -> Result<(), StoreError> {
        self.hint.borrow_and_update();
        for (sequence, violation) in self.store.violation_changes(self.after, CHANGES).await? {
            self.after = sequence;
            self.ready.push_back(violation);
        }
        if self.ready.is_empty() {
            changed(&mut self.hint).await;
        }
        Ok(())
    }

    async fn next(mut self) -> Result<Option<(WatchViolationsResponse, Self)>, Status> {
        loop {
            if let Some(violation) = self.ready.pop_front() {
                return Ok(Some((WatchViolationsResponse { violation: Some(violation) }, self)));
            }
            self.read_on().await?;
        }
    }
}

#[tonic::async_trait]
impl<S: Store> ViolationService for ViolationRpc<S> {
    async fn record_violations(
        &self,
        request: Request<RecordViolationsRequest>,
    ) -> Result<Response<RecordViolationsResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("predictor_id", &request.predictor_id);
        check.that(
            request.violations.len() <= MAX_VIOLATIONS,
            "violations",
            "must be at most 2000 in one batch; send it in parts",
        );
        for (i, violation) in request.violations.iter().take(MAX_VIOLATIONS).enumerate() {
            if check.wrong.as_slice().len() >= MAX_WRONG {
                break;
            }
            check.nested(|| format!("violations[{i}]"), |own| check_violation(own, violation));
        }
        check.done()?;
        // A span in each episode's own trace, so that one trace reaches from the reading to its record.
        let spans: Vec<tracing::Span> = (request.violations.iter())
            .filter(|violation| !violation.traceparent.is_empty())
            .map(|violation| {
                let span = tracing::info_span!("store violation", violation = violation.violation_id);
                trace_context::set_parent_from(&span, &violation.traceparent);
                span
            })
            .collect();
        let stored = self.store.record_violations(&request.predictor_id, &request.violations).await?;
        for span in &spans {
            span.in_scope(|| ());
        }
        self.metrics.violations_recorded(stored);
        Ok(Response::new(RecordViolationsResponse { stored }))
    }

    async fn list_violations(
        &self,
        request: Request<ListViolationsRequest>,
    ) -> Result<Response<ListViolationsResponse>, Status> {
        let request = request.into_inner();
        let mut filter = check_list(&request)?;
        let page = Page::of(format!("violations {filter:?}"), request.page_size, &request.page_token)?;
        filter.older_than = page.cursor.as_deref().map(parse_cursor).transpose()?;
        let mut violations = self.store.violations(&filter, page.limit()).await?;
        let next_page_token = page.cut(&mut violations, cursor_of);
        let counts =
            if filter.older_than.is_none() { self.store.violation_counts().await? } else { Vec::new() };
        Ok(Response::new(ListViolationsResponse { violations, next_page_token, counts }))
    }

    async fn get_violation(
        &self,
        request: Request<GetViolationRequest>,
    ) -> Result<Response<GetViolationResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.violation_id("violation_id", &request.violation_id);
        check.done()?;
        let violation = self.store.violation(&request.violation_id).await?;
        Ok(Response::new(GetViolationResponse { violation: Some(violation) }))
    }

    async fn acknowledge_violation(
        &self,
        request: Request<AcknowledgeViolationRequest>,
    ) -> Result<Response<AcknowledgeViolationResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.violation_id("violation_id", &request.violation_id);
        check.text("note", &request.note, MAX_NOTE);
        let change = check.change(&request.author, "", now_ns());
        check.done()?;
        let violation =
            self.store.acknowledge_violation(&request.violation_id, &request.note, &change).await?;
        Ok(Response::new(AcknowledgeViolationResponse { violation: Some(violation) }))
    }

    async fn explain_violation(
        &self,
        request: Request<ExplainViolationRequest>,
    ) -> Result<Response<ExplainViolationResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.violation_id("violation_id", &request.violation_id);
        check.that(!request.explanation.is_empty(), "explanation", "must be given");
        check.text("explanation", &request.explanation, MAX_NOTE);
        let change = check.change(&request.author, "", now_ns());
        check.done()?;
        let violation =
            self.store.explain_violation(&request.violation_id, &request.explanation, &change).await?;
        Ok(Response::new(ExplainViolationResponse { violation: Some(violation) }))
    }

    async fn list_error_budgets(
        &self,
        _: Request<ListErrorBudgetsRequest>,
    ) -> Result<Response<ListErrorBudgetsResponse>, Status> {
        let now_s = self.clock.now().as_second();
        let error_budgets = error_budgets::list(self.store.as_ref(), now_s).await?;
        Ok(Response::new(ListErrorBudgetsResponse { error_budgets }))
    }

    type WatchViolationsStream = BoxStream<'static, Result<WatchViolationsResponse, Status>>;

    async fn watch_violations(
        &self,
        request: Request<WatchViolationsRequest>,
    ) -> Result<Response<Self::WatchViolationsStream>, Status> {
        let hint = self.store.violation_sequence();
        let (after, open) = self.store.open_violations().await?;
        let ready = if request.into_inner().include_open { open.into() } else { VecDeque::new() };
        let watch = Watch { store: Arc::clone(&self.store), hint, ready, after };
        Ok(Response::new(stream::try_unfold(watch, Watch::next).boxed()))
    }
}
