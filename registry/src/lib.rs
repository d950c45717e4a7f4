//! The registry owns what must last: agents, boundaries, roll-ups, violations, leases, model snapshots, tokens and the audit log.
//!
//! [`rpc`] checks requests and answers them, [`store`] is the seam to the database and the only place with SQL, [`presence`] knows who is
//! heard, [`boundary`], [`error_budget`], [`history`], [`lease`] (but for its keeper), [`scope`] and [`token`] are pure.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use futures::future::BoxFuture;
use jiff::Timestamp;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::registry::v1::agent_service_server::AgentServiceServer;
use memharvest_proto::registry::v1::audit_service_server::AuditServiceServer;
use memharvest_proto::registry::v1::boundary_service_server::BoundaryServiceServer;
use memharvest_proto::registry::v1::harvest_service_server::HarvestServiceServer;
use memharvest_proto::registry::v1::lease_service_server::LeaseServiceServer;
use memharvest_proto::registry::v1::model_service_server::ModelServiceServer;
use memharvest_proto::registry::v1::token_service_server::TokenServiceServer;
use memharvest_proto::registry::v1::violation_service_server::ViolationServiceServer;
use memharvest_proto::registry::v1::{AgentKind, RegisterAgentRequest};
use memharvest_services::Service;
use memharvest_services::admin_server::{AdminHandle, AdminServer};
use memharvest_services::listener::{self, Bound};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::metrics::Metrics;
use memharvest_services::readiness::{Part, Readiness};
use memharvest_services::rpc_server::{MAX_MESSAGE_BYTES, RpcServer};
use memharvest_services::shutdown::Stop;
use memharvest_services::tls::MeshTls;
use tokio::sync::mpsc;
use uuid::Uuid;

pub mod boundary;
pub mod check;
pub mod commands;
pub mod error_budget;
pub mod history;
pub mod identifier;
pub mod lease;
pub mod metrics;
mod page;
pub mod presence;
mod refusals;
pub mod rpc;
pub mod scope;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod time;
pub mod token;
mod upkeep;

use lease::keeper::LeaseKeeper;
use metrics::RegistryMetrics;
use presence::Presence;
use rpc::agents::AgentRpc;
use settings::{Database, RegistrySettings};
use store::postgres::PostgresStore;
use store::sqlite::SqliteStore;
use store::{AgentStore, Store};
use token::LastUse;
use upkeep::{Checkpoints, KeepHistory, all_agents};

/// Who this process is.
pub const SERVICE: Service = Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// A registry that listens.
pub struct Running {
    /// Where gRPC is served.
    pub grpc_address: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_address: SocketAddr,
    serve: BoxFuture<'static, anyhow::Result<()>>,
}

impl Running {
    /// Serves until the stop that [`start`] was given is requested and the work in hand is done.
    ///
    /// # Errors
    /// The transport broke.
    pub async fn serve(self) -> anyhow::Result<()> {
        self.serve.await
    }
}

/// Runs a registry until `stop` is requested.
///
/// # Errors
/// A port is in use, the database cannot be opened, or the transport broke.
pub async fn run(settings: RegistrySettings, stop: Stop) -> anyhow::Result<()> {
    start(settings, stop).await?.serve().await
}

/// Binds the addresses and opens the database; nothing is answered before [`Running::serve`].
///
/// # Errors
/// A port is in use, or the database cannot be opened.
pub async fn start(settings: RegistrySettings, stop: Stop) -> anyhow::Result<Running> {
    let grpc = listener::bind("--listen", settings.listen)?;
    let admin = listener::bind("--admin-listen", settings.common.admin_listen)?;
    let (grpc_address, admin_address) = (grpc.address, admin.address);
    let clock = settings.common.mesh_clock()?;
    let metrics = Metrics::new(&SERVICE)?;
    let registry_metrics = RegistryMetrics::register(&metrics)?;
    let readiness = Readiness::default();
    let database = readiness.part("database");
    let mesh = settings.common.mesh.start(&metrics, &stop)?;
    let handle = AdminServer::new(&metrics, &readiness, &stop).spawn(admin);
    let admin = Admin { address: admin_address, handle };

    let process = Process { settings, grpc, mesh, admin, metrics, registry_metrics, database, clock, stop };
    let serve = match process.settings.database()? {
        Database::Sqlite(path) => process.serve_from(SqliteStore::open(&path).await?).await?,
        Database::Postgres(address) => process.serve_from(PostgresStore::open(&address).await?).await?,
    };
    Ok(Running { grpc_address, admin_address, serve })
}

/// The admin server, and where it listens.
struct Admin {
    address: SocketAddr,
    handle: AdminHandle,
}

