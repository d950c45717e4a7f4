//! Where `memharvest backtest` gets recorded usage from: a trace file, a Prometheus that has scraped any libvirt
//! exporter, or the registry's history.

mod address;
mod exporter;
mod prometheus;
mod readings;
mod registry;

use crate::when::When;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use memharvest_services::settings::SettingsError;
use memharvest_services::tls::MeshSettings;
use memharvest_trace::{Trace, TraceFileError};

pub(crate) use address::Address;
use exporter::Exporter;

/// Where recorded usage comes from
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recorded usage")]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    place: Place,
    /// Begin: a time (RFC 3339), a day, or how long ago
    #[arg(long, value_name = "TIME", default_value = "14d", conflicts_with = "trace")]
    from: When,
    /// End
    #[arg(long, value_name = "TIME", default_value = "now", conflicts_with = "trace")]
    to: When,
    /// Each reading is the peak of such a span, at least as long as what lies between two scrapes
    #[arg(long, value_name = "DURATION", value_parser = step, default_value = "5m", conflicts_with_all = ["trace", "registry"])]
    step: Duration,
    /// Only series with these labels, as a query has them: `cluster="west",domain=~"web-.*"`
    #[arg(long, value_name = "MATCHERS", default_value = "", hide_default_value = true, conflicts_with_all = ["trace", "registry"])]
    select: String,
    /// Whose metric names to read [default: those with the most readings]
    #[arg(long, value_name = "NAME", value_parser = Exporter::named, conflicts_with_all = ["trace", "registry"])]
    exporter: Option<&'static Exporter>,
    /// What is shown to a registry that is reached by https://: the certificate of a predictor or a gateway
    #[command(flatten)]
    mesh: MeshSettings,
}

/// One of the three.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// A file, plain or gzipped: `vm_id,t_seconds,allocated_bytes,used_bytes[,rss_bytes]`
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// A Prometheus that scrapes memharvest's collectors or any other libvirt exporter
    #[arg(long, value_name = "URL")]
    prometheus: Option<Address>,
    /// A registry of memharvest; where it is https://, with --mesh-ca, and --mesh-cert and --mesh-key of a predictor or a gateway
    #[arg(long, value_name = "URL")]
    registry: Option<Address>,
}

/// Why there is no recorded usage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// No source is named.
    #[error("say where recorded usage comes from: --trace, --prometheus or --registry")]
    Nothing,
    /// What was found is no trace.
    #[error(transparent)]
    Trace(#[from] TraceFileError),
    /// Certificates that cannot be shown.
    #[error(transparent)]
    Certificates(#[from] SettingsError),
    /// Authorities that cannot be believed.
    #[error("{0}")]
    Authorities(String),
    /// `--from` is not before `--to`.
    #[error("--from ({from}) is not at least one step before --to ({to})")]
    Range {
        /// The begin.
        from: Timestamp,
        /// The end.
        to: Timestamp,
    },
    /// Nobody answers.
    #[error("no answer from {url}: {cause}; check the address, and that the process runs")]
    Unreachable {
        /// Whom was asked.
        url: String,
        /// Why.
        cause: String,
    },
    /// The answer is a refusal.
    #[error("{url} refuses: {message}")]
    Refused {
        /// Whom was asked.
        url: String,
        /// What it said.
        message: String,
    },
    /// The answer is not that of a Prometheus.
    #[error("{url} does not answer as a prometheus does ({what}); give the address that its web page has")]
    NoPrometheus {
        /// Whom was asked.
        url: String,
        /// What came.
        what: String,
    },
    /// None of the names that we know.
    #[error(
        "{url} has no memory metrics of virtual machines in this range; known are those of {known}; \
         widen --from and --to, check --select, or export a trace file by yourself"
    )]
    NoMetrics {
        /// Whom was asked.
        url: String,
        /// Names of exporters.
        known: String,
    },
    /// Only the allocation was recorded.
    #[error(
        "{url} has what machines were given ({metric}) but not what they used: this exporter does not tell it; \
         scrape memharvest's collector, or an exporter with rss and guest statistics"
    )]
    AllocationOnly {
        /// Whom was asked.
        url: String,
        /// The metric.
        metric: String,
    },
    /// The range is empty.
    #[error("{url} has no reading in this range; widen --from and --to")]
    Empty {
        /// Whom was asked.
        url: String,
    },
}

