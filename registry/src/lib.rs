//! The registry owns what must last: agents, boundaries, roll-ups, violations, leases, model snapshots, tokens and the audit log.
//!
//! [`rpc`] checks requests and answers them, [`store`] is the seam to the database and the only place with SQL, [`presence`] knows who is
//! heard, [`boundary`], [`history`], [`lease`] (but for its keeper), [`scope`] and [`token`] are pure.

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
use memharvest_services::admin_server::AdminServer;
use memharvest_services::metrics::Metrics;
use memharvest_services::readiness::Readiness;
use memharvest_services::rpc_server::{MAX_MESSAGE_BYTES, RpcServer};
use memharvest_services::shutdown::Stop;
use memharvest_services::{Service, listener};
use uuid::Uuid;

pub mod boundary;
pub mod check;
pub mod commands;
pub mod history;
pub mod identifier;
pub mod lease;
pub mod metrics;
mod page;
pub mod presence;
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
use settings::RegistrySettings;
use store::AgentStore;
use store::sqlite::SqliteStore;
use token::LastUse;
use upkeep::Checkpoints;

/// Who this process is.
pub const SERVICE: Service = Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// Agents read at once when the process starts.
const AGENTS_AT_ONCE: u32 = 1000;

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
    let grpc = listener::bind("--listen", settings.listen).await?;
    let admin = listener::bind("--admin-listen", settings.common.admin_listen).await?;
    let (grpc_address, admin_address) = (grpc.address, admin.address);
    let clock = settings.common.mesh_clock()?;
    let metrics = Metrics::new(&SERVICE)?;
    let registry_metrics = RegistryMetrics::register(&metrics)?;
    let readiness = Readiness::default();
    let database = readiness.part("database");
    let admin = AdminServer::new(&metrics, &readiness, &stop).spawn(admin);

    let store = Arc::new(SqliteStore::open(&settings.database_path()?).await?);
    let presence = Arc::new(Mutex::new(restore_presence(store.as_ref(), &settings).await?));
    let agents = AgentRpc::new(Arc::clone(&store), Arc::clone(&presence));
    let instance_id = Uuid::new_v4().to_string();
    let own = RegisterAgentRequest {
        agent_id: settings.agent_id.clone(),
        kind: AgentKind::Registry.into(),
        name: settings.agent_id.clone(),
        version: SERVICE.version.to_owned(),
        instance_id: instance_id.clone(),
        address: settings.common.advertised(grpc_address),
        admin_address: settings.common.advertised_admin(admin_address),
        ..RegisterAgentRequest::default()
    };
    agents.register(&own).await.context("cannot list the registry among the agents")?;
    database.ready();
    tracing::info!(grpc = %grpc_address, admin = %admin_address, "serving gRPC on {grpc_address}, metrics on {admin_address}");

    let used = LastUse::default();
    let checkpoints = Checkpoints {
        used: used.clone(),
        store: Arc::clone(&store),
        presence,
        metrics: registry_metrics.clone(),
        agent_id: settings.agent_id.clone(),
        instance_id,
    };
    let harvest = rpc::harvest::HarvestRpc::new(Arc::clone(&store), clock, registry_metrics.clone());
    let violations = rpc::violations::ViolationRpc::new(Arc::clone(&store), registry_metrics.clone());
    let leases = rpc::leases::LeaseRpc::new(Arc::clone(&store), clock);
    let lease_keeper = LeaseKeeper {
        store: Arc::clone(&store),
        clock,
        notice: settings.revoke_notice,
        author: settings.agent_id.clone(),
    };
    let models = rpc::models::ModelRpc::new(Arc::clone(&store));
    let tokens = rpc::tokens::TokenRpc::new(Arc::clone(&store), used);
    let rpc_server = RpcServer::new(&metrics, DESCRIPTORS)
        .add_service(AgentServiceServer::new(agents).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(BoundaryServiceServer::new(rpc::boundaries::BoundaryRpc::new(Arc::clone(&store))))
        .add_service(HarvestServiceServer::new(harvest).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ViolationServiceServer::new(violations).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(AuditServiceServer::new(rpc::audit::AuditRpc::new(Arc::clone(&store))))
        .add_service(LeaseServiceServer::new(leases))
        .add_service(ModelServiceServer::new(models).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(TokenServiceServer::new(tokens));
    let serve = async move {
        let drain_deadline = settings.common.drain_deadline;
        let rpc = async {
            let outcome = rpc_server.serve(grpc, &stop, drain_deadline).await;
            stop.request();
            outcome
        };
        let (outcome, (), (), (), ()) = tokio::join!(
            rpc,
            lease_keeper.run(stop.clone()),
            snapshot::prune(Arc::clone(&store), clock, stop.clone()),
            checkpoints.run(stop.clone(), settings.heartbeat_interval),
            upkeep::prune(Arc::clone(&store), clock, settings.retention, registry_metrics, stop.clone()),
        );
        store.close().await;
        drop(admin);
        Ok(outcome?)
    };
    Ok(Running { grpc_address, admin_address, serve: Box::pin(serve) })
}

/// What the last registry knew of the agents.
async fn restore_presence(store: &impl AgentStore, settings: &RegistrySettings) -> anyhow::Result<Presence> {
    let listened_until = store.listened_until_ns().await?;
    let mut agents = Vec::new();
    loop {
        let after =
            agents.last().map_or("", |stored: &store::StoredAgent| stored.agent.agent_id.as_str()).to_owned();
        let found = store.agents(&after, &[], AGENTS_AT_ONCE).await?;
        if found.is_empty() {
            break;
        }
        agents.extend(found);
    }
    let now = time::now_to_ns(Timestamp::now());
    Ok(Presence::restore(settings.timing(), &agents, listened_until, now))
}
