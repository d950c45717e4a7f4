//! Live state and the store, for people, scripts, browsers and Prometheus: REST, gRPC and grpc-web on one port.
//!
//! The gateway keeps nothing of its own. What is now comes from the predictors' streams and is held in memory ([`live`]),
//! what lasts comes from the registry; [`rest`] and `grpc` are two ways to say the same.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Extension;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::gateway::v1::fleet_service_server::FleetServiceServer;
use memharvest_proto::registry::v1::{AgentKind, RegisterAgentRequest};
use memharvest_services::admin_server::{AdminHandle, AdminServer};
use memharvest_services::listener::bind;
use memharvest_services::metrics::Metrics;
use memharvest_services::readiness::Readiness;
use memharvest_services::rpc_server::RpcServer;
use memharvest_services::shutdown::Stop;
use memharvest_services::{Service, membership};
use prometheus::{IntGaugeVec, Opts};
use tokio::sync::oneshot;

mod access;
mod browser_access;
mod discovery;
mod docs;
mod federation;
mod fleet_metrics;
mod grpc;
mod host_guard;
pub mod live;
mod page;
pub mod rest;
mod settings;
mod ui;
pub mod upstream;
mod wire;

pub use access::AccessSettings;
pub use host_guard::Origin;
pub use settings::Settings;

use access::Access;
use grpc::{FleetApi, Forward, services};
use host_guard::HostGuard;
use live::Live;
use live::predictor_watch::PredictorWatch;
use live::registry_mirror::RegistryMirror;
use rest::{App, HttpMetrics};
use upstream::Upstream;

/// Who this process is.
pub const SERVICE: Service = Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    /// Where REST, gRPC and grpc-web listen.
    pub address: SocketAddr,
    /// Where its own metrics and probes listen.
    pub admin_address: SocketAddr,
    served: oneshot::Receiver<anyhow::Result<()>>,
    admin: AdminHandle,
}

impl Running {
    /// Waits until it was asked to stop and has served what was in flight.
    ///
    /// # Errors
    /// The server broke.
    pub async fn finished(self) -> anyhow::Result<()> {
        let outcome = self.served.await.context("the server's task was dropped")?;
        drop(self.admin);
        outcome
    }
}

/// Binds its addresses and serves in tasks of `stop`.
///
/// # Errors
/// An address is taken, or a URL is wrong.
pub fn start(settings: &Settings, stop: &Stop) -> anyhow::Result<Running> {
    let common = &settings.common;
    let bound = bind("--listen", settings.listen)?;
    let admin_bound = bind("--admin-listen", common.admin_listen)?;
    let (address, admin_address) = (bound.address, admin_bound.address);

    let metrics = Metrics::new(&SERVICE)?;
    let readiness = Readiness::default();
    let mesh = common.mesh.start(&metrics, stop)?;
    let app = App {
        live: Live::new(settings.predictor.len(), common.mesh_clock()?),
        upstream: Upstream::new(&settings.registry, &settings.predictor, mesh.as_ref(), &metrics)
            .context("--registry or --predictor")?,
    };
    let admin = AdminServer::new(&metrics, &readiness, stop);
    feed(settings, &app, &metrics, &readiness, stop)?;
    let me = identity(settings, address, admin_address);
    let registry = app.upstream.registry.clone();
    stop.spawn("membership", membership::keep(registry, me, Vec::new, |_| {}, stop.clone()));

    let guard = HostGuard::new(address, &settings.allowed_host, &settings.cors_origin);
    let access = Access::start(&settings.access, &app.upstream.registry, stop);
    let origins = settings.cors_origin.clone();
    let tls = settings.access.tls()?;
    if let Some(tls) = &tls {
        tls.keep_fresh(&metrics, stop);
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let whole = server(&app, &access, &metrics)
        .tls(tls)
        .http(
            rest::router(app, HttpMetrics::register(&metrics)?, admin.clone())
                .layer(Extension(access.clone())),
        )
        .grpc_web()
        .around(move |routes| browser_access::protect(routes, access, guard, &origins));
    let (outcome_told, served) = oneshot::channel();
    let (serving, drain_deadline) = (stop.clone(), common.drain_deadline);
    stop.spawn("server", async move {
        let outcome = whole.serve(bound, &serving, drain_deadline).await;
        // Nobody waits where only the stop matters.
        let _ = outcome_told.send(outcome.map_err(Into::into));
        serving.request();
    });
    tracing::info!(%address, %admin_address, "the gateway serves {scheme}://{address}");
    Ok(Running { address, admin_address, served, admin: admin.spawn(admin_bound) })
}

/// Runs until asked to stop.
///
/// # Errors
/// An address is taken, a URL is wrong, or the server broke.
pub async fn run(settings: Settings, stop: Stop) -> anyhow::Result<()> {
    start(&settings, &stop)?.finished().await
}

fn server(app: &App, access: &Access, metrics: &Metrics) -> RpcServer {
    let upstream = &app.upstream;
    RpcServer::new(metrics, DESCRIPTORS)
        .add_service(FleetServiceServer::new(FleetApi::new(app, access)))
        .add_service(Forward::<services::Agents>::new(upstream))
        .add_service(Forward::<services::Audit>::new(upstream))
        .add_service(Forward::<services::Boundaries>::new(upstream))
        .add_service(Forward::<services::Harvest>::new(upstream))
        .add_service(Forward::<services::Leases>::new(upstream))
        .add_service(Forward::<services::Tokens>::new(upstream))
        .add_service(Forward::<services::Violations>::new(upstream))
        .add_service(Forward::<services::Predictor>::new(upstream))
}

/// Starts what keeps the live state.
fn feed(
    settings: &Settings,
    app: &App,
    metrics: &Metrics,
    readiness: &Readiness,
    stop: &Stop,
) -> anyhow::Result<()> {
    let help = "Whether the live state of a predictor is complete and followed.";
    let connected =
        IntGaugeVec::new(Opts::new("memharvest_gateway_predictor_connected", help), &["endpoint"])?;
    metrics.registry().register(Box::new(connected.clone()))?;
    stop.spawn("live state", app.live.clone().publish(stop.clone()));
    for (place, url) in settings.predictor.iter().enumerate() {
        let watch = PredictorWatch {
            live: app.live.clone(),
            upstream: app.upstream.clone(),
            place,
            url: url.clone(),
            connected: connected.with_label_values(&[url]),
            asked: readiness.part(&format!("predictor {url}")),
        };
        stop.spawn("predictor watch", watch.run(stop.clone()));
    }
    let mirror = RegistryMirror {
        live: app.live.clone(),
        upstream: app.upstream.clone(),
        every: settings.registry_poll,
        asked: readiness.part("registry"),
    };
    stop.spawn("registry mirror", mirror.run(stop.clone()));
    Ok(())
}

fn identity(settings: &Settings, address: SocketAddr, admin_address: SocketAddr) -> RegisterAgentRequest {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned());
    RegisterAgentRequest {
        agent_id: settings.gateway_id.clone().unwrap_or_else(|| format!("gateway-{name}")),
        kind: AgentKind::Gateway.into(),
        name,
        version: SERVICE.version.to_owned(),
        instance_id: uuid::Uuid::new_v4().to_string(),
        address: settings.common.advertised(address),
        admin_address: settings.common.advertised_admin(admin_address),
        ..RegisterAgentRequest::default()
    }
}
