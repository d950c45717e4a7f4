//! `memharvest simulate`: a load generator.

mod reading;
mod sender;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::registry::v1::{AgentKind, RegisterAgentRequest};
use memharvest_services::membership;
use memharvest_services::metrics::Metrics;
use memharvest_services::proto_time::duration_to_proto;
use memharvest_services::rpc_client::{ClientOptions, RpcChannel, connect_lazy};
use memharvest_services::settings::SettingsError;
use memharvest_services::shutdown::Stop;
use memharvest_services::tls::MeshSettings;
use memharvest_services::tls::identity::Role;
use memharvest_trace::Simulation;
use rand::RngExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Context, print};
use crate::Failure;
use crate::up::positive_duration;
use sender::Sender;
use tally::Tally;

/// A line is told after so long.
const REPORT: Duration = Duration::from_secs(5);

/// What is on its way when the time is over may still arrive.
const PATIENCE: Duration = Duration::from_secs(5);

const PROGRAM: memharvest_services::Service =
    memharvest_services::Service::new("memharvest", env!("CARGO_PKG_VERSION"));

/// Send a predictor the readings of invented hosts, and tell how it keeps up: a load generator
///
/// Every host has a connection of its own, as a collector would have, and sends a reading an interval, in real time. Every five
/// seconds a line tells what was answered and how soon. Ends with Ctrl-C, or after --duration.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Hosts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hosts: u32,
    /// Machines of each host
    #[arg(long, value_name = "M", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    vms: u32,
    /// How often each host is read
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    interval: Duration,
    /// Stop after so long
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    duration: Option<Duration>,
    /// Predictor that the readings go to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7402")]
    predictor: String,
    /// Registry in which the hosts register, so that the whole mesh knows them [default: they do not]
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Other machines that behave differently
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// What is shown to a predictor or a registry that is reached by https://: a certificate for a collector of any host (`memharvest certs
    /// issue collector '*'`)
    #[command(flatten)]
    mesh: MeshSettings,
}

/// Sends until it is told to stop.
///
/// # Errors
/// URLs and certificates that do not fit, or a predictor that never answered.
pub(crate) async fn run(context: &Context, args: &SimulateArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()
        .map_err(|error| SettingsError::Refused(format!("cannot listen to signals: {error}")))?;
    let predictor = Service::new(args, "--predictor", Role::Predictor, &args.predictor)?;
    let registry = args.registry.as_ref().map(|url| Service::new(args, "--registry", Role::Registry, url));
    let registry = registry.transpose()?.map(|service| service.channel()).transpose()?;

    let simulation = Arc::new(Simulation::new(args.seed, args.hosts as usize, args.vms as usize));
    let (tally, begins, instance) =
        (Arc::new(Tally::default()), Timestamp::now(), Uuid::new_v4().to_string());
    for index in 0..args.hosts as usize {
        let id = format!("load-{}", index + 1);
        if let Some(registry) = &registry {
            let registration = registration(&id, &instance, args.interval);
            let member = membership::keep(registry.clone(), registration, Vec::new, |_| {}, stop.clone());
            stop.spawn(&format!("member {id}"), member);
        }
        let sender = Sender {
            id: id.clone(),
            index,
            simulation: Arc::clone(&simulation),
            begins,
            interval: args.interval,
            // Spread over the interval: collectors that were started together do not report together.
            first: args.interval.mul_f64(rand::rng().random_range(0.0..1.0)),
            tally: Arc::clone(&tally),
        };
        stop.spawn(&id, sender.run(predictor.channel()?, stop.clone()));
    }
    report(context, args, &tally, &stop).await?;
    stop.request();
    // Streams are cut off, which is all that is left to do.
    let _ = stop.drain(PATIENCE).await;
    let total = tally.total();
    if total.answered == 0 {
        let cause = total
            .trouble
            .unwrap_or_else(|| "nothing was sent yet; give it longer than an interval".to_owned());
        return Err(Failure::NothingAnswered { url: args.predictor.clone(), cause });
    }
    print(&tally::line(&total, context.out.json, true))
}

/// Tells a line after the other, until the time is over.
async fn report(context: &Context, args: &SimulateArgs, tally: &Tally, stop: &Stop) -> Result<(), Failure> {
    if !context.out.json {
        print(&format!(
            "{} × {} machines, a reading of each host every {}, to {}\n{}",
            args.hosts,
            args.vms,
            humantime::format_duration(args.interval),
            args.predictor,
            tally::HEAD
        ))?;
    }
    let end = args.duration.map(|duration| Instant::now() + duration);
    loop {
        let next = Instant::now() + REPORT;
        let until = end.map_or(next, |end| end.min(next));
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = stop.requested() => return Ok(()),
        }
        print(&tally::line(&tally.lap(), context.out.json, false))?;
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// A service that is called, over as many connections as are asked for.
struct Service {
    url: String,
    options: ClientOptions,
}

impl Service {
    fn new(args: &SimulateArgs, flag: &str, role: Role, url: &str) -> Result<Self, SettingsError> {
        args.mesh.check_url(flag, url)?;
        let refused = |error: &dyn std::fmt::Display| SettingsError::Refused(format!("{flag}: {error}"));
        let metrics = Metrics::new(&PROGRAM).map_err(|error| refused(&error))?;
        let options = ClientOptions::new(&metrics, DESCRIPTORS).map_err(|error| refused(&error))?;
        let service =
            Self { url: url.to_owned(), options: options.mesh(args.mesh.read()?.as_ref()).to(role) };
        service.channel().map_err(|error| refused(&error))?;
        Ok(service)
    }

    fn channel(&self) -> Result<RpcChannel, SettingsError> {
        connect_lazy(&self.url, &self.options).map_err(|error| SettingsError::Refused(error.to_string()))
    }
}

fn registration(id: &str, instance: &str, interval: Duration) -> RegisterAgentRequest {
    RegisterAgentRequest {
        agent_id: id.to_owned(),
        kind: AgentKind::Collector.into(),
        name: id.to_owned(),
        version: PROGRAM.version.to_owned(),
        instance_id: instance.to_owned(),
        interval: Some(duration_to_proto(interval)),
        capabilities: vec!["simulation".to_owned()],
        ..RegisterAgentRequest::default()
    }
}
