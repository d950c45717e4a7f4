//! A predictor that says what a test tells it to.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use memharvest_proto::collector::v1::{Quality, VmState};
use memharvest_proto::predictor::v1::predictor_service_server::{PredictorService, PredictorServiceServer};
use memharvest_proto::predictor::v1::watch_forecasts_response::Event;
use memharvest_proto::predictor::v1::*;
use memharvest_services::proto_time::to_proto;
use memharvest_services::rpc_error::invalid_field;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Outbox = mpsc::UnboundedSender<Result<WatchForecastsResponse, Status>>;

/// The predictor: what it has now, and who watches.
#[derive(Clone, Default)]
pub(crate) struct Predictor(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hosts: Vec<HostUpdate>,
    watchers: Vec<Outbox>,
}

impl Predictor {
    pub(crate) fn service(&self) -> PredictorServiceServer<Self> {
        PredictorServiceServer::new(self.clone())
    }

    /// Sets a host and tells everybody who watches.
    pub(crate) fn update(&self, update: HostUpdate) {
        let mut state = self.0.lock().unwrap();
        let id = host_id(&update);
        state.hosts.retain(|known| host_id(known) != id);
        state.hosts.push(update.clone());
        state.tell(&Event::Update(update));
    }

    pub(crate) fn gone(&self, id: &str) {
        let mut state = self.0.lock().unwrap();
        state.hosts.retain(|known| host_id(known) != id);
        state.tell(&Event::Gone(HostGone { host_id: id.into() }));
    }

    /// Breaks every stream, and forgets a host in between.
    pub(crate) fn lose_streams_and(&self, id: &str) {
        let mut state = self.0.lock().unwrap();
        state.hosts.retain(|known| host_id(known) != id);
        for watcher in state.watchers.drain(..) {
            let _ = watcher.send(Err(Status::unavailable("restarting")));
        }
    }
}

impl State {
    fn tell(&mut self, event: &Event) {
        self.watchers.retain(|watcher| {
            watcher.send(Ok(WatchForecastsResponse { event: Some(event.clone()) })).is_ok()
        });
    }
}

fn host_id(update: &HostUpdate) -> String {
    update.host.as_ref().unwrap().host_id.clone()
}

#[tonic::async_trait]
impl PredictorService for Predictor {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<ObserveResponse, Status>> + Send>>;
    type WatchForecastsStream = Pin<Box<dyn Stream<Item = Result<WatchForecastsResponse, Status>> + Send>>;

