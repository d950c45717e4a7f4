//! Settings of a process: defaults → TOML file → `MEMHARVEST_*` environment → flags.
//!
//! A service writes one clap-derived struct that holds [`Common`] flattened. Every long flag is also a key of the
//! TOML file (in `snake_case`), and an environment variable where it names one. The lower layers are turned into flags
//! in front of the user's own, so that clap checks all of them alike.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use jiff::Timestamp;

use crate::Service;
use crate::mesh_clock::MeshClock;
use crate::tls::MeshSettings;

mod layers;
pub mod reference;
mod suggestion;

/// Exit code for bad settings: a TOML key, an environment variable or a refused combination.
pub const EXIT_BAD_SETTINGS: u8 = 64;

/// Where `--help` lists what every process has.
const HEADING: &str = "Process";

/// The settings of one process.
pub trait Settings: clap::Parser {
    /// The part that all processes share.
    fn common(&self) -> &Common;

    /// Checks what no single value can tell.
    ///
    /// # Errors
    /// A combination that the service refuses.
    fn validate(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Settings that every process has.
///
/// A service gives its own default of the admin address with
/// `#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9401")))]` on its struct.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Common {
    /// TOML file with settings; its keys are the flags' names in `snake_case`
    #[arg(long, help_heading = HEADING, value_name = "FILE", env = "MEMHARVEST_CONFIG")]
    pub config: Option<PathBuf>,

    /// Check the settings and exit
    #[arg(long, help_heading = HEADING)]
    pub check: bool,

    /// Ask the process that runs with these settings whether it is ready, and exit: 0 if it is, 1 if not
    #[arg(long, help_heading = HEADING)]
    pub healthcheck: bool,

    /// Address of the admin server: /livez, /readyz, /metrics
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT", env = "MEMHARVEST_ADMIN_LISTEN", default_value = "127.0.0.1:9400")]
    pub admin_listen: SocketAddr,

    /// Address that other processes are told to reach this one at [default: the bound address]
    #[arg(long, help_heading = HEADING, value_name = "HOST:PORT", env = "MEMHARVEST_ADVERTISE", value_parser = host_and_port)]
    pub advertise: Option<String>,

    /// Serve on addresses other than loopback without TLS and authentication
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_INSECURE")]
    pub insecure: bool,

    /// How services know each other
    #[command(flatten)]
    pub mesh: MeshSettings,

    /// Form of the log lines on stderr: human or json
    #[arg(long, help_heading = HEADING, value_enum, hide_possible_values = true, env = "MEMHARVEST_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,

    /// What to log: a level, or directives such as `info,memharvest_registry=debug`
    #[arg(long, help_heading = HEADING, value_name = "DIRECTIVES", env = "MEMHARVEST_LOG_FILTER", default_value = "info")]
    pub log_filter: String,

    /// OTLP/gRPC endpoint that traces are sent to, such as `http://127.0.0.1:4317` [default: no traces]
    #[arg(long, help_heading = HEADING, value_name = "URL", env = "MEMHARVEST_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// How long work in hand may go on after a request to stop
    #[arg(long, help_heading = HEADING, value_name = "DURATION", env = "MEMHARVEST_DRAIN_DEADLINE", default_value = "10s", value_parser = duration)]
    pub drain_deadline: Duration,

    /// Wall time at which the mesh clock and the wall clock agree (RFC 3339)
    #[arg(long, help_heading = HEADING, value_name = "TIME", env = "MEMHARVEST_CLOCK_ORIGIN")]
    pub clock_origin: Option<Timestamp>,

    /// Mesh seconds in one wall second
    #[arg(long, help_heading = HEADING, value_name = "FACTOR", env = "MEMHARVEST_CLOCK_FACTOR", default_value = "1")]
    pub clock_factor: f64,

    /// Print every setting as Markdown, for docs/configuration.md, and exit
    #[arg(long, hide = true)]
    pub reference: bool,

    /// End when stdin reaches its end: the parent holds the other end of the pipe
    #[arg(long, hide = true)]
    pub supervised: bool,
}

impl Common {
    /// The clock that readings, validity and backoff run on.
    ///
    /// # Errors
    /// A factor that is no positive number, or one other than 1 without an origin.
    pub fn mesh_clock(&self) -> Result<MeshClock, SettingsError> {
        match self.clock_origin {
            Some(origin) => MeshClock::new(origin, self.clock_factor)
                .map_err(|error| SettingsError::Refused(format!("--clock-factor: {error}"))),
            None if (self.clock_factor - 1.0).abs() < f64::EPSILON => Ok(MeshClock::real()),
            None => Err(SettingsError::Refused(
                "--clock-factor needs --clock-origin: say from when on the mesh clock runs faster".into(),
            )),
        }
    }

    /// Refuses a listener of the mesh that strangers could reach, as long as nobody has said that this is wanted. The admin listener is
    /// read-only and exempt.
    ///
    /// # Errors
    /// The address is not loopback, the mesh has no certificates, and `--insecure` is not given.
    pub fn check_mesh_listener(&self, flag: &str, address: SocketAddr) -> Result<(), SettingsError> {
        if self.mesh.is_set() { Ok(()) } else { self.check_listener(flag, address) }
    }

    /// As [`Self::check_mesh_listener`], for a listener that does not speak the mesh's TLS.
    ///
    /// # Errors
    /// The address is not loopback and `--insecure` is not given.
    pub fn check_listener(&self, flag: &str, address: SocketAddr) -> Result<(), SettingsError> {
        if address.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        Err(SettingsError::Refused(format!(
            "{flag} {address} can be reached from other machines without TLS and authentication; \
             configure them, listen on 127.0.0.1, or pass --insecure if the network protects it"
        )))
    }

