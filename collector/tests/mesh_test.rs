//! The whole collector against a predictor and a registry that do as the test says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt};
use memharvest_collector::settings::CollectorSettings;
use memharvest_collector::{SERVICE, run};
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::collector_service_client::CollectorServiceClient;
use memharvest_proto::collector::v1::{
    DiagnoseRequest, Finding, GetReadingRequest, HostReading, WatchReadingsRequest,
};
use memharvest_proto::predictor::v1::predictor_service_server::{PredictorService, PredictorServiceServer};
use memharvest_proto::predictor::v1::*;
use memharvest_proto::registry::v1::agent_service_server::{AgentService, AgentServiceServer};
use memharvest_proto::registry::v1::*;
use memharvest_services::listener::bind;
use memharvest_services::metrics::Metrics;
use memharvest_services::proto_time::{duration_from_proto, duration_to_proto, from_proto, to_proto};
use memharvest_services::rpc_client::{ClientOptions, connect_lazy};
use memharvest_services::rpc_server::RpcServer;
use memharvest_services::settings::load;
use memharvest_services::shutdown::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request, Response, Status, Streaming};

const HARVEST: u64 = 192 << 20;

/// What reached the other side.
#[derive(Clone, Default)]
struct Mesh {
    readings: Arc<Mutex<Vec<HostReading>>>,
    registered: Arc<Mutex<BTreeMap<String, RegisterAgentRequest>>>,
    findings: Arc<Mutex<BTreeMap<String, Vec<Finding>>>>,
    streams: Arc<AtomicUsize>,
    /// The first stream takes this many readings without an answer, and then breaks.
    break_after: usize,
    /// The interval that heartbeats ask for.
    interval: Option<Duration>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn no<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl PredictorService for Mesh {
    type ObserveStream = Answers<ObserveResponse>;
    type WatchForecastsStream = Answers<WatchForecastsResponse>;

    async fn observe(
        &self,
        request: Request<Streaming<ObserveRequest>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let first = self.streams.fetch_add(1, Ordering::SeqCst) == 0;
        let (mesh, breaks) = (self.clone(), first && self.break_after > 0);
        let mut left = self.break_after;
        let answers = request.into_inner().filter_map(move |request| {
            left = left.saturating_sub(1);
            let broken = breaks && left == 0;
            let reading = request.unwrap().reading.unwrap();
            mesh.readings.lock().unwrap().push(reading.clone());
            async move {
                if broken {
                    return Some(Err(Status::unavailable("broken by the test")));
                }
                (!breaks).then(|| Ok(answer(&reading)))
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn watch_forecasts(
        &self,
        _: Request<WatchForecastsRequest>,
    ) -> Result<Response<Self::WatchForecastsStream>, Status> {
        no()
    }
    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        no()
    }
    async fn list_vms(&self, _: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        no()
    }
    async fn explain_vm(&self, _: Request<ExplainVmRequest>) -> Result<Response<ExplainVmResponse>, Status> {
        no()
    }
    async fn simulate_boundary(
        &self,
        _: Request<SimulateBoundaryRequest>,
    ) -> Result<Response<SimulateBoundaryResponse>, Status> {
        no()
    }
}

#[tonic::async_trait]
impl AgentService for Mesh {
    async fn register_agent(
        &self,
        request: Request<RegisterAgentRequest>,
    ) -> Result<Response<RegisterAgentResponse>, Status> {
        let request = request.into_inner();
        self.registered.lock().unwrap().insert(request.agent_id.clone(), request);
        let heartbeat_interval = Some(duration_to_proto(Duration::from_millis(50)));
        Ok(Response::new(RegisterAgentResponse { agent: None, heartbeat_interval }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        self.findings.lock().unwrap().insert(request.agent_id, request.findings);
        let heartbeat_interval = Some(duration_to_proto(Duration::from_millis(50)));
        Ok(Response::new(HeartbeatResponse {
            heartbeat_interval,
            interval: self.interval.map(duration_to_proto),
        }))
    }

    async fn get_agent(&self, _: Request<GetAgentRequest>) -> Result<Response<GetAgentResponse>, Status> {
        no()
    }
    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        no()
    }
    async fn update_agent(
        &self,
        _: Request<UpdateAgentRequest>,
    ) -> Result<Response<UpdateAgentResponse>, Status> {
        no()
    }
    async fn decommission_agent(
        &self,
        _: Request<DecommissionAgentRequest>,
    ) -> Result<Response<DecommissionAgentResponse>, Status> {
        no()
    }
}

/// Half of what a real predictor says: the harvest, valid for three intervals.
fn answer(reading: &HostReading) -> ObserveResponse {
    let read_at = from_proto(reading.read_at.as_ref().unwrap()).unwrap();
    let interval = duration_from_proto(reading.interval.as_ref().unwrap()).unwrap();
    let valid_until = Some(to_proto(read_at + interval * 3));
    let vm = |vm_id: &String| Vm {
        vm_id: vm_id.clone(),
        harvestable_bytes: Some(HARVEST),
        predicted_rss_bytes: Some(1),
        valid_until,
        ..Vm::default()
    };
    let host = Host {
        host_id: reading.host_id.clone(),
        harvestable_bytes: Some(2 * HARVEST),
        valid_until,
        ..Host::default()
    };
    ObserveResponse {
        host_id: reading.host_id.clone(),
        read_at: reading.read_at,
        update: Some(HostUpdate {
            host: Some(host),
            vms: reading.vms.iter().map(|found| vm(&found.vm_id)).collect(),
        }),
        refused_reason: String::new(),
    }
}

/// A collector between a predictor and a registry on one port.
struct Running {
    mesh: Mesh,
    stop: Stop,
    other_side: Stop,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "the test waits for the handles itself")]
fn start(mesh: Mesh, flags: &[&str]) -> Running {
    let metrics = Metrics::new(&SERVICE).unwrap();
    let bound = bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", bound.address);
    let other_side = Stop::new();
    let server = RpcServer::new(&metrics, DESCRIPTORS)
        .add_service(PredictorServiceServer::new(mesh.clone()))
        .add_service(AgentServiceServer::new(mesh.clone()));
    let stopped = other_side.clone();
    tokio::spawn(async move { server.serve(bound, &stopped, Duration::ZERO).await });
    let common =
        ["memharvest-collector", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--interval=100ms"];
    let urls = [format!("--predictor={url}"), format!("--registry={url}")];
    let args = common.into_iter().chain(flags.iter().copied()).chain(urls.iter().map(String::as_str));
    let settings: CollectorSettings = load(&SERVICE, args.map(OsString::from), []).unwrap();
    let stop = Stop::new();
    let ended = tokio::spawn(run(settings, stop.clone()));
    Running { mesh, stop, other_side, ended }
}

impl Running {
    async fn end(self) {
        self.stop.request();
        tokio::time::timeout(Duration::from_secs(10), self.ended).await.unwrap().unwrap().unwrap();
        self.other_side.request();
    }

    fn registration(&self, agent: &str) -> Option<RegisterAgentRequest> {
        self.mesh.registered.lock().unwrap().get(agent).cloned()
    }

    /// The page of metrics.
    async fn metrics(&self, agent: &str) -> String {
        let address = self.registration(agent).unwrap().admin_address;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_go_out_and_forecasts_come_back_to_the_page() {
    let running = start(Mesh::default(), &["--simulate=2x10", "--label=rack=r1"]);
    let readings = Arc::clone(&running.mesh.readings);
    until("readings of both hosts", || {
        let hosts: BTreeSet<_> =
            readings.lock().unwrap().iter().map(|reading| reading.host_id.clone()).collect();
        hosts.len() == 2
    })
    .await;
    until("both are registered", || {
        running.registration("sim-1").is_some() && running.registration("sim-2").is_some()
    })
    .await;
    let registration = running.registration("sim-2").unwrap();
    assert_eq!(registration.labels["rack"], "r1");
    assert_eq!(registration.capabilities, ["simulation"]);

    until("heartbeats bring the findings", || {
        let findings = running.mesh.findings.lock().unwrap();
        findings.get("sim-1").is_some_and(|found| {
            found
                .iter()
                .any(|finding| finding.code == "no_period" && finding.cure.starts_with("virsh dommemstat"))
                && found.iter().all(|finding| finding.host_id == "sim-1")
        })
    })
    .await;

    let reading = readings.lock().unwrap()[0].clone();
    let machine = &reading.vms[0].vm_id;
    let harvest =
        format!("memharvest_vm_harvestable_bytes{{host=\"{}\",vm=\"{machine}\"}} {HARVEST}", reading.host_id);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut page = running.metrics("sim-1").await;
    while !page.contains(&harvest) {
        assert!(tokio::time::Instant::now() < deadline, "no {harvest} in {page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        page = running.metrics("sim-1").await;
    }
    assert!(page.contains("memharvest_collector_predictor_up 1"), "{page}");
    assert!(!page.contains("libvirt_up"), "{page}");
    assert!(page.contains("class=\"no_period\"} 1"), "{page}");
    assert!(!page.contains("NaN"), "{page}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_loses_no_reading() {
    let mesh = Mesh { break_after: 3, ..Mesh::default() };
    let running = start(mesh, &["--simulate=1x2"]);
    let readings = Arc::clone(&running.mesh.readings);
    until("readings after the break", || readings.lock().unwrap().len() > 8).await;
    let times: Vec<_> = readings
        .lock()
        .unwrap()
        .iter()
        .map(|reading| from_proto(reading.read_at.as_ref().unwrap()).unwrap())
        .collect();
    // The three that were never answered come again, and from there on all of them in order.
    assert_eq!(times[..3], times[3..6]);
    assert!(times[3..].is_sorted_by(|a, b| a < b), "{times:?}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_sets_the_interval() {
    let mesh = Mesh { interval: Some(Duration::from_millis(333)), ..Mesh::default() };
    let running = start(mesh, &["--simulate=1x1"]);
    let readings = Arc::clone(&running.mesh.readings);
    until("a reading at the new interval", || {
        let last = readings.lock().unwrap().last().and_then(|reading| reading.interval);
        last.is_some_and(|interval| duration_from_proto(&interval).unwrap() == Duration::from_millis(333))
    })
    .await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_host_is_read_diagnosed_and_watched_over_grpc() {
    let flags = ["--libvirt-uri=test:///default", "--host-id=h1"];
    let running = start(Mesh::default(), &flags);
    until("it is registered", || running.registration("h1").is_some()).await;
    let url = format!("http://{}", running.registration("h1").unwrap().address);
    let options = ClientOptions::new(&Metrics::new(&SERVICE).unwrap(), DESCRIPTORS).unwrap();
    let mut client = CollectorServiceClient::new(connect_lazy(&url, &options).unwrap());

    let watch = WatchReadingsRequest { host_id: "h1".into() };
    let mut readings = client.watch_readings(watch).await.unwrap().into_inner();
    for _ in 0..3 {
        let reading = readings.message().await.unwrap().unwrap().reading.unwrap();
        assert_eq!((reading.host_id.as_str(), reading.vms.len()), ("h1", 1));
    }
    let reading =
        client.get_reading(GetReadingRequest::default()).await.unwrap().into_inner().reading.unwrap();
    assert_eq!(reading.vms[0].name, "test");
    let missing = client.get_reading(GetReadingRequest { host_id: "other".into() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let findings = client.diagnose(DiagnoseRequest::default()).await.unwrap().into_inner().findings;
    assert_eq!(findings[0].code, "no_period");
    assert_eq!(findings[0].cure, "virsh dommemstat test --period 10 --live --config");
    assert!(running.metrics("h1").await.contains("memharvest_collector_libvirt_up 1"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libvirt_that_is_away_is_registered_and_told() {
    let flags = ["--libvirt-uri=qemu+unix:///system?socket=/nowhere/libvirt-sock-ro", "--host-id=h1"];
    let running = start(Mesh::default(), &flags);
    until("the finding", || {
        let findings = running.mesh.findings.lock().unwrap();
        findings
            .get("h1")
            .is_some_and(|found| found.iter().any(|finding| finding.code == "libvirt_unreachable"))
    })
    .await;
    assert!(running.metrics("h1").await.contains("memharvest_collector_libvirt_up 0"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_can_never_work_ends_the_process() {
    let flags = ["--libvirt-uri=test:///no/such/file.xml", "--host-id=h1"];
    let running = start(Mesh::default(), &flags);
    let ended = tokio::time::timeout(Duration::from_secs(20), running.ended).await.unwrap().unwrap();
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("/no/such/file.xml") && error.contains("--libvirt-uri"), "{error}");
}
