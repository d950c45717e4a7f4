//! A process from its settings to its exit code.

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Service;
use crate::healthcheck;
use crate::settings::{self, Common, EXIT_BAD_SETTINGS, LoadError, Settings, SettingsError, reference};
use crate::shutdown::Stop;
use crate::telemetry;

/// Lets the process have as many open files as it may: by default many systems allow fewer than a gateway has connections.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files: {error}");
    }
}

/// What a process may take beyond its drain deadline.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a service: settings, logs and traces, signals, `run`, drain. `run` ends when the stop that it is given is
/// requested, or earlier when its work is done. Exit codes: 0 fine, 2 usage, 64 bad settings (also a
/// [`SettingsError`] from `run`), 1 anything else, told in one line on stderr.
pub fn main<S, F, Fut>(service: Service, run: F) -> ExitCode
where
    S: Settings,
    F: FnOnce(S, Stop) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let settings: S = match settings::load(&service, std::env::args_os(), std::env::vars_os()) {
        Ok(settings) => settings,
        Err(LoadError::Usage(error)) => {
            // Nothing to do about a stream that is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(LoadError::Settings(error)) => return fail(&service, &error.into()),
    };
    if let Some(answer) = answer::<S>(&service, settings.common()) {
        return answer;
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = service.threads {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&service, &anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let outcome = runtime.block_on(supervise(service, settings, run));
    // A call that blocks in a library, such as one to a hung hypervisor, must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&service, &error),
    }
}

/// What was asked for in place of serving; absent: nothing.
#[expect(clippy::print_stdout, reason = "the answer that was asked for")]
fn answer<S: Settings>(service: &Service, common: &Common) -> Option<ExitCode> {
    if common.reference {
        print!("{}", reference::markdown(&S::command().name(service.name)));
    } else if common.check {
        println!("settings are fine");
    } else if common.healthcheck {
        return Some(match healthcheck::ask(common.admin_listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(service, &error.into()),
        });
    } else {
        return None;
    }
    Some(ExitCode::SUCCESS)
}

async fn supervise<S, F, Fut>(service: Service, settings: S, run: F) -> anyhow::Result<()>
where
    S: Settings,
    F: FnOnce(S, Stop) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let common = settings.common().clone();
    let telemetry = telemetry::init(&service, &common)?;
    allow_open_files();
    let stop = Stop::on_signals()?;
    if common.supervised {
        stop.when_stdin_ends()?;
    }
    tracing::info!(version = service.version, "{} starts", service.name);
    let deadline = common.drain_deadline;
    let work = async {
        let outcome = run(settings, stop.clone()).await;
        let drained = stop.drain(deadline).await;
        outcome?;
        stop.check_panics()?;
        Ok(drained?)
    };
    // A moment more than the parts have themselves, which tell better what they were waiting for.
    let overdue = async {
        stop.requested().await;
        tokio::time::sleep(deadline + GRACE).await;
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = overdue => Err(anyhow::anyhow!("not stopped within --drain-deadline of {deadline:?}")),
    };
    tracing::info!("{} ends", service.name);
    telemetry.shutdown();
    outcome
}

/// The error and its causes; a cause that the text before it tells already is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace('\n', " ")) {
        if !line.contains(&cause) {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(&cause);
        }
    }
    line
}

/// Tells the error in one line and picks the exit code.
fn fail(service: &Service, error: &anyhow::Error) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the last words must come through whatever the log filter is")]
    {
        eprintln!("{}: {}", service.name, one_line(error));
    }
    if error.chain().any(<dyn std::error::Error>::is::<SettingsError>) {
        ExitCode::from(EXIT_BAD_SETTINGS)
    } else {
        ExitCode::FAILURE
    }
}
