//! `memharvest up`: the whole mesh on one machine, for as long as this process lives.

mod binaries;
mod data_dir;
mod error;
pub(crate) mod keeper;
mod mesh;
mod plan;
mod ports;
mod probe;
mod screen;
mod source;
pub(crate) mod state_file;
mod supervisor;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::client::Gateway;
use crate::format::{count, span};
use binaries::Binaries;
use data_dir::DataDir;
pub(crate) use error::UpError;
use mesh::Mesh;
use plan::Plan;
use ports::Ports;
use screen::{Clock, Screen};
use source::{Outline, Pace, Shape, Source};

/// Start the whole mesh on this machine: registry, predictor, collector and gateway
///
/// Without a source it looks for running machines on `qemu:///system`, and replays a recorded trace where there are none.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Measure the machines of this hypervisor, such as `qemu:///system`
    #[arg(long, value_name = "URI", group = "source")]
    libvirt_uri: Option<String>,
    /// Replay a trace: a CSV file, plain or gzipped
    #[arg(long, value_name = "FILE", group = "source")]
    trace: Option<PathBuf>,
    /// Invent machines, such as 2x5 for two hosts with five machines each
    #[arg(long, value_name = "HOSTSxVMS", group = "source")]
    simulate: Option<Shape>,
    /// How many times faster than life a replay or simulation runs
    #[arg(long, value_name = "N", value_parser = speed, conflicts_with = "libvirt_uri")]
    speed: Option<f64>,
    /// Invent the same machines as another simulation with this seed
    #[arg(long, value_name = "N", requires = "simulate")]
    seed: Option<u64>,
    /// Time between two readings [default: 5s; in a fast replay one second of your time]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    interval: Option<Duration>,
    /// History that a machine needs before anything is harvested from it [default: 2h; shorter in replay and simulation]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    cold_start: Option<Duration>,
    /// Where to keep what must last [default: ~/.local/share/memharvest; a temporary folder for replay and simulation]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the gateway listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Take free ports instead of the documented ones
    #[arg(long)]
    ephemeral_ports: bool,
    /// Let the gateway listen beyond this machine without TLS and authentication
    #[arg(long)]
    insecure: bool,
    /// Where all processes send their traces, such as <http://127.0.0.1:4317>
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Form of the processes' log lines: human or json
    #[arg(long, value_name = "FORM", value_parser = ["human", "json"], default_value = "human")]
    log_format: String,
    /// What the processes log: a level, or directives such as `info,memharvest_predictor=debug`
    #[arg(long, value_name = "DIRECTIVES", default_value = "info")]
    log_filter: String,
}

const DOCUMENTED_GATEWAY: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
/// How long each process may drain, in the order of stopping.
const DRAIN: Duration = Duration::from_secs(5);
const FIRST_STATUS: Duration = Duration::from_secs(2);
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Free ports can be lost to another program in the moment between the choice and the start.
const PORT_ATTEMPTS: u32 = 3;

