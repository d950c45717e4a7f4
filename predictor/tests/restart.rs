//! A predictor ends, however it ends, and what its machines have taught goes on: in the next one on the same data, and
//! in another one through the registry.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use futures::StreamExt;
use futures::stream::BoxStream;
use memharvest_predictor::state_file::StateFile;
use memharvest_predictor::{Running, Settings, convert, start};
use memharvest_proto::collector::v1::{HostReading, Quality, VmReading, VmState};
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_proto::predictor::v1::{ObserveRequest, Vm};
use memharvest_proto::registry::v1::model_service_server::{ModelService, ModelServiceServer};
use memharvest_proto::registry::v1::{
    GetSnapshotsRequest, GetSnapshotsResponse, ModelSnapshot, PutSnapshotsRequest, PutSnapshotsResponse,
};
use memharvest_services::shutdown::Stop;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const GIB: u64 = 1 << 30;
const MACHINE: &str = "0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e01";
const NOBODY: &str = "http://127.0.0.1:1";

/// A predictor in this process.
struct Predictor {
    url: String,
    stop: Stop,
    served: JoinSet<()>,
}

impl Predictor {
    async fn start(data: &Path, registry: &str) -> Self {
        let settings = Settings::parse_from([
            "memharvest-predictor",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--cold-start=60s",
            "--snapshot-interval=50ms",
            &format!("--registry={registry}"),
            &format!("--data-dir={}", data.display()),
        ]);
        let stop = Stop::new();
        let running: Running = start(settings, stop.clone()).await.unwrap();
        let url = format!("http://{}", running.address);
        let mut served = JoinSet::new();
        served.spawn(async move { running.finished().await.unwrap() });
        Self { url, stop, served }
    }

    /// Reads the machine every 5 s from `from` on, so many times; what the last reading led to.
    async fn read(&self, from: f64, times: u32) -> Vm {
        let mut client = PredictorServiceClient::connect(self.url.clone()).await.unwrap();
        let readings = (0..times)
            .map(move |step| ObserveRequest { reading: Some(reading(from + f64::from(step) * 5.0)) });
        let answers = client.observe(tokio_stream::iter(readings)).await.unwrap().into_inner();
        let last = answers.fold(None, async |_, answer| Some(answer.unwrap())).await.unwrap();
        assert_eq!(last.refused_reason, "");
        last.update.unwrap().vms.remove(0)
    }

    async fn drain(mut self) {
        self.stop.request();
        while let Some(ended) = self.served.join_next().await {
            ended.unwrap();
        }
    }

    /// As if it had been killed: nothing is stored that was not stored before.
    async fn kill(mut self) {
        self.served.shutdown().await;
        self.stop.request();
    }
}

fn reading(at: f64) -> HostReading {
    let vm = VmReading {
        vm_id: MACHINE.into(),
        name: "machine".into(),
        state: VmState::Running.into(),
        quality: Quality::Live.into(),
        allocated_bytes: Some(8 * GIB),
        rss_bytes: Some(2 * GIB),
        generation: 1,
        ..VmReading::default()
    };
    HostReading {
        host_id: "h".into(),
        read_at: Some(convert::timestamp(at)),
        interval: Some(convert::duration(5.0)),
        vms: vec![vm],
        ..HostReading::default()
    }
}

/// A data folder whose predictor knows that no boundary is set.
async fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::open(&folder.path().join("predictor.db"), 1 << 20).await.unwrap();
    file.save_boundaries(1, []).await.unwrap();
    file.close().await;
    folder
}

fn hours_ago(hours: f64) -> f64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - hours * 3600.0
}

fn snapshot(folder: &Path) -> std::path::PathBuf {
    folder.join("snapshots").join("host-h.snapshot")
}

