//! The smallest service: health and reflection on one port, probes and metrics on another.

use std::net::SocketAddr;
use std::process::ExitCode;

use memharvest_services::admin_server::AdminServer;
use memharvest_services::metrics::Metrics;
use memharvest_services::readiness::Readiness;
use memharvest_services::rpc_server::RpcServer;
use memharvest_services::settings::{Common, Settings, SettingsError};
use memharvest_services::shutdown::Stop;
use memharvest_services::{Service, listener, process};

const SERVICE: Service = Service::new("memharvest-minimal", env!("CARGO_PKG_VERSION"));

/// Serves nothing but its own health
#[derive(Debug, clap::Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9400")))]
struct MinimalSettings {
    #[command(flatten)]
    common: Common,

    /// Address that gRPC is served on
    #[arg(long, value_name = "ADDR:PORT", env = "MEMHARVEST_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
}

impl Settings for MinimalSettings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.common.check_listener("--listen", self.listen)
    }
}

async fn run(settings: MinimalSettings, stop: Stop) -> anyhow::Result<()> {
    let bound = listener::bind("--listen", settings.listen)?;
    let admin_bound = listener::bind("--admin-listen", settings.common.admin_listen)?;
    let (address, admin_address) = (bound.address, admin_bound.address);

    let metrics = Metrics::new(&SERVICE)?;
    let readiness = Readiness::default();
    let store = readiness.part("store");
    let _admin = AdminServer::new(&metrics, &readiness, &stop).spawn(admin_bound);
    store.ready();
    tracing::info!(listen = %address, admin_listen = %admin_address, "serving");
    RpcServer::new(&metrics, &[]).serve(bound, &stop, settings.common.drain_deadline).await?;
    Ok(())
}

fn main() -> ExitCode {
    process::main(SERVICE, run)
}
