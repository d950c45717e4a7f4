//! The settings of a collector.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::settings::{Common, Settings, SettingsError, duration, service_url};

/// Drivers that a libvirt URI can name, with or without a transport behind a `+`.
const DRIVERS: [&str; 16] = [
    "qemu",
    "test",
    "xen",
    "lxc",
    "ch",
    "bhyve",
    "vz",
    "openvz",
    "vbox",
    "esx",
    "gsx",
    "vpx",
    "hyperv",
    "vmwareplayer",
    "vmwarews",
    "vmwarefusion",
];

/// Samples the virtual machines of a host, reports them to a predictor, and exports what comes back.
#[derive(Debug, Clone, clap::Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9403")))]
pub struct CollectorSettings {
    /// Address of the gRPC server
    #[arg(long, value_name = "ADDR:PORT", env = "MEMHARVEST_LISTEN", default_value = "127.0.0.1:7403")]
    pub listen: SocketAddr,

    /// Predictor that readings are sent to; repeat it for several: hosts are spread over those whose names are known to DNS
    #[arg(long, value_name = "URL", value_parser = service_url, env = "MEMHARVEST_PREDICTOR", default_value = "http://127.0.0.1:7402", action = clap::ArgAction::Append)]
    pub predictor: Vec<String>,

    /// Registry that this host is made known to
    #[arg(long, value_name = "URL", value_parser = service_url, env = "MEMHARVEST_REGISTRY", default_value = "http://127.0.0.1:7401")]
    pub registry: String,

    /// How often to sample, in mesh time; the registry may ask for another interval
    #[arg(long, value_name = "DURATION", env = "MEMHARVEST_INTERVAL", default_value = "5s", value_parser = duration)]
    pub interval: Duration,

    /// Readings of machines that are kept while the predictor is away; beyond it the oldest are dropped
    #[arg(long, value_name = "COUNT", env = "MEMHARVEST_OUTBOX_LIMIT", default_value_t = 30_000)]
    pub outbox_limit: usize,

    /// Print how many machines are active on this hypervisor, and exit; for `memharvest up`
    #[arg(long, value_name = "URI", hide = true)]
    pub probe_libvirt: Option<String>,

    /// Where the machines are
    #[command(flatten)]
    pub source: SourceSettings,

    /// Who the host is
    #[command(flatten)]
    pub host: HostSettings,

    /// What every process has
    #[command(flatten)]
    pub common: Common,
}

/// Where the machines are.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Source")]
pub struct SourceSettings {
    /// Machines of a hypervisor; the connection is read-only
    #[arg(long, value_name = "URI", env = "MEMHARVEST_LIBVIRT_URI", default_value = "qemu:///system", conflicts_with_all = ["trace", "simulate"])]
    pub libvirt_uri: String,

    /// Replay this trace (CSV, plain or gzipped) as if it happened now
    #[arg(long, value_name = "FILE", env = "MEMHARVEST_TRACE", conflicts_with = "simulate")]
    pub trace: Option<PathBuf>,

    /// Hosts that the machines of a trace are spread over
    #[arg(long, value_name = "COUNT", env = "MEMHARVEST_TRACE_HOSTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub trace_hosts: u32,

    /// How many times faster than life to replay or simulate; the same as a clock factor from now on
    #[arg(long, value_name = "FACTOR", env = "MEMHARVEST_SPEED")]
    pub speed: Option<f64>,

    /// Invent hosts and machines: 2x5 is two hosts with five machines each
    #[arg(long, value_name = "HOSTSxVMS", env = "MEMHARVEST_SIMULATE")]
    pub simulate: Option<Shape>,

    /// Seed of the invented machines; the same seed invents the same machines
    #[arg(long, value_name = "NUMBER", env = "MEMHARVEST_SEED", default_value_t = 1)]
    pub seed: u64,
}

/// Who the host is.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Host")]
pub struct HostSettings {
    /// Stable identity of this host [default: /etc/machine-id]
    #[arg(long, value_name = "ID", env = "MEMHARVEST_HOST_ID", value_parser = host_id)]
    pub host_id: Option<String>,

    /// Name of this host for people [default: the host name]
    #[arg(long, value_name = "NAME", env = "MEMHARVEST_HOST_NAME")]
    pub host_name: Option<String>,

    /// A label of this host, such as rack=r7; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", env = "MEMHARVEST_LABEL", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

impl HostSettings {
    /// The labels by key; the last value given for a key counts.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

/// How many hosts are invented, and how many machines on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Hosts, 1 or more.
    pub hosts: u32,
    /// Machines on each host, 1 or more.
    pub vms: u32,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once(['x', 'X'])
            .and_then(|(hosts, vms)| Some((hosts.parse().ok()?, vms.parse().ok()?)));
        match parsed {
            Some((hosts @ 1.., vms @ 1..)) => Ok(Self { hosts, vms }),
            _ => Err("write HOSTSxVMS, such as 2x5 for two hosts with five machines each".into()),
        }
    }
}

/// The mesh clock of a collector, and where on it the source begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// The clock.
    pub mesh: MeshClock,
    /// Mesh time at which a replay or a simulation stands at its beginning.
    pub begins: Timestamp,
}

