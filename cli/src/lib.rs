//! memharvest: the mesh on one machine, and the operator's verbs.
//!
//! `up` starts the four services as child processes and keeps them running; `verbs` ask the gateway's REST API.

mod api;
mod backtest_source;
mod certs;
mod client;
mod failure;
mod format;
mod https;
mod table;
mod up;
mod verbs;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::{Gateway, GatewayUrl};
use failure::Failure;
use verbs::{Context, Output};

/// Finds memory that virtual machines have been given and do not use, and says how much of it can be harvested
#[derive(Debug, Parser)]
#[command(name = "memharvest", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

/// How the verbs talk to a gateway.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Gateway")]
struct Connection {
    /// Where the gateway is
    #[arg(
        long,
        global = true,
        env = "MEMHARVEST_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: GatewayUrl,
    /// Authorities (certificates in PEM) to believe where the URL is https:// [default: the system's]
    #[arg(long, global = true, env = "MEMHARVEST_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Token to show to the gateway
    #[arg(long, global = true, env = "MEMHARVEST_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The API's JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Up(Box<up::UpArgs>),
    Hosts(verbs::hosts::HostsArgs),
    Vms(verbs::vms::VmsArgs),
    Violations(verbs::violations::ViolationsArgs),
    Boundaries(verbs::boundaries::BoundariesArgs),
    /// The processes of the mesh: who they are, where they are, when they were last heard
    Agents,
    Leases(verbs::leases::LeasesArgs),
    Tokens(verbs::tokens::TokensArgs),
    Doctor(verbs::doctor::DoctorArgs),
    Report(verbs::report::ReportArgs),
    Backtest(Box<verbs::backtest::BacktestArgs>),
    Simulate(Box<verbs::simulate::SimulateArgs>),
    Certs(Box<certs::CertsArgs>),
    #[command(name = up::keeper::VERB, hide = true)]
    UpKeeper(up::keeper::KeeperArgs),
}

/// The program: its command line, what was asked for, and the exit code (0 fine, 2 usage, 64 bad settings, 1 anything
/// else, told in one line on stderr).
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}"), 1),
    };
    let outcome = runtime.block_on(run(cli));
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.exit_code() == 0 => ExitCode::SUCCESS,
        Err(failure) => fail(&failure.to_string().replace('\n', " "), failure.exit_code()),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program says why it fails")]
fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("memharvest: {message}");
    ExitCode::from(code)
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context {
        gateway: Gateway::new(
            cli.connection.url,
            cli.connection.token.as_deref(),
            cli.connection.ca.as_deref(),
        )?,
        out: Output::new(cli.connection.json),
    };
    match &cli.verb {
        Verb::Up(args) => up::run(args).await.map_err(|error| Failure::Up(Box::new(error))),
        Verb::Hosts(args) => verbs::hosts::run(&context, args).await,
        Verb::Vms(args) => verbs::vms::run(&context, args).await,
        Verb::Violations(args) => verbs::violations::run(&context, args).await,
        Verb::Boundaries(args) => verbs::boundaries::run(&context, args).await,
        Verb::Agents => verbs::agents::run(&context).await,
        Verb::Leases(args) => verbs::leases::run(&context, args).await,
        Verb::Tokens(args) => verbs::tokens::run(&context, args).await,
        Verb::Doctor(args) => verbs::doctor::run(&context, args).await,
        Verb::Report(args) => verbs::report::run(&context, args).await,
        Verb::Backtest(args) => verbs::backtest::run(&context, cli.connection.ca.as_deref(), args).await,
        Verb::Simulate(args) => verbs::simulate::run(&context, args).await,
        Verb::Certs(args) => certs::run(cli.connection.ca.as_deref(), args).await,
        Verb::UpKeeper(args) => up::keeper::run(args).map_err(Failure::Keeper),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sources_exclude_each_other_and_speed_needs_no_live_machines() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("memharvest up --simulate 2x5 --speed 60 --ephemeral-ports").is_ok());
        assert!(parse("memharvest backtest --trace a.csv --signal demand,rss --horizon 15m,1h").is_ok());
        assert!(parse("memharvest simulate --hosts 100 --vms 30 --interval 5s --predictor http://a:7402 --registry http://a:7401").is_ok());
        assert!(parse("memharvest leases reserve h 4GiB --holder ann --ttl 1h").is_ok());
        assert!(parse("memharvest leases --host h --state live").is_ok());
        assert!(parse("memharvest tokens create ci --role viewer").is_ok());
        assert!(parse("memharvest hosts --url https://a --ca a.crt").is_ok());
        assert!(parse("memharvest certs issue registry r --san r.example --out r").is_ok());
        assert!(parse("memharvest certs issue collector * --out c").is_ok());
        assert!(parse("memharvest certs ticket --host h1 --ca-url https://ca:7409").is_ok());
        assert!(parse("memharvest vms web --explain --signal demand --url http://a:1").is_ok());
        for wrong in [
            "memharvest up --simulate 2x5 --trace a.csv",
            "memharvest up --libvirt-uri qemu:///system --speed 2",
            "memharvest up --seed 1",
            "memharvest up --interval 0s",
            "memharvest vms --explain",
            "memharvest violations acknowledge v1",
            "memharvest boundaries set fleet --headroom-ratio 0.1",
            "memharvest hosts --url nowhere",
            "memharvest backtest",
            "memharvest backtest --trace a.csv --target-violation-rate 1",
            "memharvest backtest --trace a.csv --target-violation-rate 0.01,0",
            "memharvest backtest --trace a.csv --horizon 0s",
            "memharvest backtest --trace a.csv --model tea-leaves",
            "memharvest backtest --trace a.csv --svg a.svg",
            "memharvest backtest --trace a.csv --compare all --forecasts a.csv",
            "memharvest simulate --hosts 0",
            "memharvest simulate --interval 0s",
            "memharvest leases reserve h --holder ann",
            "memharvest leases reserve h 1apple --holder ann",
            "memharvest leases --state gone",
            "memharvest tokens create ci",
            "memharvest tokens create ci --role king",
            "memharvest certs issue king k --out k",
            "memharvest certs issue registry r --out r --valid 0s",
            "memharvest certs ticket --host h1",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
