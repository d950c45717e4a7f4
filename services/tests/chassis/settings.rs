use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::settings::{self, Common, LoadError, Settings, SettingsError};

use crate::support::SERVICE;

/// A service of the tests
#[derive(Debug, clap::Parser)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9401")))]
struct TestSettings {
    #[command(flatten)]
    common: Common,

    /// Where to listen
    #[arg(long, env = "MEMHARVEST_LISTEN", default_value = "127.0.0.1:7401")]
    listen: SocketAddr,

    /// Labels
    #[arg(long = "label", value_name = "K=V", env = "MEMHARVEST_LABEL")]
    labels: Vec<String>,

    /// Needed
    #[arg(long, env = "MEMHARVEST_REGISTRY")]
    registry: String,

    /// One source
    #[arg(long, env = "MEMHARVEST_TRACE", conflicts_with = "simulate")]
    trace: Option<String>,

    /// Another source
    #[arg(long, env = "MEMHARVEST_SIMULATE")]
    simulate: Option<String>,

    /// How often
    #[arg(long, env = "MEMHARVEST_INTERVAL", default_value = "5s", value_parser = settings::duration)]
    interval: Duration,

    #[command(subcommand)]
    command: Option<TestCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum TestCommand {
    /// Copy
    Backup {
        /// To where
        #[arg(long, env = "MEMHARVEST_BACKUP_TO")]
        to: String,
    },
}

impl Settings for TestSettings {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.common.check_listener("--listen", self.listen)
    }
}

