//! Readings to forecasts, harvest and violations.
//!
//! The core is pure: [`vm`] takes one machine's reading through its [`model`], judges what was promised, and explains
//! what may be harvested ([`guard`]). Around it, [`host`] makes messages of it, [`shard`] holds all hosts, and
//! [`recorder`] brings to the registry what must last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::predictor::v1::predictor_service_server::PredictorServiceServer;
use memharvest_proto::registry::v1::{AgentKind, RegisterAgentRequest};
use memharvest_services::admin_server::{AdminHandle, AdminServer};
use memharvest_services::listener::{self, Bound};
use memharvest_services::metrics::Metrics as ProcessMetrics;
use memharvest_services::readiness::Readiness;
use memharvest_services::rpc_client::{self, ClientOptions};
use memharvest_services::rpc_server::{MAX_MESSAGE_BYTES, RpcServer};
use memharvest_services::shutdown::Stop;
use memharvest_services::tls::identity::Role;
use memharvest_services::{Service, membership};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod backoff;
pub mod backtest;
pub mod boundary;
pub mod boundary_set;
pub mod boundary_watch;
pub mod breaker;
pub mod budget;
pub mod cold_start;
pub mod convert;
pub mod coverage;
pub mod domain;
pub mod guard;
pub mod host;
pub mod judge;
pub mod labels;
pub mod lease_set;
pub mod lease_watch;
pub mod live;
pub mod metrics;
pub mod model;
pub mod recorder;
pub mod rollup;
pub mod rpc;
pub mod settings;
pub mod shard;
pub mod simulate;
pub mod snapshot;
pub mod state_file;
pub mod train;
pub mod violation;
pub mod vm;

pub use settings::Settings;

/// This service.
pub const SERVICE: Service = Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// Time that the last records have on their way to the registry; what does not make it waits in the state file.
const LAST_RECORDS: Duration = Duration::from_secs(3);

/// A predictor whose addresses are bound.
#[derive(Debug)]
pub struct Running {
    /// Address of the gRPC server.
    pub address: SocketAddr,
    /// Address of the admin server.
    pub admin_address: SocketAddr,
    server: RpcServer,
    bound: Bound,
    shard: shard::Shard,
    records: CancellationToken,
    drained: CancellationToken,
    drain_deadline: Duration,
    stop: Stop,
    _admin: AdminHandle,
}

/// Serves until told to stop.
///
/// # Errors
/// What [`start`] answers, or a server that broke.
pub async fn run(settings: Settings, stop: Stop) -> anyhow::Result<()> {
    start(settings, stop).await?.finished().await
}