/// Runs the mesh until it is told to stop.
///
/// # Errors
/// When it cannot be started; see [`UpError`].
pub(crate) async fn run(args: &UpArgs) -> Result<(), UpError> {
    let gateway_listen = args.listen.unwrap_or_else(|| SocketAddr::from(DOCUMENTED_GATEWAY));
    if !gateway_listen.ip().is_loopback() && !args.insecure {
        return Err(UpError::OpenListener(gateway_listen));
    }
    let program = std::env::current_exe().map_err(UpError::OwnProgram)?;
    let binaries = Binaries::find(program.parent().unwrap_or(Path::new("/")))?;
    let mut screen = Screen::new();
    let interrupts = Interrupts::listen()?;

    let (source, why) = choose_source(args, &binaries).await?;
    let pace = Pace::of(&source, args.speed, args.interval, args.cold_start);
    let outline = match &source {
        Source::Trace { file } => Some(Outline::read(file.as_deref())?),
        _ => None,
    };
    let data = DataDir::open(args.data_dir.as_deref(), source.kind())?;
    state_file::wait_for_predecessor(data.path()).await;
    let trace = unpack_trace(&source, &data)?;

    if !why.is_empty() {
        screen.say(&why);
    }
    screen.say(&describe(&source, outline, pace));
    let mut ports = choose_ports(args, gateway_listen)?;
    let mut mesh = Mesh::new(&program, &data, source.kind(), DRAIN)?;
    let mut attempt = 1;
    let clock = loop {
        let clock = Clock { origin: Timestamp::now(), factor: pace.factor };
        let plan = Plan {
            binaries: &binaries,
            ports,
            data: &data,
            source: &source,
            trace: trace.clone(),
            pace,
            origin: clock.origin,
            drain: DRAIN,
            shared: shared_flags(args),
            insecure: args.insecure,
        };
        match mesh.start(&plan, &interrupts, &mut screen).await {
            Err(UpError::Child { code: Some(1), .. }) if args.ephemeral_ports && attempt < PORT_ATTEMPTS => {
                attempt += 1;
                mesh.stop(&interrupts).await;
                ports = choose_ports(args, gateway_listen)?;
            }
            Err(error) => {
                mesh.stop(&interrupts).await;
                mesh.dismiss().await;
                return Err(error);
            }
            Ok(()) => break clock,
        }
    };
    if !interrupts.stop.is_cancelled() {
        let name = std::env::args().next().unwrap_or_else(|| "memharvest".to_owned());
        let kept = if data.is_temporary() { "  (removed at the end)" } else { "" };
        screen.say(&screen::welcome(&ports, &name));
        screen.say(&format!("data and logs in {}{kept}\n", data.path().display()));
        let plays = outline.map(|outline| pace.wall(outline.spans));
        attend(&mut mesh, &ports, clock, plays, &interrupts, &mut screen).await;
    }
    screen.say("stopping");
    mesh.stop(&interrupts).await;
    mesh.dismiss().await;
    screen.say("stopped");
    Ok(())
}

/// Tells what happens, until it is told to stop.
async fn attend(
    mesh: &mut Mesh,
    ports: &Ports,
    clock: Clock,
    plays: Option<Duration>,
    interrupts: &Interrupts,
    screen: &mut Screen,
) {
    let url = format!("http://{}", screen::reachable(&ports.gateway.listen));
    let gateway = url.parse().ok().and_then(|url| Gateway::new(url, None, None).ok());
    let mut status = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_STATUS, STATUS_EVERY);
    let mut over = plays.is_none();
    let end = tokio::time::sleep(plays.unwrap_or_default());
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = interrupts.stop.cancelled() => return,
            Some(event) = mesh.next_event() => {
                if let Some(text) = mesh.note(event).await {
                    screen.say(&text);
                }
            }
            () = &mut end, if !over => {
                over = true;
                screen.say("the trace is at its end: there are no more readings; Ctrl-C, and start again for another run");
            }
            _ = status.tick(), if screen.is_terminal() => {
                if let Some(gateway) = &gateway {
                    let line = tokio::select! {
                        line = screen::fleet_line(gateway, clock) => line,
                        () = interrupts.stop.cancelled() => return,
                    };
                    screen.status(&line);
                }
            }
        }
    }
}

async fn choose_source(args: &UpArgs, binaries: &Binaries) -> Result<(Source, String), UpError> {
    let collector = binaries.program("collector");
    if let Some(uri) = &args.libvirt_uri {
        probe::running_machines(&collector, uri)
            .await
            .map_err(|cause| UpError::Libvirt { uri: uri.clone(), cause })?;
        return Ok((Source::Libvirt { uri: uri.clone() }, String::new()));
    }
    if let Some(file) = &args.trace {
        return Ok((Source::Trace { file: Some(file.clone()) }, String::new()));
    }
    if let Some(shape) = args.simulate {
        return Ok((Source::Simulation { shape, seed: args.seed }, String::new()));
    }
    if args.speed.is_some() {
        return Ok((Source::Trace { file: None }, String::new()));
    }
    Ok(source::by_default(&probe::running_machines(&collector, source::SYSTEM_URI).await))
}

