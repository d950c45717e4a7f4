//! `SimulateBoundary` on 30 days of 1,000 machines as the registry keeps them by default: the last week in windows of five minutes, what is
//! older in hours. A predictor of its own, the real program, streams them from a registry on SQLite.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use memharvest_proto::predictor::v1::SimulateBoundaryRequest;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_proto::registry::v1::BoundaryValues;
use memharvest_registry::settings::RegistrySettings;
use memharvest_registry::store::Store as _;
use memharvest_registry::store::sqlite::SqliteStore;
use memharvest_services::shutdown::Stop;
use prost_types::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::fill::Fill;
use crate::page::{Bound, Figures};
use crate::{DAY, Error, HOUR, NOW, page, record};

const DAYS: i64 = 30;
const FINE_DAYS: i64 = 7;

/// Measures a change that the recorded forecasts serve for, and one that needs others.
pub(crate) async fn measure(machines: u128) -> Result<Figures, Error> {
    let mut figures = Figures::of("SimulateBoundary");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("registry.db");
    let store = Arc::new(SqliteStore::open(&path).await?);
    record(&store, machines, NOW - DAYS * DAY).await?;
    let fill = Fill::sqlite(&path).await?;
    fill.hours(NOW - DAYS * DAY + HOUR, NOW - FINE_DAYS * DAY).await?;
    fill.five_minutes(NOW - FINE_DAYS * DAY, NOW).await?;
    fill.settle().await?;
    figures.note(&format!("{} roll-ups of {machines} machines, on SQLite", fill.count().await?));
    drop(fill);
    store.close().await;
    drop(store);

    let fixed = ["registry", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let kept = ["--retention", "100years", "--hourly-after", "100years", "--database"];
    let args = fixed.iter().chain(&kept).map(OsStr::new).chain([path.as_os_str()]);
    let stop = Stop::new();
    let running = memharvest_registry::start(RegistrySettings::try_parse_from(args)?, stop.clone()).await?;
    let url = format!("http://{}", running.grpc_address);
    let mut served = JoinSet::new();
    served.spawn(running.serve());
    let (_predictor, address) = predictor(&url, folder.path()).await?;
    let mut client = PredictorServiceClient::connect(format!("http://{address}")).await?;

    let capped = BoundaryValues { max_harvest_ratio: Some(0.2), ..BoundaryValues::default() };
    let bolder = BoundaryValues { target_violation_rate: Some(0.05), ..BoundaryValues::default() };
    // The day before `from` warms the machines up, and is read as well.
    for (what, values, from, bound) in [
        ("29 days, forecasts as recorded", capped, NOW - (DAYS - 1) * DAY, Bound::AtMost(10.0, "s")),
        ("6 days, forecasts as recorded", capped, NOW - (FINE_DAYS - 1) * DAY, Bound::None("s")),
        ("6 days, forecasts made anew", bolder, NOW - (FINE_DAYS - 1) * DAY, Bound::None("s")),
    ] {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let asked = SimulateBoundaryRequest {
            scope: "fleet".to_owned(),
            values: Some(values),
            from: time(from),
            to: time(NOW),
            ..SimulateBoundaryRequest::default()
        };
        let (answer, took) = loop {
            let mut request = Request::new(asked.clone());
            request.set_timeout(Duration::from_secs(30));
            let begin = Instant::now();
            match client.simulate_boundary(request).await {
                Ok(answer) => break (answer.into_inner(), begin.elapsed()),
                // It has not heard the boundaries yet.
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => return Err(status.into()),
            }
        };
        figures.add(what, took.as_secs_f64(), bound);
        figures.add("windows replayed", page::real(answer.windows), Bound::None(""));
    }
    stop.request();
    served.join_next().await.ok_or("the registry is gone")???;
    Ok(figures)
}

/// The program that stands beside the registry's.
async fn predictor(registry: &str, folder: &Path) -> Result<(Child, String), Error> {
    let program = Path::new(env!("CARGO_BIN_EXE_memharvest-registry")).with_file_name("memharvest-predictor");
    let mut child = Command::new(&program)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--registry", registry, "--data-dir"])
        .arg(folder)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!("{}: {error}; build it: cargo build --release --workspace", program.display())
        })?;
    let mut log = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
    while let Some(line) = log.next_line().await? {
        let line: serde_json::Value = serde_json::from_str(&line)?;
        if let Some(address) = line["address"].as_str() {
            let address = address.to_owned();
            // Read on, so that it never waits for us.
            let mut rest = JoinSet::new();
            rest.spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
            rest.detach_all();
            return Ok((child, address));
        }
    }
    Err("the predictor has ended".into())
}
