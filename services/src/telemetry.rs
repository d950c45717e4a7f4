//! Logs on stderr, and traces to an OTLP endpoint where one is set.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::Service;
use crate::settings::{Common, LogFormat, SettingsError};

/// How long the last spans may take to leave.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Keeps the exporter; flush it with [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter refuses its settings.
    #[error("cannot export traces: {0}; check --otlp-endpoint")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Somebody has set up logs in this process before.
    #[error("cannot set up logs: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
}

/// Refuses settings that [`init`] could not use.
pub(crate) fn check(common: &Common) -> Result<(), SettingsError> {
    EnvFilter::try_new(&common.log_filter).map_err(|error| {
        SettingsError::Refused(format!(
            "--log-filter {}: {error}; write a level such as info",
            common.log_filter
        ))
    })?;
    let Some(endpoint) = &common.otlp_endpoint else { return Ok(()) };
    crate::rpc_client::parse_endpoint(endpoint)
        .map(drop)
        .map_err(|error| SettingsError::Refused(format!("--otlp-endpoint: {error}")))
}

/// Sets up logs and traces for the whole process. Must be called within a tokio runtime. An endpoint that is away
/// costs spans, never work: they are queued, dropped when the queue is full, and sent from a thread of their own.
///
/// # Errors
/// The exporter cannot be built, or logs were set up before.
pub fn init(service: &Service, common: &Common) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&common.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = match common.log_format {
        LogFormat::Human => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed()
        }
    };
    let provider = common.otlp_endpoint.as_deref().map(|endpoint| exporter(service, endpoint)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service.name)).with_filter(exported())
    });
    tracing_subscriber::registry().with(logs.with_filter(filter)).with(traces).try_init()?;
    Ok(Telemetry { provider })
}

fn exporter(service: &Service, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(Duration::from_secs(5))
        .build()?;
    let resource = Resource::builder()
        .with_service_name(service.name)
        .with_attribute(KeyValue::new("service.version", service.version))
        .with_attribute(KeyValue::new("service.instance.id", instance_id()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Spans of the transport are not exported: the exporter makes some itself with every batch, and would never end.
pub(crate) fn exported() -> Targets {
    let transport = ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry", "opentelemetry_sdk"];
    Targets::new().with_default(Level::INFO).with_targets(transport.map(|target| (target, LevelFilter::OFF)))
}

/// Tells two processes of one service apart, across restarts too.
fn instance_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

impl Telemetry {
    /// Sends what is left, for at most two seconds.
    pub fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_DEADLINE) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}