fn choose_ports(args: &UpArgs, gateway: SocketAddr) -> Result<Ports, UpError> {
    let ports = if args.ephemeral_ports {
        let mut ports = Ports::free(gateway.ip(), &mut rand::rng())?;
        if args.listen.is_some() {
            ports.gateway.listen = gateway;
        }
        ports
    } else {
        Ports::documented(gateway)
    };
    ports.check()?;
    Ok(ports)
}

/// The collector reads files: the bundled trace becomes one.
fn unpack_trace(source: &Source, data: &DataDir) -> Result<Option<PathBuf>, UpError> {
    let Source::Trace { file: None } = source else { return Ok(None) };
    let path = data.path().join("demo.csv.gz");
    match std::fs::write(&path, memharvest_trace::demo()) {
        Ok(()) => Ok(Some(path)),
        Err(source) => Err(UpError::Io { path, source }),
    }
}

fn shared_flags(args: &UpArgs) -> Vec<std::ffi::OsString> {
    let mut flags = vec![
        format!("--log-format={}", args.log_format).into(),
        format!("--log-filter={}", args.log_filter).into(),
    ];
    if let Some(endpoint) = &args.otlp_endpoint {
        flags.push(format!("--otlp-endpoint={endpoint}").into());
    }
    flags
}

fn describe(source: &Source, outline: Option<Outline>, pace: Pace) -> String {
    let rounded =
        |duration: Duration| span(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
    let cold = pace.cold_start.map_or_else(String::new, |cold_start| {
        let (history, waits) = (rounded(cold_start), rounded(pace.wall(cold_start)));
        format!("; the first harvest comes after {history} of history, in {waits}")
    });
    let speed = if (pace.factor - 1.0).abs() < f64::EPSILON {
        "in real time".to_owned()
    } else {
        format!("{} times as fast as life", pace.factor)
    };
    match source {
        Source::Libvirt { uri } => format!("measuring the machines of {uri}, read-only{cold}"),
        Source::Trace { file } => {
            let name = file.as_ref().map_or("a recorded trace".to_owned(), |file| file.display().to_string());
            let size = outline.map_or_else(String::new, |outline| {
                let vms = u64::try_from(outline.vms).unwrap_or(u64::MAX);
                format!(" ({} over {})", count(vms, "machine"), rounded(outline.spans))
            });
            format!("replaying {name}{size} {speed}{cold}")
        }
        Source::Simulation { shape, .. } => {
            let hosts = count(shape.hosts.into(), "host");
            format!("inventing {hosts} with {} each, {speed}{cold}", count(shape.vms.into(), "machine"))
        }
    }
}

/// SIGINT and SIGTERM: the first asks for an orderly end, the second for an immediate one.
#[derive(Debug)]
pub(crate) struct Interrupts {
    stop: CancellationToken,
    kill: CancellationToken,
    _task: tokio::task::JoinSet<()>,
}

impl Interrupts {
    fn listen() -> Result<Self, UpError> {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(UpError::Signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(UpError::Signals)?;
        let mut task = tokio::task::JoinSet::new();
        let tokens = [stop.clone(), kill.clone()];
        task.spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(Self { stop, kill, _task: task })
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=1_000_000.0).contains(&speed) => Ok(speed),
        _ => Err("write a number from 0.001 to 1000000, such as 60".to_owned()),
    }
}

pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write 5s or 1m"))?;
    if duration.is_zero() { Err("must be longer than 0s".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_what_it_is_how_fast_it_runs_and_when_something_is_harvested() {
        let source = Source::Trace { file: None };
        let outline = Outline { vms: 24, spans: Duration::from_secs(431_753) };
        let said = describe(&source, Some(outline), Pace::of(&source, None, None, None));
        assert_eq!(
            said,
            "replaying a recorded trace (24 machines over 5 d) 300 times as fast as life; \
             the first harvest comes after 60 min of history, in 12 s"
        );
    }

    #[test]
    fn speeds_and_intervals_that_cannot_be_are_refused() {
        assert!(speed("60").is_ok());
        for wrong in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(speed(wrong).is_err(), "{wrong}");
        }
        assert!(positive_duration("0s").is_err());
        assert_eq!(positive_duration("5s"), Ok(Duration::from_secs(5)));
    }
}