/// Waits until the snapshot has the reading of `at`.
async fn saved(folder: &Path, at: f64) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let folder = memharvest_predictor::snapshot::folder::Folder::open(&folder.join("snapshots")).unwrap();
        let found = folder.read("host-h");
        let taken = found.snapshots.first().and_then(|first| first.taken_at);
        if taken.is_some_and(|taken| convert::seconds(&taken) >= at - 0.001) {
            return;
        }
        assert!(Instant::now() < until, "not saved: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_predictor_and_a_killed_one_go_on_where_they_were() {
    let (folder, from) = (data().await, hours_ago(5.0));
    let first = Predictor::start(folder.path(), NOBODY).await;
    let warm = first.read(from, 400).await;
    assert!(warm.harvestable_bytes.unwrap() > GIB, "{warm:?}");
    first.drain().await;

    let second = Predictor::start(folder.path(), NOBODY).await;
    let next = second.read(from + 2000.0, 1).await;
    assert!(next.harvestable_bytes >= warm.harvestable_bytes, "{next:?}");
    assert_eq!(next.warm_at, None);
    let judged = next.forecasts[0].judged;
    assert!(judged > 0, "what was judged before is remembered");
    saved(folder.path(), from + 2000.0).await;
    second.kill().await;

    let third = Predictor::start(folder.path(), NOBODY).await;
    let next = third.read(from + 2005.0, 1).await;
    assert!(
        next.harvestable_bytes >= warm.harvestable_bytes && next.forecasts[0].judged >= judged,
        "{next:?}"
    );
    third.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_refused_and_its_machine_starts_cold() {
    let (folder, from) = (data().await, hours_ago(5.0));
    let first = Predictor::start(folder.path(), NOBODY).await;
    first.read(from, 400).await;
    first.drain().await;
    let file = snapshot(folder.path());
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 100;
    flipped[last] ^= 1;
    for (nth, damaged) in
        [&flipped[..], &whole[..whole.len() / 2], &[][..], &b"#!/bin/sh"[..]].into_iter().enumerate()
    {
        std::fs::write(&file, damaged).unwrap();
        let next = Predictor::start(folder.path(), NOBODY).await;
        let cold = next.read(from + 2000.0, 1).await;
        assert_eq!(cold.harvestable_bytes, Some(0), "damage {nth}: {cold:?}");
        assert!(cold.warm_at.is_some(), "damage {nth}: {cold:?}");
        next.drain().await;
    }
}

/// A registry that keeps snapshots and nothing else.
#[derive(Clone, Debug, Default)]
struct Keeper(Arc<Mutex<Vec<ModelSnapshot>>>);

#[tonic::async_trait]
impl ModelService for Keeper {
    async fn put_snapshots(
        &self,
        request: Request<PutSnapshotsRequest>,
    ) -> Result<Response<PutSnapshotsResponse>, Status> {
        *self.0.lock().unwrap() = request.into_inner().snapshots;
        Ok(Response::new(PutSnapshotsResponse::default()))
    }

    type GetSnapshotsStream = BoxStream<'static, Result<GetSnapshotsResponse, Status>>;

    async fn get_snapshots(
        &self,
        request: Request<GetSnapshotsRequest>,
    ) -> Result<Response<Self::GetSnapshotsStream>, Status> {
        assert_eq!(request.into_inner().host_id, "h");
        let snapshots = self.0.lock().unwrap().clone();
        Ok(Response::new(tokio_stream::iter([Ok(GetSnapshotsResponse { snapshots })]).boxed()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_from_another_predictor_is_warm_at_its_first_reading() {
    let keeper = Keeper::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = format!("http://{}", listener.local_addr().unwrap());
    let mut served = JoinSet::new();
    let service = ModelServiceServer::new(keeper.clone());
    served.spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let (here, there, from) = (data().await, data().await, hours_ago(5.0));
    let first = Predictor::start(here.path(), &registry).await;
    let warm = first.read(from, 400).await;
    first.drain().await;
    let kept = keeper.0.lock().unwrap().clone();
    assert_eq!((kept.len(), kept[0].vm_id.as_str(), kept[0].checksum.len()), (1, MACHINE, 32));

    let second = Predictor::start(there.path(), &registry).await;
    let next = second.read(from + 2000.0, 1).await;
    assert!(next.harvestable_bytes >= warm.harvestable_bytes && next.warm_at.is_none(), "{next:?}");
    second.drain().await;

    keeper.0.lock().unwrap()[0].state[20] ^= 1;
    let elsewhere = data().await;
    let third = Predictor::start(elsewhere.path(), &registry).await;
    assert_eq!(third.read(from + 2000.0, 1).await.harvestable_bytes, Some(0), "damaged on its way");
    third.drain().await;
}