/// What is there before the store is.
struct Process {
    settings: RegistrySettings,
    grpc: Bound,
    /// `None`: callers are not asked who they are.
    mesh: Option<MeshTls>,
    admin: Admin,
    metrics: Metrics,
    registry_metrics: RegistryMetrics,
    /// Ready once the store is.
    database: Part,
    clock: MeshClock,
    stop: Stop,
}

impl Process {
    /// Makes everything ready that answers from a store.
    async fn serve_from(self, store: impl Store) -> anyhow::Result<BoxFuture<'static, anyhow::Result<()>>> {
        let Self { settings, grpc, mesh, admin, metrics, registry_metrics, database, clock, stop } = self;
        let store = Arc::new(store);
        let presence = Arc::new(Mutex::new(restore_presence(store.as_ref(), &settings).await?));
        let agents = AgentRpc::new(Arc::clone(&store), Arc::clone(&presence));
        let instance_id = Uuid::new_v4().to_string();
        let own = RegisterAgentRequest {
            agent_id: settings.agent_id.clone(),
            kind: AgentKind::Registry.into(),
            name: settings.agent_id.clone(),
            version: SERVICE.version.to_owned(),
            instance_id: instance_id.clone(),
            address: settings.common.advertised(grpc.address),
            admin_address: settings.common.advertised_admin(admin.address),
            ..RegisterAgentRequest::default()
        };
        agents.register(&own).await.context("cannot list the registry among the agents")?;
        database.ready();
        tracing::info!(
            grpc = %grpc.address, admin = %admin.address,
            "serving gRPC on {}, metrics on {}", grpc.address, admin.address
        );

        let used = LastUse::default();
        let checkpoints = Checkpoints {
            used: used.clone(),
            store: Arc::clone(&store),
            presence,
            metrics: registry_metrics.clone(),
            agent_id: settings.agent_id.clone(),
            instance_id,
        };
        let history = KeepHistory {
            store: Arc::clone(&store),
            clock,
            hourly_after: settings.hourly_after,
            retention: settings.retention,
            metrics: registry_metrics.clone(),
        };
        let harvest = rpc::harvest::HarvestRpc::new(Arc::clone(&store), clock, registry_metrics.clone());
        let violations = rpc::violations::ViolationRpc::new(Arc::clone(&store), clock, registry_metrics);
        let leases = rpc::leases::LeaseRpc::new(Arc::clone(&store), clock);
        let lease_keeper = LeaseKeeper {
            store: Arc::clone(&store),
            clock,
            notice: settings.revoke_notice,
            author: settings.agent_id.clone(),
        };
        let models = rpc::models::ModelRpc::new(Arc::clone(&store));
        let boundaries = rpc::boundaries::BoundaryRpc::new(Arc::clone(&store));
        let audit = rpc::audit::AuditRpc::new(Arc::clone(&store));
        let tokens = rpc::tokens::TokenRpc::new(Arc::clone(&store), used);
        let (tell_refusals, refused) = mpsc::channel(refusals::WAITING);
        let rpc_server = RpcServer::new(&metrics, DESCRIPTORS)
            .mesh(mesh.as_ref())
            .tell_refusals(tell_refusals)
            .add_service(AgentServiceServer::new(agents).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(BoundaryServiceServer::new(boundaries).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(HarvestServiceServer::new(harvest).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(ViolationServiceServer::new(violations).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(AuditServiceServer::new(audit).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(LeaseServiceServer::new(leases).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(ModelServiceServer::new(models).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(TokenServiceServer::new(tokens).max_decoding_message_size(MAX_MESSAGE_BYTES));
        Ok(Box::pin(async move {
            let drain_deadline = settings.common.drain_deadline;
            let rpc = async {
                let outcome = rpc_server.serve(grpc, &stop, drain_deadline).await;
                stop.request();
                outcome
            };
            let (outcome, (), (), (), (), (), ()) = tokio::join!(
                rpc,
                refusals::write_down(Arc::clone(&store), refused, stop.clone()),
                lease_keeper.run(stop.clone()),
                snapshot::prune(Arc::clone(&store), clock, stop.clone()),
                checkpoints.run(stop.clone(), settings.heartbeat_interval),
                history.run(stop.clone()),
                store.follow(stop.clone()),
            );
            store.close().await;
            drop(admin.handle);
            Ok(outcome?)
        }))
    }
}

/// What the last registry knew of the agents.
async fn restore_presence(store: &impl AgentStore, settings: &RegistrySettings) -> anyhow::Result<Presence> {
    let listened_until = store.listened_until_ns().await?;
    let agents = all_agents(store).await?;
    let now = time::now_to_ns(Timestamp::now());
    Ok(Presence::restore(settings.timing(), &agents, listened_until, now))
}
