//! What feeds the gateway: a predictor that has 1,000 hosts with 30 machines each, and a registry that knows nothing but
//! counts who asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{Stream, StreamExt, iter, pending};
use jiff::Timestamp;
use memharvest_proto::collector::v1::{GuestMemory, Quality, VmState};
use memharvest_proto::predictor::v1::predictor_service_server::{PredictorService, PredictorServiceServer};
use memharvest_proto::predictor::v1::watch_forecasts_response::Event;
use memharvest_proto::predictor::v1::{
    BreakerState, ExplainVmRequest, ExplainVmResponse, Host, HostState, HostUpdate, ListHostsRequest,
    ListHostsResponse, ListVmsRequest, ListVmsResponse, ObserveRequest, ObserveResponse,
    SimulateBoundaryRequest, SimulateBoundaryResponse, SnapshotComplete, Vm, WatchForecastsRequest,
    WatchForecastsResponse,
};
use memharvest_services::proto_time::to_proto;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const HOSTS: u32 = 1000;
pub(crate) const VMS_A_HOST: u32 = 30;

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<WatchForecastsResponse, Status>> + Send>>;

/// The two servers on one port.
#[derive(Clone)]
pub(crate) struct Behind {
    pub(crate) url: String,
    calls: Arc<AtomicUsize>,
    changes: broadcast::Sender<WatchForecastsResponse>,
    reported: Arc<Mutex<HashMap<String, Timestamp>>>,
}

impl Behind {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let behind = Self {
            url: format!("http://{}", listener.local_addr()?),
            calls: Arc::default(),
            changes: broadcast::channel(1024).0,
            reported: Arc::default(),
        };
        let calls = Arc::clone(&behind.calls);
        // Whatever is asked of a registry is counted, and not served.
        let counted = axum::Router::new().fallback(move || {
            calls.fetch_add(1, Ordering::Relaxed);
            async { Status::unimplemented("a registry that only counts").into_http::<axum::body::Body>() }
        });
        let predictor = PredictorServiceServer::new(behind.clone());
        let routes = tonic::service::Routes::new(predictor).into_axum_router().fallback_service(counted);
        let server = tonic::transport::Server::builder().add_routes(routes.into());
        #[expect(clippy::disallowed_methods, reason = "ends with the process")]
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(behind)
    }

    /// Calls that reached the registry so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Reads another host every 37 ms, for as long as somebody waits.
    pub(crate) async fn report_now_and_then(&self) {
        for number in (0..HOSTS).cycle().step_by(7) {
            tokio::time::sleep(Duration::from_millis(37)).await;
            let read_at = Timestamp::now();
            let update = host(number, read_at);
            let id = update.host.as_ref().map(|host| host.host_id.clone()).unwrap_or_default();
            self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(id, read_at);
            let _ = self.changes.send(WatchForecastsResponse { event: Some(Event::Update(update)) });
        }
    }

    /// Whether a reading is one that was reported since it is measured, not one of the first fleet.
    pub(crate) fn was_reported(&self, host: &str, read_at: Timestamp) -> bool {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.get(host).is_some_and(|at| to_proto(*at) == to_proto(read_at))
    }
}

fn host(number: u32, read_at: Timestamp) -> HostUpdate {
    let gib = 1_u64 << 30;
    let id = format!("host-{number:04}");
    let hour = Duration::from_hours(1);
    let valid_until = Some(to_proto(read_at + hour));
    let read_at = Some(to_proto(read_at));
    let sum = |each: u64| Some(u64::from(VMS_A_HOST) * each);
    let vm = |place: u32| Vm {
        vm_id: format!("{:08x}-0000-4000-8000-{:012x}", number * VMS_A_HOST + place, place),
        name: format!("vm-{number}-{place}"),
        host_id: id.clone(),
        state: VmState::Running.into(),
        quality: Quality::Live.into(),
        allocated_bytes: Some(4 * gib),
        maximum_bytes: Some(8 * gib),
        rss_bytes: Some(2 * gib + u64::from(place)),
        demand_bytes: Some(gib),
        predicted_rss_bytes: Some(3 * gib),
        predicted_demand_bytes: Some(2 * gib),
        harvestable_bytes: Some(gib),
        reclaimable_bytes: Some(gib / 2),
        read_at,
        valid_until,
        stats_age_seconds: Some(1.5),
        guest: Some(GuestMemory {
            total_bytes: Some(4 * gib),
            free_bytes: Some(gib),
            available_bytes: Some(3 * gib),
            disk_cache_bytes: Some(gib),
            swap_in_bytes: Some(0),
            swap_out_bytes: Some(0),
            major_faults: Some(17),
            minor_faults: Some(123_456),
            last_update: read_at,
        }),
        ..Vm::default()
    };
    let host = Host {
        host_id: id.clone(),
        name: id.clone(),
        state: HostState::Live.into(),
        vms_running: VMS_A_HOST,
        total_bytes: Some(256 * gib),
        available_bytes: Some(64 * gib),
        allocated_bytes: sum(4 * gib),
        rss_bytes: sum(2 * gib),
        harvestable_bytes: sum(gib),
        reclaimable_bytes: sum(gib / 2),
        read_at,
        valid_until,
        interval: Some(prost_types::Duration { seconds: 1200, nanos: 0 }),
        breaker: BreakerState::Closed.into(),
        ..Host::default()
    };
    HostUpdate { host: Some(host), vms: (0..VMS_A_HOST).map(vm).collect() }
}

#[tonic::async_trait]
impl PredictorService for Behind {
    type ObserveStream = std::pin::Pin<Box<dyn Stream<Item = Result<ObserveResponse, Status>> + Send>>;
    type WatchForecastsStream = Events;

    async fn watch_forecasts(&self, _: Request<WatchForecastsRequest>) -> Result<Response<Events>, Status> {
        let changes = BroadcastStream::new(self.changes.subscribe());
        let now = Timestamp::now();
        let first = (0..HOSTS).map(move |number| Event::Update(host(number, now)));
        let first = first.chain([Event::SnapshotComplete(SnapshotComplete { hosts: HOSTS })]);
        let first = iter(first.map(|event| Ok(WatchForecastsResponse { event: Some(event) })));
        let changes = changes.filter_map(|change| async { change.ok().map(Ok) });
        Ok(Response::new(Box::pin(first.chain(changes).chain(pending()))))
    }

    async fn observe(
        &self,
        _: Request<Streaming<ObserveRequest>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("this predictor only tells"))
    }

    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        Err(Status::unimplemented("this predictor only tells"))
    }

    async fn list_vms(&self, _: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        Err(Status::unimplemented("this predictor only tells"))
    }

    async fn explain_vm(&self, _: Request<ExplainVmRequest>) -> Result<Response<ExplainVmResponse>, Status> {
        Err(Status::unimplemented("this predictor only tells"))
    }

    async fn simulate_boundary(
        &self,
        _: Request<SimulateBoundaryRequest>,
    ) -> Result<Response<SimulateBoundaryResponse>, Status> {
        Err(Status::unimplemented("this predictor only tells"))
    }
}
