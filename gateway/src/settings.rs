//! Every setting of the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use memharvest_services::settings::{
    Common, Settings as ServiceSettings, SettingsError, duration, service_url,
};

use crate::access::AccessSettings;
use crate::host_guard::Origin;

/// The fleet on one port, for people, scripts, browsers and Prometheus.
#[derive(Clone, Debug, Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9404")))]
pub struct Settings {
    /// Address of REST, gRPC, grpc-web and Prometheus' fleet metrics
    #[arg(long, env = "MEMHARVEST_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// A predictor whose live state is shown; repeat it for several
    #[arg(long, env = "MEMHARVEST_PREDICTOR", value_name = "URL", value_parser = service_url, default_value = "http://127.0.0.1:7402", action = clap::ArgAction::Append)]
    pub predictor: Vec<String>,

    /// The registry that keeps what must last
    #[arg(long, env = "MEMHARVEST_REGISTRY", value_name = "URL", value_parser = service_url, default_value = "http://127.0.0.1:7401")]
    pub registry: String,

    /// How often the registry is asked for agents and for the number of violations
    #[arg(long, env = "MEMHARVEST_REGISTRY_POLL", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub registry_poll: Duration,

    /// Another host name that this gateway answers to, beside loopback and the listen address; repeat it for several
    #[arg(long, env = "MEMHARVEST_ALLOWED_HOST", value_name = "HOST", value_parser = host_name)]
    pub allowed_host: Vec<String>,

    /// An origin whose web pages may call this gateway, such as <https://ops.example.org>; repeat it for several
    #[arg(long, env = "MEMHARVEST_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Vec<Origin>,

    /// Who is let in
    #[command(flatten)]
    pub access: AccessSettings,

    /// Identity of this gateway [default: gateway- and the host's name]
    #[arg(long, env = "MEMHARVEST_GATEWAY_ID", value_name = "ID")]
    pub gateway_id: Option<String>,

    /// What every process of the mesh has
    #[command(flatten)]
    pub common: Common,
}

impl ServiceSettings for Settings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        if self.registry_poll < Duration::from_millis(10) {
            return Err(SettingsError::Refused("--registry-poll is shorter than 10ms; try 2s".into()));
        }
        self.common.mesh.check_url("--registry", &self.registry)?;
        self.predictor.iter().try_for_each(|url| self.common.mesh.check_url("--predictor", url))?;
        self.access.validate()?;
        let protected = self.access.tls()?.is_some() && self.access.asks();
        if protected { Ok(()) } else { self.common.check_listener("--listen", self.listen) }
    }
}

fn host_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', ' ', '@']) {
        return Err("write a host name or address without a scheme, such as memharvest.example.org".into());
    }
    Ok(text.to_ascii_lowercase())
}
