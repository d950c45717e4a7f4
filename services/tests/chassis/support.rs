//! A tiny service on a real socket, and ways to wait for things.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::collector_service_client::CollectorServiceClient;
use memharvest_proto::collector::v1::collector_service_server::{CollectorService, CollectorServiceServer};
use memharvest_proto::collector::v1::{
    DiagnoseRequest, DiagnoseResponse, GetReadingRequest, GetReadingResponse, HostReading,
    WatchReadingsRequest, WatchReadingsResponse,
};
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, RpcChannel, connect_lazy};
use memharvest_services::rpc_server::{Limits, RpcServer};
use memharvest_services::shutdown::Stop;
use memharvest_services::{Service, listener, rpc_error, trace_context};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

pub(crate) const SERVICE: Service = Service::new("memharvest-test", "1.2.3");
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Answers by the name of the host that is asked for.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    /// Told when a slow call has reached its handler.
    pub(crate) entered: Arc<Notify>,
    /// Lets slow calls go on.
    pub(crate) go_on: Arc<Notify>,
}

#[tonic::async_trait]
impl CollectorService for Collector {
    async fn get_reading(
        &self,
        request: Request<GetReadingRequest>,
    ) -> Result<Response<GetReadingResponse>, Status> {
        let host_id = match request.into_inner().host_id.as_str() {
            "slow" => {
                self.entered.notify_one();
                self.go_on.notified().await;
                "slow".to_owned()
            }
            "panic" => panic!("as asked"),
            "invalid" => return Err(rpc_error::invalid_field("host_id", "is not a host")),
            "traceparent" => trace_context::current_traceparent().unwrap_or_default(),
            other => other.to_owned(),
        };
        Ok(Response::new(GetReadingResponse { reading: Some(HostReading { host_id, ..Default::default() }) }))
    }

    type WatchReadingsStream = Pin<Box<dyn Stream<Item = Result<WatchReadingsResponse, Status>> + Send>>;

    async fn watch_readings(
        &self,
        _request: Request<WatchReadingsRequest>,
    ) -> Result<Response<Self::WatchReadingsStream>, Status> {
        let first = stream::iter([Ok(WatchReadingsResponse::default())]);
        Ok(Response::new(first.chain(stream::pending()).boxed()))
    }

    async fn diagnose(
        &self,
        _request: Request<DiagnoseRequest>,
    ) -> Result<Response<DiagnoseResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) collector: Collector,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
    pub(crate) serving: JoinHandle<()>,
}

impl TestServer {
    pub(crate) fn start(limits: Limits, drain_deadline: Duration) -> Self {
        Self::start_with(limits, drain_deadline, |server| server)
    }

    #[expect(clippy::disallowed_methods, reason = "the test waits for the handle itself")]
    pub(crate) fn start_with(
        limits: Limits,
        drain_deadline: Duration,
        change: impl FnOnce(RpcServer) -> RpcServer,
    ) -> Self {
        let bound = listener::bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = bound.address;
        let (collector, stop, metrics) = (Collector::default(), Stop::new(), Metrics::new(&SERVICE).unwrap());
        let server = RpcServer::new(&metrics, DESCRIPTORS)
            .add_service(CollectorServiceServer::new(collector.clone()))
            .limits(limits);
        let server = change(server);
        let heard = stop.clone();
        let serving = tokio::spawn(async move { server.serve(bound, &heard, drain_deadline).await.unwrap() });
        Self { address, collector, metrics, stop, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> CollectorServiceClient<RpcChannel> {
        let options = ClientOptions::new(&self.metrics, DESCRIPTORS).unwrap();
        CollectorServiceClient::new(connect_lazy(&self.url(), &options).unwrap())
    }

    pub(crate) fn page(&self) -> String {
        self.metrics.render().unwrap()
    }
}

pub(crate) fn ask(host_id: &str) -> GetReadingRequest {
    GetReadingRequest { host_id: host_id.into() }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One HTTP/1.1 exchange: status and everything after the headers, with the headers in front.
pub(crate) fn http(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    (status, answer)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http(address, format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())
}
