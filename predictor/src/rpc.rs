//! `PredictorService`.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use memharvest_proto::predictor::v1::predictor_service_server::PredictorService;
use memharvest_proto::predictor::v1::{
    ExplainVmRequest, ExplainVmResponse, ListHostsRequest, ListHostsResponse, ListVmsRequest,
    ListVmsResponse, ObserveRequest, ObserveResponse, SimulateBoundaryRequest, SimulateBoundaryResponse,
    WatchForecastsRequest, WatchForecastsResponse,
};
use memharvest_services::caller::{Caller, check_agent};
use memharvest_services::rpc_error::invalid_field;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::domain::Signal;
use crate::shard::{ObserveError, Shard};
use crate::simulate::run::Simulator;

/// Entries of a page where nothing is asked, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// The RPCs of a predictor.
#[derive(Clone, Debug)]
pub struct PredictorRpc {
    shard: Shard,
    simulator: Simulator,
}

impl PredictorRpc {
    /// Serves a shard, and simulations.
    #[must_use]
    pub const fn new(shard: Shard, simulator: Simulator) -> Self {
        Self { shard, simulator }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PredictorService for PredictorRpc {
    type ObserveStream = Answers<ObserveResponse>;
    type WatchForecastsStream = Answers<WatchForecastsResponse>;

    async fn observe(
        &self,
        request: Request<Streaming<ObserveRequest>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let shard = self.shard.clone();
        let caller = request.extensions().get::<Caller>().cloned();
        let answers = request.into_inner().then(move |request| {
            let (shard, caller) = (shard.clone(), caller.clone());
            async move { answer(&shard, caller.as_ref(), request?).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size)?;
        let hosts = self.shard.live().hosts(&request.page_token, size);
        let next_page_token = next_page(&hosts, size, |host| &host.host_id);
        Ok(Response::new(ListHostsResponse { hosts, next_page_token }))
    }

    async fn list_vms(&self, request: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size)?;
        let host_id = (!request.host_id.is_empty()).then_some(request.host_id.as_str());
        let vms = self.shard.live().vms(host_id, &request.page_token, size);
        let next_page_token = next_page(&vms, size, |vm| &vm.vm_id);
        Ok(Response::new(ListVmsResponse { vms, next_page_token }))
    }

    async fn explain_vm(
        &self,
        request: Request<ExplainVmRequest>,
    ) -> Result<Response<ExplainVmResponse>, Status> {
        let request = request.into_inner();
        if request.vm_id.is_empty() {
            return Err(invalid_field("vm_id", "is empty; give the machine's UUID"));
        }
        let signal = convert::signal(request.signal()).unwrap_or(Signal::Rss);
        let waterfall = self.shard.explain(&request.vm_id, signal).await.ok_or_else(|| {
            Status::not_found(format!("no machine {} is forecast by this predictor", request.vm_id))
        })?;
        Ok(Response::new(ExplainVmResponse { waterfall: Some(waterfall) }))
    }

    async fn watch_forecasts(
        &self,
        _: Request<WatchForecastsRequest>,
    ) -> Result<Response<Self::WatchForecastsStream>, Status> {
        Ok(Response::new(Box::pin(self.shard.live().follow().map(Ok))))
    }

    async fn simulate_boundary(
        &self,
        request: Request<SimulateBoundaryRequest>,
    ) -> Result<Response<SimulateBoundaryResponse>, Status> {
        Ok(Response::new(self.simulator.simulate(request.into_inner()).await?))
    }
}

async fn answer(
    shard: &Shard,
    caller: Option<&Caller>,
    request: ObserveRequest,
) -> Result<ObserveResponse, Status> {
    let reading = request.reading.ok_or_else(|| invalid_field("reading", "is absent"))?;
    check_agent(caller, &reading.host_id)?;
    let (host_id, read_at) = (reading.host_id.clone(), reading.read_at);
    let answer = ObserveResponse { host_id, read_at, ..ObserveResponse::default() };
    match shard.observe(reading).await {
        Ok(update) => Ok(ObserveResponse { update: Some((*update).clone()), ..answer }),
        // One bad reading must not break the stream for the readings behind it.
        Err(ObserveError::Refused(refused)) => {
            tracing::warn!(host = answer.host_id, %refused, "reading passed over");
            Ok(ObserveResponse { refused_reason: refused.to_string(), ..answer })
        }
        Err(ObserveError::State(error)) => {
            tracing::error!(%error, "what follows from a reading cannot be stored");
            Err(Status::unavailable("the predictor cannot write its state file"))
        }
    }
}

fn page_size(wanted: i32) -> Result<usize, Status> {
    match usize::try_from(wanted) {
        Ok(0) => Ok(PAGE.0),
        Ok(size) => Ok(size.min(PAGE.1)),
        Err(_) => Err(invalid_field("page_size", "is negative; give 1 to 1000, or 0 for 100")),
    }
}

/// A page's token is the last id on it: ids are the order, so nothing is missed or repeated when hosts come and go.
fn next_page<T>(entries: &[T], size: usize, id: impl Fn(&T) -> &String) -> String {
    entries.last().filter(|_| entries.len() == size).map(|last| id(last).clone()).unwrap_or_default()
}
