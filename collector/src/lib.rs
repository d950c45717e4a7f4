//! Host to readings: the only crate that links libvirt.
//!
//! A [`sampler`] ticks and has a [`hypervisor`] sampled on its own thread. Each reading is kept as the [`latest`], looked at by the
//! [`doctor`], and put into the [`outbox`], from which the [`reporter`] sends it to the predictor; the forecasts that
//! come back are kept ([`forecasts`]) and exported with the readings ([`exporter`]). Nothing here writes to libvirt.

pub mod answer;
pub mod collector_metrics;
pub mod doctor;
pub mod exporter;
pub mod forecasts;
pub mod host_memory;
pub mod hypervisor;
pub mod identity;
pub mod latest;
mod members;
pub mod outbox;
pub mod predictors;
pub mod probe;
pub mod quality;
pub mod reading;
pub mod reporter;
pub mod rpc;
pub mod sampler;
pub mod settings;
mod wire;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::collector_service_server::CollectorServiceServer;
use memharvest_services::Service;
use memharvest_services::admin_server::AdminServer;
use memharvest_services::listener::bind;
use memharvest_services::metrics::Metrics;
use memharvest_services::readiness::Readiness;
use memharvest_services::rpc_client::{ClientOptions, connect_lazy};
use memharvest_services::rpc_server::RpcServer;
use memharvest_services::shutdown::Stop;
use memharvest_services::tls::identity::Role;
use memharvest_trace::Trace;
use rand::rngs::StdRng;
use tokio::sync::{oneshot, watch};

use crate::collector_metrics::CollectorMetrics;
use crate::doctor::Doctor;
use crate::exporter::Exporter;
use crate::forecasts::Forecasts;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::libvirt::LibvirtHypervisor;
use crate::hypervisor::replay::ReplayHypervisor;
use crate::hypervisor::simulated::SimulatedHypervisor;
use crate::latest::Latest;
use crate::members::Members;
use crate::outbox::Outbox;
use crate::predictors::Predictors;
use crate::reading::Host;
use crate::reporter::Reporter;
use crate::rpc::CollectorRpc;
use crate::sampler::Sampler;
use crate::settings::{Clock, CollectorSettings};

pub use memharvest_services::settings::SettingsError;

/// Who this process is.
pub const SERVICE: Service = Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).on_one_thread();

