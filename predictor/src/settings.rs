//! Every setting of the predictor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use memharvest_services::settings::{
    Common, Settings as ServiceSettings, SettingsError, duration, service_url,
};

use crate::model::choice::{Choice, ChoiceError};

/// Forecasts what virtual machines will use, says what can be harvested, and answers for both.
#[derive(Clone, Debug, Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9402")))]
pub struct Settings {
    /// Address of the gRPC server
    #[arg(long, env = "MEMHARVEST_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:7402")]
    pub listen: SocketAddr,

    /// The registry that keeps what must last
    #[arg(long, env = "MEMHARVEST_REGISTRY", value_name = "URL", value_parser = service_url, default_value = "http://127.0.0.1:7401")]
    pub registry: String,

    /// Folder of the state file (records that the registry has not acknowledged, boundaries as last heard) and of the
    /// machines' snapshots
    #[arg(long, env = "MEMHARVEST_DATA_DIR", value_name = "DIR", default_value = ".")]
    pub data_dir: PathBuf,

    /// Largest size of the records that wait for the registry, in MiB; beyond it the oldest roll-ups are dropped
    #[arg(long, env = "MEMHARVEST_OUTBOX_LIMIT_MIB", value_name = "MIB", default_value_t = 1024)]
    pub outbox_limit_mib: u64,

    /// How often the state of every machine is saved to the data folder: a restart loses at most this much of what
    /// was learnt
    #[arg(long, env = "MEMHARVEST_SNAPSHOT_INTERVAL", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub snapshot_interval: Duration,

    /// Identity of this predictor; default: the host's name
    #[arg(long, env = "MEMHARVEST_PREDICTOR_ID", value_name = "ID")]
    pub predictor_id: Option<String>,

    /// History that a machine needs before anything is harvested from it; all of it at twelve times that
    #[arg(long, env = "MEMHARVEST_COLD_START", value_name = "DURATION", default_value = "2h", value_parser = duration)]
    pub cold_start: Duration,

    /// What forecasts: `cqd`, or one of the others with its margin, as in `max_24h:0.15`, to see how it would do
    #[arg(long, env = "MEMHARVEST_MODEL", value_name = "NAME", default_value = "cqd", value_parser = live_model)]
    pub model: Choice,

    /// What every process of the mesh has
    #[command(flatten)]
    pub common: Common,
}

/// A model that needs nothing but the past.
fn live_model(text: &str) -> Result<Choice, String> {
    let choice: Choice = text.parse().map_err(|error: ChoiceError| error.to_string())?;
    if choice.needs_future() {
        return Err(format!("`{choice}` has to know the future; it is for `memharvest backtest` alone"));
    }
    Ok(choice)
}

impl ServiceSettings for Settings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.common.mesh.check_url("--registry", &self.registry)?;
        self.common.check_mesh_listener("--listen", self.listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_model_may_run_live_but_one_that_knows_the_future() {
        assert_eq!(live_model("n_sigma_2h:3").unwrap().to_string(), "n_sigma_2h:3");
        assert!(live_model("oracle").unwrap_err().contains("has to know the future"));
        assert!(live_model("lstm").unwrap_err().contains("use one of cqd, "));
    }
}
