//! `HarvestService`: the durable history of usage, forecasts and harvest.

use std::sync::Arc;
use std::vec::IntoIter;

use futures::stream::{self, BoxStream, StreamExt};
use memharvest_proto::registry::v1::harvest_service_server::HarvestService;
use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_proto::registry::v1::{
    ListLatestRequest, ListLatestResponse, QueryHistoryRequest, QueryHistoryResponse, RecordHarvestRequest,
    RecordHarvestResponse, StreamHistoryRequest, StreamHistoryResponse,
};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::rpc_error::invalid_field;
use memharvest_services::trace_context;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::Instrument;
use uuid::Uuid;

use super::harvest_check::check_batch;
use crate::check::Check;
use crate::history::{merge_host, merge_vm};
use crate::metrics::RegistryMetrics;
use crate::page::Page;
use crate::store::{Range, Store, StoreError};
use crate::time::now_to_ns;

/// Most points of one answer.
const MAX_POINTS: usize = 11_000;

/// Most stored windows that are merged for one answer: more than a year of 5 minutes.
const MAX_WINDOWS: usize = 150_000;

const SECOND_NS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// Steps that are taken where none is asked for and the stored windows are too many.
const USUAL_STEPS_S: [i64; 3] = [3600, 6 * 3600, DAY_S];

/// Longest step: a year.
const LONGEST_STEP_S: i64 = 366 * DAY_S;

/// Most machines of one stream of history.
const MAX_VMS: usize = 1000;

/// Whole histories that are read at once, over all streams: so many connections are always left for pages.
const BULK_READS: usize = 2;

/// Serves history from a store.
#[derive(Debug)]
pub struct HarvestRpc<S> {
    store: Arc<S>,
    bulk: Arc<Semaphore>,
    clock: MeshClock,
    metrics: RegistryMetrics,
}

impl<S: Store> HarvestRpc<S> {
    /// `clock` is what windows of history run on.
    pub fn new(store: Arc<S>, clock: MeshClock, metrics: RegistryMetrics) -> Self {
        Self { store, bulk: Arc::new(Semaphore::new(BULK_READS)), clock, metrics }
    }

    fn now_s(&self) -> i64 {
        now_to_ns(self.clock.now()).div_euclid(SECOND_NS)
    }
}

/// The range and step of a query, in seconds. Without a start it is the last day; without a step windows stay as they are.
fn range_of(request: &QueryHistoryRequest, now_s: i64) -> Result<(Range, Option<i64>), Status> {
    let mut check = Check::default();
    let from = check.instant_or_none("from", request.from.as_ref());
    let to = check.instant_or_none("to", request.to.as_ref());
    let step = check.duration_or_none("step", request.step.as_ref(), 1, LONGEST_STEP_S);
    check.that(step.is_none_or(|ns| ns % SECOND_NS == 0), "step", "must be whole seconds");
    check.done()?;
    // Windows begin at whole seconds: one that begins at or after a moment begins at or after its next whole second.
    let up = |ns: i64| ns.div_euclid(SECOND_NS) + i64::from(ns.rem_euclid(SECOND_NS) != 0);
    let to_s = to.map_or(now_s + 1, up);
    let from_s = from.map_or(to_s - DAY_S, up);
    if from_s > to_s {
        return Err(invalid_field("from", "must not be after to"));
    }
    let step_s = step.map(|ns| ns / SECOND_NS);
    let points = step_s.map_or(0, |step| (to_s - from_s) / step);
    let most = i64::try_from(MAX_POINTS).unwrap_or(i64::MAX);
    if points > most {
        let enough = (to_s - from_s) / most + 1;
        let message = format!("makes more than {MAX_POINTS} points of this range; use {enough} s or more");
        return Err(invalid_field("step", message));
    }
    Ok((Range { from_s, to_s, limit: MAX_WINDOWS }, step_s))
}

/// The step of an answer of so many stored windows: the one that was asked for, else as they are stored; where those are more than an
/// answer may hold, the shortest usual one that makes few enough. Days older than a week are stored by the hour.
fn step_of(asked_s: Option<i64>, range: Range, windows: usize) -> Option<i64> {
    let points = |step: i64| usize::try_from((range.to_s - range.from_s) / step).unwrap_or(usize::MAX);
    asked_s.or_else(|| {
        (windows > MAX_POINTS).then(|| {
            USUAL_STEPS_S.into_iter().find(|step| points(*step) < MAX_POINTS).unwrap_or(LONGEST_STEP_S)
        })
    })
}

/// The histories that a stream still has to send.
struct Rest<S> {
    store: Arc<S>,
    bulk: Arc<Semaphore>,
    vms: IntoIter<Uuid>,
    range: Range,
}