/// Binds the addresses, opens the state file, and starts everything but the gRPC server.
///
/// # Errors
/// An address or a state file that cannot be used, or a wrong URL.
pub async fn start(settings: Settings, stop: Stop) -> anyhow::Result<Running> {
    let common = &settings.common;
    let metrics = ProcessMetrics::new(&SERVICE)?;
    let bound = listener::bind("--listen", settings.listen)?;
    let admin = listener::bind("--admin-listen", common.admin_listen)?;
    let (address, admin_address) = (bound.address, admin.address);
    let mesh = common.mesh.start(&metrics, &stop)?;
    let options = ClientOptions::new(&metrics, DESCRIPTORS)?.mesh(mesh.as_ref()).to(Role::Registry);
    let registry = rpc_client::connect_lazy(&settings.registry, &options).context("--registry")?;

    let limit = settings.outbox_limit_mib.saturating_mul(1 << 20);
    let file = state_file::StateFile::open(&settings.data_dir.join("predictor.db"), limit).await?;
    let (known, boundaries) = watch::channel(Arc::new(boundary_watch::remembered(&file).await?));
    let (heard_leases, leases) = watch::channel(Arc::default());
    let recorder = recorder::Recorder::new(file.clone(), registry.clone(), metrics.queue("records"));
    let (records, drained) = (CancellationToken::new(), CancellationToken::new());
    stop.spawn("recorder", {
        let (recorder, records, drained) = (recorder.clone(), records.clone(), drained.clone());
        async move {
            recorder.run(records).await;
            drained.cancel();
        }
    });

    let predictor_id = settings.predictor_id.clone().unwrap_or_else(default_id);
    let snapshots = settings.data_dir.join("snapshots");
    let folder = snapshot::folder::Folder::open(&snapshots).with_context(|| {
        format!("cannot create the snapshot folder {}; pass --data-dir", snapshots.display())
    })?;
    let memory = shard::memory::Memory::new(folder, metrics::PredictorMetrics::register(&metrics)?);
    let shard = shard::Shard::new(
        &predictor_id,
        memory,
        shard::exchange::Exchange::new(registry.clone()),
        recorder,
        shard::Heard { boundaries: boundaries.clone(), leases },
        common.mesh_clock()?,
        settings.cold_start,
    )
    .forecast_by(settings.model);
    shard.restore(file.open_violations().await?).await?;

    let readiness = Readiness::default();
    let ready = readiness.part("boundaries");
    stop.spawn("readiness", wait_for_boundaries(boundaries.clone(), ready, stop.clone()));
    stop.spawn("boundaries", boundary_watch::run(registry.clone(), file, known, stop.clone()));
    stop.spawn("leases", lease_watch::run(registry.clone(), heard_leases, stop.clone()));
    stop.spawn("silence", shard.clone().watch_silence(stop.clone()));
    stop.spawn("sharing", shard.clone().keep_sharing(stop.clone()));
    stop.spawn("snapshots", shard.clone().keep_saving(settings.snapshot_interval, stop.clone()));
    let simulator = simulate::run::Simulator::new(
        registry.clone(),
        boundaries,
        common.mesh_clock()?,
        settings.cold_start,
        settings.model,
    );
    let registration = RegisterAgentRequest {
        agent_id: predictor_id.clone(),
        kind: AgentKind::Predictor.into(),
        name: predictor_id,
        version: SERVICE.version.to_owned(),
        instance_id: uuid::Uuid::new_v4().to_string(),
        address: common.advertised(address),
        admin_address: common.advertised_admin(admin_address),
        ..RegisterAgentRequest::default()
    };
    stop.spawn("membership", membership::keep(registry, registration, Vec::new, |_| {}, stop.clone()));

    let service = PredictorServiceServer::new(rpc::PredictorRpc::new(shard.clone(), simulator))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = RpcServer::new(&metrics, DESCRIPTORS).add_service(service).mesh(mesh.as_ref());
    let admin = AdminServer::new(&metrics, &readiness, &stop).spawn(admin);
    tracing::info!(%address, %admin_address, "listening");
    let drain_deadline = common.drain_deadline;
    Ok(Running {
        address,
        admin_address,
        server,
        bound,
        shard,
        records,
        drained,
        drain_deadline,
        stop,
        _admin: admin,
    })
}

impl Running {
    /// Serves until told to stop, then stores what is in hand and sends what it can.
    ///
    /// # Errors
    /// A server that broke.
    pub async fn finished(self) -> anyhow::Result<()> {
        let served = self.server.serve(self.bound, &self.stop, self.drain_deadline).await;
        self.shard.flush().await;
        self.shard.save().await;
        // A predictor that takes over the hosts finds them warm; if the registry is away, they are still here.
        let _ = tokio::time::timeout(LAST_RECORDS, self.shard.share()).await;
        self.records.cancel();
        // What does not make it waits in the state file.
        let _ = tokio::time::timeout(LAST_RECORDS, self.drained.cancelled()).await;
        Ok(served?)
    }
}

async fn wait_for_boundaries(
    mut boundaries: watch::Receiver<Arc<boundary_set::BoundarySet>>,
    ready: memharvest_services::readiness::Part,
    stop: Stop,
) {
    tokio::select! {
        known = boundaries.wait_for(|known| known.is_known()) => if known.is_ok() { ready.ready() },
        () = stop.requested() => {}
    }
}

fn default_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("predictor-{}", if host.is_empty() { "localhost" } else { host })
}