    /// What others are told: `--advertise`, or the address that was bound.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| bound.to_string())
    }

    /// What others are told of the admin server: the host of `--advertise`, or the address that was bound.
    #[must_use]
    pub fn advertised_admin(&self, bound: SocketAddr) -> String {
        match self.advertise.as_deref().and_then(|advertised| advertised.rsplit_once(':')) {
            Some((host, _)) => format!("{host}:{}", bound.port()),
            None => bound.to_string(),
        }
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.mesh_clock()?;
        self.mesh.read()?;
        crate::telemetry::check(self)
    }
}

/// Settings that cannot be used; the process exits with 64.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The TOML file has a key that is no setting.
    #[error("unknown key `{key}` in {}{}", file.display(), suggestion::hint(suggestion.as_deref()))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The file.
        file: PathBuf,
        /// The nearest key that is known.
        suggestion: Option<String>,
    },
    /// A `MEMHARVEST_*` variable is no setting of this process.
    #[error("unknown environment variable {name}{}", suggestion::hint(suggestion.as_deref()))]
    UnknownVariable {
        /// The variable's name.
        name: String,
        /// The nearest name that is known.
        suggestion: Option<String>,
    },
    /// The TOML file cannot be read.
    #[error("cannot read settings from {}: {source}; check --config", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {message}", file.display())]
    NotToml {
        /// The file.
        file: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value from the TOML file or the environment does not fit its setting.
    #[error("{origin}: {message}")]
    BadValue {
        /// The variable's name, or the key and its file.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// A combination of settings that is refused.
    #[error("{0}")]
    Refused(String),
}

/// Why no settings came out of [`load`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A bad flag; also `--help` and `--version`, which clap treats alike.
    #[error("{0}")]
    Usage(clap::Error),
    /// Flags are fine, the rest is not.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Reads the settings. `args` starts with the program's name; `env` is looked at only where a name starts with
/// `MEMHARVEST_`, and an empty value counts as not set.
///
/// # Errors
/// [`LoadError::Usage`] for flags, [`LoadError::Settings`] for everything else.
pub fn load<S: Settings>(
    service: &Service,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<S, LoadError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let (command, known) =
        layers::without_environment(S::command().name(service.name).version(service.version));

    // Alone first, so that a bad flag is a usage error whatever the lower layers hold. What is required may still
    // come from them.
    let flags = command
        .clone()
        .mut_args(|arg| arg.required(false))
        .try_get_matches_from(&args)
        .map_err(LoadError::Usage)?;
    let variables = layers::variables(&known, env)?;
    let file = match (explicit(&flags, "config"), variables.get("config")) {
        (true, _) => flags.get_one::<PathBuf>("config").cloned(),
        (false, variable) => variable.and_then(|found| found.values.first()).map(PathBuf::from),
    };
    let mut lower = match &file {
        Some(file) => layers::file(&known, file)?,
        None => layers::Layer::new(),
    };
    lower.extend(variables);
    lower.retain(|id, _| !explicit(&flags, id));

    let mut all = args;
    let program_name = usize::from(!all.is_empty());
    all.splice(program_name..program_name, lower.values().flat_map(layers::Assignment::as_flags));
    let settings = command
        .try_get_matches_from(all)
        .and_then(|matches| S::from_arg_matches(&matches))
        .map_err(|error| blame(error, &lower))?;
    settings.common().validate()?;
    settings.validate()?;
    Ok(settings)
}

fn explicit(flags: &ArgMatches, id: &str) -> bool {
    flags.try_contains_id(id).is_ok() && flags.value_source(id) == Some(ValueSource::CommandLine)
}

/// Names the layer that an error of the merged settings comes from.
fn blame(error: clap::Error, lower: &layers::Layer) -> LoadError {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        Some(ContextValue::Strings(arguments)) => arguments.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let long = argument.trim_start_matches("--").split([' ', '=']).next().unwrap_or_default();
    let origin = lower.values().find(|assignment| assignment.long == long).map(|found| found.origin.clone());
    let rendered = error.render().to_string();
    let text = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let message = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match origin {
        Some(origin) => SettingsError::BadValue { origin, message }.into(),
        None if error.kind() == ErrorKind::MissingRequiredArgument => LoadError::Usage(error),
        None => SettingsError::Refused(message).into(),
    }
}

/// Parses a duration such as `5s`, `15m` or `1h30m`; for `#[arg(value_parser = duration)]`.
///
/// # Errors
/// Anything else, with an example.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration such as 5s, 15m or 2h"))
}

/// Parses the URL of a service, such as `http://127.0.0.1:7401`; for `#[arg(value_parser = service_url)]`.
///
/// # Errors
/// Anything but `http://` or `https://` with a host, with or without a port; the message tells how to write it.
pub fn service_url(text: &str) -> Result<String, String> {
    crate::rpc_client::parse_endpoint(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Parses `HOST:PORT`, where the host may be a name; for `#[arg(value_parser = host_and_port)]`.
///
/// # Errors
/// No host, or no port from 1 to 65535.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("write it as HOST:PORT")?;
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err("the part before the colon is no host; write it as HOST:PORT without a scheme".into());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("the part after the colon is no port from 1 to 65535".into()),
    }
}

/// The command with its name and version set, for `--help` snapshots and documentation.
#[must_use]
pub fn command<S: Settings>(service: &Service) -> Command {
    layers::without_environment(S::command().name(service.name).version(service.version)).0
}