/// The range that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// Unix seconds, whole steps.
    seconds: Range<i64>,
    step: i64,
}

impl SourceError {
    /// 2 where something else should have been asked for, 1 where others are in the way.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Nothing
            | Self::Trace(_)
            | Self::Certificates(_)
            | Self::Authorities(_)
            | Self::Range { .. } => 2,
            _ => 1,
        }
    }
}

impl SourceArgs {
    /// Reads it all. `progress` is told how many per cent are read. The text names where it came from. A Prometheus that is reached over TLS
    /// is believed by the authorities of `ca`, or those of the system.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub(crate) async fn load(
        &self,
        ca: Option<&Path>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(String, Trace), SourceError> {
        if let Some(path) = &self.place.trace {
            return Ok((path.display().to_string(), Trace::load(path)?));
        }
        let asked = self.asked(Timestamp::now())?;
        let (source, readings) = if let Some(address) = &self.place.prometheus {
            let wanted = prometheus::Wanted { asked: &asked, select: &self.select, exporter: self.exporter };
            let (exporter, readings) = prometheus::read(address, ca, &wanted, progress).await?;
            (format!("{address} ({exporter})"), readings)
        } else if let Some(address) = &self.place.registry {
            let url = address.to_string();
            self.mesh.check_url("--registry", &url)?;
            let mesh = self.mesh.read()?;
            (url, registry::read(address, mesh.as_ref(), &asked, progress).await?)
        } else {
            return Err(SourceError::Nothing);
        };
        if readings.is_empty() {
            return Err(SourceError::Empty { url: source });
        }
        let trace = readings.into_trace(&source)?;
        Ok((source, trace))
    }

    fn asked(&self, now: Timestamp) -> Result<Asked, SourceError> {
        let step = i64::try_from(self.step.as_secs()).unwrap_or(i64::MAX);
        let (from, to) = (self.from.before(now), self.to.before(now));
        let whole = |time: Timestamp| time.as_second().div_euclid(step) * step;
        let seconds = whole(from)..whole(to);
        if seconds.is_empty() || seconds.start < 0 {
            return Err(SourceError::Range { from, to });
        }
        Ok(Asked { seconds, step })
    }
}

/// A span of whole seconds.
fn step(text: &str) -> Result<Duration, String> {
    let step = humantime::parse_duration(text.trim()).map_err(|error| format!("{error}; write 1m or 5m"))?;
    if step.as_secs() == 0 || step.subsec_nanos() != 0 || step.as_secs() > 86_400 {
        return Err("it must be whole seconds, from 1s to 1d".to_owned());
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        source: SourceArgs,
    }

    fn parse(line: &str) -> Result<SourceArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.source)
    }

    #[test]
    fn one_source_is_named_and_only_its_own_flags_go_with_it() {
        assert!(parse("x --trace a.csv").is_ok());
        assert!(parse("x --prometheus http://a:9090/prom --from 30d --step 1m --exporter tinkoff").is_ok());
        assert!(parse("x --registry http://a:7401 --from 2026-11-01 --to 2026-11-08T12:00:00Z").is_ok());
        for wrong in [
            "x",
            "x --trace a.csv --registry http://a:7401",
            "x --prometheus http://a:9090 --registry http://a:7401",
            "x --trace a.csv --from 1d",
            "x --registry http://a:7401 --step 1m",
            "x --registry http://a:7401 --exporter inovex",
            "x --prometheus ftp://a:9090",
            "x --prometheus http://a:9090 --exporter node",
            "x --prometheus http://a:9090 --step 0s",
            "x --prometheus http://a:9090 --step 1500ms",
            "x --prometheus http://a:9090 --from yesterday",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn the_range_is_whole_steps() {
        let now: Timestamp = "2026-11-22T10:03:07Z".parse().unwrap();
        let asked = parse("x --prometheus http://a --from 1h").unwrap().asked(now).unwrap();
        assert_eq!(asked.seconds.end, "2026-11-22T10:00:00Z".parse::<Timestamp>().unwrap().as_second());
        assert_eq!((asked.seconds.end - asked.seconds.start, asked.step), (3600, 300));
        let error = parse("x --prometheus http://a --from 1h --to 2h").unwrap().asked(now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--from (2026-11-22T09:03:07Z) is not at least one step before --to (2026-11-22T08:03:07Z)"
        );
    }
}