fn load(args: &[&str], env: &[(&str, &str)]) -> Result<TestSettings, LoadError> {
    let args = std::iter::once("test").chain(args.iter().copied()).map(OsString::from);
    settings::load(&SERVICE, args, env.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The message, and whether the exit code is 64 rather than 2.
fn refusal(args: &[&str], env: &[(&str, &str)]) -> (bool, String) {
    match load(args, env).expect_err("refused") {
        LoadError::Usage(error) => (false, error.to_string()),
        LoadError::Settings(error) => (true, error.to_string()),
    }
}

fn toml(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let (_file, path) =
        toml("interval = '1s'\nlisten = '127.0.0.1:1'\nregistry = 'file'\ndrain_deadline = '3s'");
    let settings = load(
        &["--config", &path, "--interval", "3s"],
        &[("MEMHARVEST_INTERVAL", "2s"), ("MEMHARVEST_REGISTRY", "environment"), ("HOME", "/root")],
    )
    .unwrap();
    assert_eq!(settings.interval, Duration::from_secs(3));
    assert_eq!(settings.registry, "environment");
    assert_eq!(settings.listen.port(), 1);
    assert_eq!(settings.common.drain_deadline, Duration::from_secs(3));
    assert_eq!(settings.common.admin_listen.port(), 9401);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let (_file, path) = toml("registry = 'file'\ninsecure = true\nlisten = '0.0.0.0:1'");
    assert_eq!(load(&[], &[("MEMHARVEST_CONFIG", &path)]).unwrap().registry, "file");
    let (is_settings, message) = refusal(&["--config", "/nowhere.toml"], &[]);
    assert!(
        is_settings && message.starts_with("cannot read settings from /nowhere.toml: No such file"),
        "{message}"
    );
}

#[test]
fn lists_and_tables_become_several_values() {
    let (_file, path) = toml("registry = 'r'\n[labels]\nrack = 'r1'\nslot = 7");
    assert_eq!(load(&["--config", &path], &[]).unwrap().labels, ["rack=r1", "slot=7"]);
    let (_file, path) = toml("registry = 'r'\nlabel = ['rack=r1', 'zone=a']");
    assert_eq!(load(&["--config", &path], &[]).unwrap().labels, ["rack=r1", "zone=a"]);
    let env = [("MEMHARVEST_LABEL", "rack=r2, zone=b"), ("MEMHARVEST_REGISTRY", "r")];
    assert_eq!(load(&["--config", &path], &env).unwrap().labels, ["rack=r2", "zone=b"]);
    assert_eq!(load(&["--config", &path, "--label", "rack=r3"], &env).unwrap().labels, ["rack=r3"]);
}

#[test]
fn strangers_are_refused_by_name() {
    let (_file, path) = toml("registry = 'r'\nintervall = '5s'");
    let (is_settings, message) = refusal(&["--config", &path], &[]);
    assert!(is_settings);
    assert_eq!(message, format!("unknown key `intervall` in {path}; did you mean `interval`?"));
    let (is_settings, message) = refusal(&[], &[("MEMHARVEST_LISTN", "x")]);
    assert!(is_settings);
    assert_eq!(message, "unknown environment variable MEMHARVEST_LISTN; did you mean `MEMHARVEST_LISTEN`?");
    for hidden in ["check = true", "supervised = true", "config = 'x'"] {
        let (_file, path) = toml(hidden);
        assert!(refusal(&["--config", &path], &[]).1.starts_with("unknown key"), "{hidden}");
    }
}

#[test]
fn kubernetes_own_variables_are_let_through() {
    let links = [
        ("MEMHARVEST_REGISTRY_SERVICE_HOST", "10.0.0.1"),
        ("MEMHARVEST_REGISTRY_SERVICE_PORT", "7401"),
        ("MEMHARVEST_REGISTRY_SERVICE_PORT_GRPC", "7401"),
        ("MEMHARVEST_REGISTRY_PORT", "tcp://10.0.0.1:7401"),
        ("MEMHARVEST_REGISTRY_PORT_7401_TCP", "tcp://10.0.0.1:7401"),
        ("MEMHARVEST_REGISTRY_PORT_7401_TCP_ADDR", "10.0.0.1"),
        ("MEMHARVEST_REGISTRY_PORT_7401_TCP_PORT", "7401"),
        ("MEMHARVEST_REGISTRY_PORT_7401_TCP_PROTO", "tcp"),
        ("MEMHARVEST_BACKUP_TO", "/for/a/subcommand"),
    ];
    assert_eq!(load(&["--registry", "r"], &links).unwrap().registry, "r");
    assert!(refusal(&["--registry", "r"], &[("MEMHARVEST_REGISTRY_PORT", "7401")]).0);
}

#[test]
fn a_bad_value_names_where_it_comes_from() {
    let registry = ("MEMHARVEST_REGISTRY", "r");
    let (is_settings, message) = refusal(&[], &[registry, ("MEMHARVEST_INTERVAL", "soon")]);
    assert!(
        is_settings && message.starts_with("MEMHARVEST_INTERVAL: invalid value 'soon' for '--interval"),
        "{message}"
    );
    assert!(message.ends_with("write a duration such as 5s, 15m or 2h"), "{message}");
    for (text, wanted) in [
        ("listen = 7401", "`listen` in "),
        ("listen = ['127.0.0.1:1', '127.0.0.1:2']", "takes one value, not a list"),
        ("insecure = 'yes'", "is a switch; write true or false"),
        ("labels = { a = { b = 1 } }", "is nested too deep"),
        ("labels = ['a=1']\nlabel = ['b=2']", "is set twice"),
        ("listen = ", "is not valid TOML: line 1"),
    ] {
        let (_file, path) = toml(text);
        let (is_settings, message) = refusal(&["--config", &path], &[registry]);
        assert!(is_settings && message.contains(wanted) && !message.contains('\n'), "{text}: {message}");
    }
}

#[test]
fn a_bad_flag_is_a_usage_error_whatever_the_environment_holds() {
    let (is_settings, message) = refusal(&["--lissten", "x"], &[("MEMHARVEST_NONSENSE", "x")]);
    assert!(!is_settings && message.contains("--listen"), "{message}");
    assert!(!refusal(&["--interval", "soon"], &[]).0);
    assert!(!refusal(&[], &[]).0, "what is required and nowhere given is a usage error");
}

#[test]
fn layers_that_contradict_each_other_are_refused() {
    let env = [("MEMHARVEST_REGISTRY", "r"), ("MEMHARVEST_TRACE", "a.csv"), ("MEMHARVEST_SIMULATE", "2x3")];
    let (is_settings, message) = refusal(&[], &env);
    assert!(is_settings && message.contains("cannot be used with"), "{message}");
}

#[test]
fn others_may_not_reach_a_listener_unless_somebody_wants_it() {
    let open = ["--registry", "r", "--listen", "0.0.0.0:7401"];
    let (is_settings, message) = refusal(&open, &[]);
    assert!(is_settings && message.contains("--insecure"), "{message}");
    assert!(load(&open, &[("MEMHARVEST_INSECURE", "true")]).unwrap().common.insecure);
    assert!(!load(&["--registry", "r"], &[("MEMHARVEST_INSECURE", "false")]).unwrap().common.insecure);
    assert!(load(&["--registry", "r", "--listen", "[::1]:1", "--admin-listen", "0.0.0.0:1"], &[]).is_ok());
}

#[test]
fn the_mesh_clock_needs_an_origin_to_run_faster() {
    let (is_settings, message) = refusal(&["--registry", "r", "--clock-factor", "60"], &[]);
    assert!(is_settings && message.contains("--clock-origin"), "{message}");
    let origin = "2026-01-01T00:00:00Z";
    let fast = load(&["--registry", "r", "--clock-factor", "60", "--clock-origin", origin], &[]).unwrap();
    let minute_later: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    assert_eq!(fast.common.mesh_clock().unwrap().mesh_of(minute_later).to_string(), "2026-01-01T01:00:00Z");
    assert!(refusal(&["--registry", "r", "--clock-factor", "0", "--clock-origin", origin], &[]).0);
}

#[test]
fn settings_that_telemetry_could_not_use_are_refused() {
    assert!(refusal(&["--registry", "r", "--log-filter", "info,a=b=c"], &[]).1.contains("--log-filter"));
    assert!(refusal(&["--registry", "r", "--otlp-endpoint", "127.0.0.1:4317"], &[]).1.contains("http://"));
}

#[test]
fn subcommands_stand_beside_the_settings() {
    let settings = load(&["backup", "--to", "x"], &[("MEMHARVEST_REGISTRY", "r")]).unwrap();
    assert!(matches!(settings.command, Some(TestCommand::Backup { to }) if to == "x"));
}

#[test]
fn help_and_version_tell_what_there_is() {
    let (is_settings, help) = refusal(&["--help"], &[]);
    assert!(!is_settings);
    assert!(help.contains("Where to listen [env: MEMHARVEST_LISTEN] [default: 127.0.0.1:7401]"), "{help}");
    assert!(!help.contains("--supervised"));
    assert_eq!(refusal(&["--version"], &[]).1, "memharvest-test 1.2.3\n");
}

#[test]
fn advertised_addresses_have_a_host_and_a_port() {
    for fine in ["10.0.0.1:7401", "registry.mesh:1", "[::1]:80"] {
        assert_eq!(settings::host_and_port(fine).as_deref(), Ok(fine));
    }
    for wrong in ["registry", ":7401", "registry:0", "registry:x", "http://registry:7401", "a b:1"] {
        assert!(settings::host_and_port(wrong).is_err(), "{wrong}");
    }
    let common = load(&["--registry", "r"], &[]).unwrap().common;
    assert_eq!(common.advertised(SocketAddr::from(([127, 0, 0, 1], 9))), "127.0.0.1:9");
}