impl CollectorSettings {
    /// The clock to sample on, where the process started at `now`.
    ///
    /// # Errors
    /// A speed that no clock can run at, or one that contradicts the mesh clock.
    pub fn clock(&self, now: Timestamp) -> Result<Clock, SettingsError> {
        let mesh = self.common.mesh_clock()?;
        let begins = self.common.clock_origin.unwrap_or(now);
        let Some(speed) = self.source.speed else { return Ok(Clock { mesh, begins }) };
        if self.common.clock_origin.is_some() && (mesh.factor() - speed).abs() > f64::EPSILON {
            return Err(SettingsError::Refused(format!(
                "--speed {speed} contradicts --clock-factor {}; leave --speed out",
                mesh.factor()
            )));
        }
        let mesh = MeshClock::new(begins, speed)
            .map_err(|error| SettingsError::Refused(format!("--speed: {error}")))?;
        Ok(Clock { mesh, begins })
    }

    fn is_live(&self) -> bool {
        self.source.trace.is_none() && self.source.simulate.is_none()
    }
}

impl Settings for CollectorSettings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.common.check_mesh_listener("--listen", self.listen)?;
        self.common.mesh.check_url("--registry", &self.registry)?;
        self.predictor.iter().try_for_each(|url| self.common.mesh.check_url("--predictor", url))?;
        if self.interval < Duration::from_millis(100) {
            return Err(SettingsError::Refused("--interval must be at least 100ms".into()));
        }
        if self.outbox_limit == 0 {
            return Err(SettingsError::Refused("--outbox-limit must be at least 1".into()));
        }
        let clock = self.clock(Timestamp::UNIX_EPOCH)?;
        if !self.is_live() {
            return Ok(());
        }
        check_uri(&self.source.libvirt_uri)?;
        if clock.mesh.is_real() {
            return Ok(());
        }
        Err(SettingsError::Refused(
            "real machines live in real time: --speed and --clock-factor need --trace or --simulate".into(),
        ))
    }
}

/// Refuses a URI that no libvirt could ever serve.
fn check_uri(uri: &str) -> Result<(), SettingsError> {
    let refused = |message: String| Err(SettingsError::Refused(message));
    let Some((scheme, _)) = uri.split_once("://") else {
        return refused(format!("--libvirt-uri `{uri}` is no URI; write it like qemu:///system"));
    };
    let driver = scheme.split('+').next().unwrap_or_default();
    if DRIVERS.contains(&driver) {
        return Ok(());
    }
    refused(format!("--libvirt-uri `{uri}`: libvirt has no driver `{driver}`; for KVM write qemu:///system"))
}

/// Parses the identity of a host.
fn host_id(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 128 characters of A-Z a-z 0-9 . _ -".into())
    }
}

/// Parses a label.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write KEY=VALUE, such as rack=r7".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use memharvest_services::Service;
    use memharvest_services::settings::{LoadError, load};

    use super::*;

    const SERVICE: Service = Service::new("memharvest-collector", "0.0.0");

    fn settings(flags: &[&str]) -> Result<CollectorSettings, LoadError> {
        let args = std::iter::once("memharvest-collector").chain(flags.iter().copied()).map(OsString::from);
        load(&SERVICE, args, [])
    }

    fn refusal(flags: &[&str]) -> String {
        match settings(flags) {
            Err(LoadError::Settings(error)) => error.to_string(),
            other => panic!("{flags:?}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7403");
        assert_eq!(settings.common.admin_listen.to_string(), "127.0.0.1:9403");
        assert_eq!(settings.source.libvirt_uri, "qemu:///system");
        assert_eq!(settings.interval, Duration::from_secs(5));
    }

    #[test]
    fn what_can_never_work_is_refused_with_a_cure() {
        assert!(refusal(&["--libvirt-uri", "foo:///system"]).contains("no driver `foo`"));
        assert!(refusal(&["--libvirt-uri", "system"]).contains("qemu:///system"));
        assert!(refusal(&["--interval", "1ms"]).contains("100ms"));
        assert!(refusal(&["--listen", "0.0.0.0:7403"]).contains("--insecure"));
        assert!(refusal(&["--speed", "60"]).contains("--trace or --simulate"));
        assert!(refusal(&["--simulate", "1x1", "--speed", "0"]).contains("--speed"));
        let both = [
            "--simulate",
            "1x1",
            "--speed",
            "2",
            "--clock-factor",
            "3",
            "--clock-origin",
            "2026-01-01T00:00:00Z",
        ];
        assert!(refusal(&both).contains("contradicts"));
    }

    #[test]
    fn usage_errors_are_told_as_such() {
        let wrong: [&[&str]; 5] = [
            &["--simulate", "3"],
            &["--label", "rack"],
            &["--host-id", "a b"],
            &["--trace", "a.csv", "--simulate", "1x1"],
            &["--trace", "a.csv", "--libvirt-uri", "qemu:///system"],
        ];
        for flags in wrong {
            assert!(matches!(settings(flags), Err(LoadError::Usage(_))), "{flags:?}");
        }
    }

    #[test]
    fn a_replay_begins_where_the_mesh_clock_does() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let alone = settings(&["--trace", "a.csv", "--speed", "60"]).unwrap().clock(now).unwrap();
        assert_eq!(alone.begins, now);
        assert_eq!(alone.mesh.mesh_of(now), now);
        assert!((alone.mesh.factor() - 60.0).abs() < f64::EPSILON);
        let flags = ["--trace", "a.csv", "--clock-factor", "60", "--clock-origin", "2026-01-01T00:00:00Z"];
        let shared = settings(&flags).unwrap().clock(now).unwrap();
        assert_eq!(shared.begins, "2026-01-01T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn labels_are_pairs_and_the_last_one_counts() {
        let settings = settings(&["--label", "rack=r7", "--label", "tier=", "--label", "rack=r8=x"]).unwrap();
        let expected =
            [("rack", "r8=x"), ("tier", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(settings.host.labels(), BTreeMap::from(expected));
    }
}