/// Samples, reports and serves until `stop` is requested.
///
/// # Errors
/// A port that cannot be bound, a URL that is wrong, a trace that cannot be read, a source that can never work.
pub async fn run(settings: CollectorSettings, stop: Stop) -> anyhow::Result<()> {
    if let Some(uri) = settings.probe_libvirt {
        let found = tokio::task::spawn_blocking(move || probe::active_machines(&uri)).await??;
        #[expect(clippy::print_stdout, reason = "the answer that was asked for")]
        {
            println!("{found}");
        }
        return Ok(());
    }
    let common = &settings.common;
    let clock = settings.clock(Timestamp::now())?;
    let (kind, host) = (SourceKind::of(&settings), host_of(&settings)?);
    let source = source(&settings, kind, clock, &host)?;
    let rpc_bound = bind("--listen", settings.listen)?;
    let admin_bound = bind("--admin-listen", common.admin_listen)?;

    let metrics = Metrics::new(&SERVICE)?;
    let own_metrics = CollectorMetrics::new(&metrics, kind == SourceKind::Libvirt)?;
    let readiness = Readiness::default();
    let mesh = common.mesh.start(&metrics, &stop)?;
    if let (Some(mesh), SourceKind::Libvirt) = (&mesh, kind) {
        mesh.check_agent(Role::Collector, &host.id)?;
    }
    let clients = ClientOptions::new(&metrics, DESCRIPTORS)?.mesh(mesh.as_ref());
    let channel = |role: Role, url: &str| {
        let refused = |error| SettingsError::Refused(format!("--{role}: {error}"));
        connect_lazy(url, &clients.to(role)).map_err(refused)
    };
    let registry = channel(Role::Registry, &settings.registry)?;
    let each = settings.predictor.iter().map(|url| Ok((url.clone(), channel(Role::Predictor, url)?)));
    let predictors = Predictors::new(&host.id, each.collect::<Result<_, SettingsError>>()?);

    let (latest, forecasts, doctor) = (Latest::default(), Forecasts::default(), Doctor::new(host));
    let outbox = Outbox::new(settings.outbox_limit, metrics.queue("outbox"));
    let (interval, interval_changes) = watch::channel(settings.interval);

    let exporter = Exporter { latest: latest.clone(), forecasts: forecasts.clone(), clock: clock.mesh };
    let ready = readiness.part("readings");
    let members = Members {
        registry,
        address: common.advertised(rpc_bound.address),
        admin_address: common.advertised_admin(admin_bound.address),
        source: kind.word(),
        configured: settings.interval,
        interval,
        latest: latest.clone(),
        doctor: doctor.clone(),
    };
    let admin = AdminServer::new(&metrics, &readiness, &stop)
        .page(Arc::new(move |page| exporter.write(page)))
        .spawn(admin_bound);

    let reporter = Reporter { predictors, outbox: outbox.clone(), forecasts, metrics: own_metrics.clone() };
    stop.spawn("reporter", reporter.run(rand::make_rng::<StdRng>(), stop.clone()));
    stop.spawn("members", members.run(stop.clone()));
    let rpc = CollectorRpc { latest: latest.clone(), doctor: doctor.clone() };
    let sampler = Sampler {
        clock: clock.mesh,
        interval: interval_changes,
        latest,
        outbox,
        doctor,
        metrics: own_metrics,
        ready,
    };
    let (fatal, broken) = oneshot::channel();
    let stopping = stop.clone();
    stop.spawn("sampler", async move {
        if let Err(error) = sampler.run(source, rand::make_rng::<StdRng>(), stopping.clone()).await {
            // The receiver lives until the process has stopped.
            let _ = fatal.send(error);
            stopping.request();
        }
    });

    RpcServer::new(&metrics, DESCRIPTORS)
        .add_service(CollectorServiceServer::new(rpc))
        .mesh(mesh.as_ref())
        .serve(rpc_bound, &stop, common.drain_deadline)
        .await?;
    stop.drain(common.drain_deadline).await?;
    drop(admin);
    broken.await.map_or(Ok(()), |error| Err(error.into()))
}

/// Which source was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    Libvirt,
    Replay,
    Simulation,
}

impl SourceKind {
    fn of(settings: &CollectorSettings) -> Self {
        match (&settings.source.trace, settings.source.simulate) {
            (Some(_), _) => Self::Replay,
            (None, Some(_)) => Self::Simulation,
            (None, None) => Self::Libvirt,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt",
            Self::Replay => "replay",
            Self::Simulation => "simulation",
        }
    }
}

/// The host that this process stands on. Where the hosts come out of a trace or a generator it matters to nobody.
fn host_of(settings: &CollectorSettings) -> Result<Host, SettingsError> {
    match SourceKind::of(settings) {
        SourceKind::Libvirt => identity::host(&settings.host, Path::new("/")),
        SourceKind::Replay | SourceKind::Simulation => Ok(Host::default()),
    }
}

fn source(
    settings: &CollectorSettings,
    kind: SourceKind,
    clock: Clock,
    host: &Host,
) -> anyhow::Result<Box<dyn Hypervisor>> {
    let (source, labels) = (&settings.source, settings.host.labels());
    Ok(match (kind, &source.trace, source.simulate) {
        (SourceKind::Replay, Some(file), _) => {
            let hosts = source.trace_hosts as usize;
            Box::new(ReplayHypervisor::new(Trace::load(file)?, hosts, clock.begins, labels))
        }
        (SourceKind::Simulation, _, Some(shape)) => {
            Box::new(SimulatedHypervisor::new(source.seed, shape, clock.begins, labels))
        }
        _ => Box::new(LibvirtHypervisor::new(&source.libvirt_uri, host.clone(), Path::new("/proc"))),
    })
}