impl<S: Store> Rest<S> {
    /// The next machine that was recorded in the range.
    async fn next(mut self) -> Result<Option<(StreamHistoryResponse, Self)>, Status> {
        while let Some(vm) = self.vms.next() {
            let found = {
                let turn = self.bulk.acquire().await;
                let _turn = turn.map_err(|_| Status::unavailable("the registry is stopping"))?;
                self.store.vm_series(vm, self.range).await
            };
            match found {
                Ok(series) if series.windows.is_empty() => {}
                Ok(series) => return Ok(Some((series, self))),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

#[tonic::async_trait]
impl<S: Store> HarvestService for HarvestRpc<S> {
    async fn record_harvest(
        &self,
        request: Request<RecordHarvestRequest>,
    ) -> Result<Response<RecordHarvestResponse>, Status> {
        let batch = request.into_inner();
        let mut check = Check::default();
        check_batch(&mut check, &batch);
        check.done()?;
        // A span of the reading's own trace, so that one trace reaches from the reading to its record.
        let span = tracing::info_span!(
            "store harvest",
            vms = batch.vms.len(),
            hosts = batch.hosts.len(),
            predictor = batch.predictor_id
        );
        trace_context::set_parent_from(&span, &batch.traceparent);
        let stored = self.store.record_harvest(&batch).instrument(span).await?;
        self.metrics.harvest_recorded(&batch);
        Ok(Response::new(RecordHarvestResponse { stored }))
    }

    async fn query_history(
        &self,
        request: Request<QueryHistoryRequest>,
    ) -> Result<Response<QueryHistoryResponse>, Status> {
        let request = request.into_inner();
        let (range, step_s) = range_of(&request, self.now_s())?;
        let mut check = Check::default();
        let mut response = QueryHistoryResponse::default();
        match &request.subject {
            Some(Subject::VmId(vm_id)) => {
                let vm = check.vm("vm_id", vm_id);
                check.done()?;
                let windows = self.store.vm_history(vm.unwrap_or_default(), range).await?;
                response.vms = match step_of(step_s, range, windows.len()) {
                    Some(step_s) => merge_vm(windows, step_s),
                    None => windows,
                };
            }
            Some(Subject::HostId(host_id)) => {
                check.id("host_id", host_id);
                check.done()?;
                let windows = self.store.host_history(host_id, range).await?;
                response.hosts = match step_of(step_s, range, windows.len()) {
                    Some(step_s) => merge_host(windows, step_s),
                    None => windows,
                };
            }
            Some(Subject::Fleet(true)) => {
                let windows = self.store.fleet_history(range).await?;
                response.hosts = match step_of(step_s, range, windows.len()) {
                    Some(step_s) => merge_host(windows, step_s),
                    None => windows,
                };
            }
            Some(Subject::Fleet(false)) | None => {
                return Err(invalid_field("vm_id", "or host_id or fleet must be given"));
            }
        }
        Ok(Response::new(response))
    }

    async fn list_latest(
        &self,
        request: Request<ListLatestRequest>,
    ) -> Result<Response<ListLatestResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id_or_empty("host_id", &request.host_id);
        check.done()?;
        let host_id = &request.host_id;
        let page = Page::of(format!("latest {host_id}"), request.page_size, &request.page_token)?;
        let after: Option<Uuid> = page.cursor_as()?;
        let mut vms = self.store.latest_vms(after, host_id, page.limit()).await?;
        let next_page_token = page.cut(&mut vms, |vm| vm.vm_id.clone());
        let mut response = ListLatestResponse { vms, next_page_token, ..Default::default() };
        if after.is_none() {
            response.hosts = self.store.latest_hosts(host_id).await?;
            response.coverage = self.store.coverage(host_id, self.now_s() - DAY_S).await?;
        }
        Ok(Response::new(response))
    }

    type StreamHistoryStream = BoxStream<'static, Result<StreamHistoryResponse, Status>>;

    async fn stream_history(
        &self,
        request: Request<StreamHistoryRequest>,
    ) -> Result<Response<Self::StreamHistoryStream>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let count = request.vm_ids.len();
        check.that((1..=MAX_VMS).contains(&count), "vm_ids", "must be 1 to 1000; ask in parts");
        let mut vms = Vec::with_capacity(count.min(MAX_VMS));
        for (i, vm_id) in request.vm_ids.iter().take(MAX_VMS).enumerate() {
            vms.extend(check.vm(&format!("vm_ids[{i}]"), vm_id));
        }
        check.done()?;
        let asked = QueryHistoryRequest { from: request.from, to: request.to, ..Default::default() };
        let (range, _) = range_of(&asked, self.now_s())?;
        let (store, bulk) = (Arc::clone(&self.store), Arc::clone(&self.bulk));
        let rest = Rest { store, bulk, vms: vms.into_iter(), range };
        Ok(Response::new(stream::try_unfold(rest, Rest::next).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{duration_from_ns, instant_from_ns};

    #[test]
    fn a_range_without_ends_is_the_last_day() {
        let (range, step) = range_of(&QueryHistoryRequest::default(), 100_000).unwrap();
        assert_eq!((range.from_s, range.to_s, step), (100_001 - DAY_S, 100_001, None));
    }

    #[test]
    fn without_a_step_windows_stay_as_stored_until_they_are_too_many() {
        let days = |days: i64| Range { from_s: 0, to_s: days * DAY_S, limit: MAX_WINDOWS };
        assert_eq!(step_of(None, days(30), 8640), None);
        assert_eq!(step_of(None, days(60), 17_280), Some(3600));
        assert_eq!(step_of(None, days(500), 12_000), Some(6 * 3600));
        assert_eq!(step_of(None, days(20_000), 12_000), Some(LONGEST_STEP_S));
        assert_eq!(step_of(Some(300), days(1), 288), Some(300));
    }

    #[test]
    fn a_step_that_makes_too_many_points_is_refused_with_one_that_does_not() {
        let mut request = QueryHistoryRequest {
            from: Some(instant_from_ns(0)),
            to: Some(instant_from_ns(30 * DAY_S * SECOND_NS)),
            step: Some(duration_from_ns(SECOND_NS)),
            ..Default::default()
        };
        let refused = range_of(&request, 0).unwrap_err();
        assert_eq!(refused.message(), "step: makes more than 11000 points of this range; use 236 s or more");
        request.step = Some(duration_from_ns(236 * SECOND_NS));
        assert!(range_of(&request, 0).is_ok());
        request.to = Some(instant_from_ns(0));
        request.from = Some(instant_from_ns(SECOND_NS));
        assert_eq!(range_of(&request, 0).unwrap_err().message(), "from: must not be after to");
    }
}
