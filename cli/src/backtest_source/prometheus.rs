//! Recorded usage from a Prometheus, or from anything that answers its HTTP API.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::exporter::{Exporter, NAMES, known};
use super::readings::{Quantity, Readings};
use super::{Address, Asked, SourceError};
use crate::client::root_cause;
use crate::https::{self, HttpsClient};

/// What a server answers at most for one series.
const MOST_POINTS: i64 = 11_000;
/// What is asked for at once, over all series: about 20 MB of JSON.
const MOST_SAMPLES: i64 = 500_000;
/// Points at which machines are counted, to choose an exporter and the length of a query.
const COUNTED_AT: i64 = 50;

const PATIENCE: Duration = Duration::from_mins(2);
const LARGEST_ANSWER_BYTES: usize = 1 << 30;

/// What is wanted of a Prometheus.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) asked: &'a Asked,
    /// Label matchers.
    pub(super) select: &'a str,
    /// Whose names to read; none: whosever are there.
    pub(super) exporter: Option<&'static Exporter>,
}

/// Reads everything, and says whose metrics it was. Over TLS the authorities of `ca` are believed, or those of the system.
///
/// # Errors
/// When it does not answer, refuses, or has nothing to backtest.
pub(super) async fn read(
    address: &Address,
    ca: Option<&Path>,
    wanted: &Wanted<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(&'static Exporter, Readings), SourceError> {
    let server = Server::at(address, ca)?;
    let Chosen { exporter, names, machines } = choose(&server, wanted).await?;
    let Asked { seconds, step } = wanted.asked;
    let queries = exporter.queries(*step, wanted.select, &names);
    let points = (MOST_SAMPLES / machines.max(1)).clamp(1, MOST_POINTS);
    let mut readings = Readings::default();
    let mut done = seconds.start;
    while done < seconds.end {
        let last = seconds.end.min(done.saturating_add(points * step));
        for (quantity, query) in &queries {
            // What a step held is known at its end.
            let found = server.range(query, done + step..=last, *step).await?;
            take(&mut readings, exporter, *quantity, &found);
        }
        readings.close();
        done = last;
        progress((done - seconds.start).unsigned_abs() * 100 / (seconds.end - seconds.start).unsigned_abs());
    }
    Ok((exporter, readings))
}

/// Whose metrics are read, which of them are there, and of how many machines at most.
struct Chosen {
    exporter: &'static Exporter,
    names: BTreeSet<String>,
    machines: i64,
}

/// The exporter that is wanted, or the one with the most readings in the range.
async fn choose(server: &Server, wanted: &Wanted<'_>) -> Result<Chosen, SourceError> {
    let Asked { seconds, step } = wanted.asked;
    let names = server.names(wanted).await?;
    let candidates = wanted.exporter.map_or_else(|| Exporter::among(&names), |exporter| vec![exporter]);
    let mut best: Option<(f64, Chosen)> = None;
    for exporter in candidates {
        let count = exporter.count_query(wanted.select, &names);
        let sparse = ((seconds.end - seconds.start) / COUNTED_AT).max(*step);
        let counted = server.range(&count, seconds.start..=seconds.end, sparse).await?;
        let counts = || counted.iter().flat_map(|series| &series.values).map(|(_, Figure(count))| *count);
        let (sum, most) = (counts().sum::<f64>(), counts().fold(0.0, f64::max));
        if sum > 0.0 && best.as_ref().is_none_or(|(before, _)| sum > *before) {
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
            let machines = most as i64;
            best = Some((sum, Chosen { exporter, names: names.clone(), machines }));
        }
    }
    match (best, Exporter::allocation_among(&names)) {
        (Some((_, chosen)), _) => Ok(chosen),
        (None, Some(metric)) if Exporter::among(&names).is_empty() => {
            Err(SourceError::AllocationOnly { url: server.url.clone(), metric: metric.to_owned() })
        }
        (None, _) => Err(SourceError::NoMetrics { url: server.url.clone(), known: known() }),
    }
}

fn take(readings: &mut Readings, exporter: &Exporter, quantity: Quantity, found: &[Series]) {
    for series in found {
        let machine = exporter.machine(|label| series.metric.get(label).map(String::as_str));
        if machine.name.is_empty() {
            continue;
        }
        let number = readings.machine(machine);
        for (at, Figure(bytes)) in &series.values {
            if bytes.is_finite() && *bytes >= 0.0 {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the cast saturates"
                )]
                readings.add(number, *at as i64, quantity, *bytes as u64);
            }
        }
    }
}

/// One series of an answer.
#[derive(Debug, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, Figure)>,
}

/// A number, which the API writes as text.
#[derive(Debug)]
struct Figure(f64);

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom(format!("{text:?} is no number")))
    }
}

#[derive(Debug, Deserialize)]
struct Matrix {
    result: Vec<Series>,
}

/// What every answer of the API is wrapped in.
#[derive(Debug, Deserialize)]
struct Envelope<T> {
    status: String,
    data: Option<T>,
    error: Option<String>,
}

struct Server {
    url: String,
    http: HttpsClient,
}

impl Server {
    fn at(address: &Address, ca: Option<&Path>) -> Result<Self, SourceError> {
        let http = https::client(address.with_tls(), ca).map_err(SourceError::Authorities)?;
        Ok(Self { url: address.to_string(), http })
    }

    /// The names of the metrics that may be of use.
    async fn names(&self, wanted: &Wanted<'_>) -> Result<BTreeSet<String>, SourceError> {
        let select = wanted.select.trim();
        let comma = if select.is_empty() { "" } else { "," };
        let matcher = format!("{{__name__=~\"{NAMES}\"{comma}{select}}}");
        let seconds = &wanted.asked.seconds;
        let parameters =
            [("match[]", matcher), ("start", seconds.start.to_string()), ("end", seconds.end.to_string())];
        self.get("/api/v1/label/__name__/values", &parameters).await
    }

    /// What a query gives at every step from the first second to the last.
    async fn range(
        &self,
        query: &str,
        seconds: RangeInclusive<i64>,
        step: i64,
    ) -> Result<Vec<Series>, SourceError> {
        let parameters = [
            ("query", query.to_owned()),
            ("start", seconds.start().to_string()),
            ("end", seconds.end().to_string()),
            ("step", step.to_string()),
        ];
        let matrix: Matrix = self.get("/api/v1/query_range", &parameters).await?;
        Ok(matrix.result)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, SourceError> {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let no_prometheus = |what: String| SourceError::NoPrometheus { url: self.url.clone(), what };
        let request = Request::get(format!("{}{path}?{}", self.url, parameters.join("&")))
            .body(Full::default())
            .map_err(|error| no_prometheus(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        let (status, body) = answer
            .unwrap_or_else(|_| Err(format!("nothing within {} s", PATIENCE.as_secs())))
            .map_err(|cause| SourceError::Unreachable { url: self.url.clone(), cause })?;
        match serde_json::from_slice::<Envelope<T>>(&body) {
            Ok(Envelope { data: Some(data), status, .. }) if status == "success" => Ok(data),
            Ok(envelope) => {
                let message = envelope.error.unwrap_or(envelope.status);
                Err(SourceError::Refused { url: self.url.clone(), message })
            }
            Err(error) if status.is_success() => Err(no_prometheus(error.to_string())),
            Err(_) => Err(no_prometheus(status.to_string())),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let answer = self.http.request(request).await.map_err(|error| root_cause(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER_BYTES).collect().await;
        Ok((head.status, body.map_err(|error| root_cause(&*error))?.to_bytes()))
    }
}