    async fn observe(
        &self,
        _: Request<Streaming<ObserveRequest>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn list_vms(&self, _: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn explain_vm(
        &self,
        request: Request<ExplainVmRequest>,
    ) -> Result<Response<ExplainVmResponse>, Status> {
        let ExplainVmRequest { vm_id, signal } = request.into_inner();
        let term = |name: TermName, bytes, limited_by: LimitedBy| Term {
            name: name.into(),
            bytes,
            limited_by: limited_by.into(),
            detail: "a sentence".into(),
        };
        let waterfall = Waterfall {
            vm_id,
            signal,
            start_bytes: 4096,
            terms: vec![
                term(TermName::Predicted, 1000, LimitedBy::Prediction),
                term(TermName::Headroom, 0, LimitedBy::HeadroomBytes),
                term(TermName::ColdStart, 3096, LimitedBy::Cold),
            ],
            result_bytes: 0,
            warm_at: Some(to_proto("2026-11-22T12:00:00Z".parse().unwrap())),
            read_at: None,
        };
        Ok(Response::new(ExplainVmResponse { waterfall: Some(waterfall) }))
    }

    async fn watch_forecasts(
        &self,
        _: Request<WatchForecastsRequest>,
    ) -> Result<Response<Self::WatchForecastsStream>, Status> {
        let (watcher, events) = mpsc::unbounded_channel();
        let mut state = self.0.lock().unwrap();
        let hosts = u32::try_from(state.hosts.len()).unwrap();
        let snapshot = state.hosts.iter().cloned().map(Event::Update);
        for event in snapshot.chain([Event::SnapshotComplete(SnapshotComplete { hosts })]) {
            watcher.send(Ok(WatchForecastsResponse { event: Some(event) })).unwrap();
        }
        state.watchers.push(watcher);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(events).map(|event| event))))
    }

    async fn simulate_boundary(
        &self,
        request: Request<SimulateBoundaryRequest>,
    ) -> Result<Response<SimulateBoundaryResponse>, Status> {
        // Months of history may take longer than any other call.
        let patience = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
        assert!(["30S", "30000000u"].contains(&patience), "{patience}");
        let request = request.into_inner();
        if request.scope != "fleet" {
            return Err(invalid_field("values.floor_bytes", "must be at most 5 bytes"));
        }
        let floor_bytes = request.values.unwrap_or_default().floor_bytes.unwrap_or_default();
        let effect = SimulatedEffect {
            harvest_before_bytes: 7,
            harvest_after_bytes: floor_bytes,
            violations_after: 2,
            vm_days: 1.5,
            ..SimulatedEffect::default()
        };
        let vm = SimulatedEffect { vm_id: vm_id("a", 0), host_id: "a".into(), ..effect.clone() };
        let at = request.from;
        Ok(Response::new(SimulateBoundaryResponse {
            total: Some(effect),
            vms: vec![vm],
            points: vec![SimulatedPoint { at, harvest_before_bytes: 7, harvest_after_bytes: floor_bytes }],
            from: request.from,
            to: request.to,
            windows: request.max_vms.unsigned_abs().into(),
            ..SimulateBoundaryResponse::default()
        }))
    }
}

/// A host that was read just now, every 5 s, with this many machines of 4 GiB that yield 1 GiB each.
pub(crate) fn host(id: &str, vms: u32) -> HostUpdate {
    host_read_at(id, vms, jiff::Timestamp::now())
}

/// The same, read at another time.
pub(crate) fn host_read_at(id: &str, vms: u32, read_at: jiff::Timestamp) -> HostUpdate {
    let gib = 1 << 30;
    let read_at = to_proto(read_at);
    let valid_until = prost_types::Timestamp { seconds: read_at.seconds + 15, ..read_at };
    let sum = |each: u64| Some(u64::from(vms) * each);
    let host = Host {
        host_id: id.into(),
        name: format!("name-of-{id}"),
        state: HostState::Live.into(),
        labels: [("rack".to_owned(), format!("r/{id}"))].into(),
        vms_running: vms,
        allocated_bytes: sum(4 * gib),
        rss_bytes: sum(2 * gib),
        harvestable_bytes: sum(gib),
        read_at: Some(read_at),
        valid_until: Some(valid_until),
        interval: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        breaker: BreakerState::Closed.into(),
        coverage: vec![Coverage {
            signal: 1,
            horizon: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
            target_violation_rate: 0.01,
            judged: 100,
            held: 99,
        }],
        ..Host::default()
    };
    let vm = |number: u32| Vm {
        vm_id: vm_id(id, number),
        name: format!("vm-{number}"),
        host_id: id.into(),
        state: VmState::Running.into(),
        quality: if number == 0 { Quality::NoPeriod } else { Quality::Live }.into(),
        allocated_bytes: Some(4 * gib),
        maximum_bytes: Some(8 * gib),
        rss_bytes: Some(2 * gib),
        harvestable_bytes: Some(gib),
        read_at: Some(read_at),
        valid_until: Some(valid_until),
        ..Vm::default()
    };
    HostUpdate { host: Some(host), vms: (0..vms).map(vm).collect() }
}

/// Id of a host's machine.
pub(crate) fn vm_id(host: &str, number: u32) -> String {
    uuid::Uuid::from_u128(u128::from(host.as_bytes()[0]) << 64 | u128::from(number)).to_string()
}
