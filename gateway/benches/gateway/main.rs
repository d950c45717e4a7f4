//! What the gateway serves, and how fast, with a fleet of 1,000 hosts and 30,000 machines behind it: written to
//! `docs/benchmarks/gateway.md`.
//!
//! The gateway is the released program, in a process of its own; the predictor and the registry that feed it, and the
//! clients, are in this one, beside it on the same processors.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^53")]

mod behind;
mod figures;
mod load;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use behind::Behind;
use figures::{Figure, page};
use memharvest_proto::gateway::v1::WatchFleetRequest;
use memharvest_proto::gateway::v1::fleet_service_client::FleetServiceClient;
use memharvest_services::proto_time::from_proto;
use tokio::task::JoinSet;
use tonic::transport::Channel;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks/gateway.md");
/// Keep-alive connections that ask at once.
const CONNECTIONS: usize = 16;
/// How long each load lasts.
const LOAD: Duration = Duration::from_secs(10);
/// Times that a page is fetched.
const FETCHES: usize = 7;
/// Streams of live state that are open at once.
const STREAMS: usize = 1000;

/// The program under test. It ends with this.
struct Gateway(Child, SocketAddr);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let behind = Behind::start().await?;
    let gateway = start(&behind).await?;
    let base = format!("http://{}", gateway.1);
    let mut figures = vec![rest(&base).await?];
    figures.push(fetched(&base, "`/metrics` of 1,000 hosts, the slowest of 7", "/metrics", 0.1).await?);
    let all = "/federate?match[]=%7B__name__%3D~%22memharvest_.%2B%22%7D";
    figures.push(
        fetched(&base, "`/federate` of all series of 30,000 machines, the slowest of 7", all, 1.5).await?,
    );
    figures.push(latency(&base, &behind).await?);
    figures.push(streams(&base, &behind).await?);
    let page = page(&figures);
    std::fs::write(PAGE, &page).with_context(|| format!("cannot write {PAGE}"))?;
    #[expect(clippy::print_stdout, reason = "what was asked for")]
    {
        println!("{page}");
    }
    Ok(())
}

/// Starts the program and waits until it shows the whole fleet.
async fn start(behind: &Behind) -> anyhow::Result<Gateway> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new(env!("CARGO_BIN_EXE_memharvest-gateway"))
        .args([format!("--listen={free}"), "--admin-listen=127.0.0.1:0".into()])
        .args([format!("--registry={}", behind.url), format!("--predictor={}", behind.url)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let gateway = Gateway(child, free);
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let fleet = load::get(&format!("http://{free}"), "/api/v1/fleet").await;
        let complete = fleet.as_ref().is_ok_and(|(_, body)| {
            let fleet: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            fleet["vms"] == behind::HOSTS * behind::VMS_A_HOST
        });
        if complete {
            return Ok(gateway);
        }
        ensure!(Instant::now() < deadline, "the gateway does not show the whole fleet");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn rest(base: &str) -> anyhow::Result<Figure> {
    let mut took = load::pages(base, CONNECTIONS, LOAD).await?;
    took.sort();
    let rate = took.len() as f64 / LOAD.as_secs_f64();
    let p99 = took[took.len() * 99 / 100].as_secs_f64() * 1e3;
    Ok(Figure {
        what: format!("pages of 100 machines out of 30,000, {CONNECTIONS} connections"),
        found: format!("{rate:.0} a second, 99th percentile {p99:.1} ms"),
        target: "≥ 3,000 a second and ≤ 10 ms",
        met: rate >= 3000.0 && p99 <= 10.0,
    })
}

async fn fetched(base: &str, what: &str, path: &str, longest_s: f64) -> anyhow::Result<Figure> {
    let (mut slowest, mut bytes) = (0.0_f64, 0);
    for _ in 0..FETCHES {
        let started = Instant::now();
        let (status, body) = load::get(base, path).await?;
        ensure!(status == 200, "{path}: {status}");
        slowest = slowest.max(started.elapsed().as_secs_f64());
        bytes = body.len();
    }
    Ok(Figure {
        what: what.into(),
        found: format!("{:.0} ms for {:.1} MB", slowest * 1e3, bytes as f64 / 1e6),
        target: if longest_s < 1.0 { "≤ 100 ms" } else { "≤ 1.5 s" },
        met: slowest <= longest_s,
    })
}

async fn client(base: &str) -> anyhow::Result<FleetServiceClient<Channel>> {
    let channel = Channel::from_shared(base.to_owned())?.connect().await?;
    Ok(FleetServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
}

/// How old a reading is when a client of `WatchFleet` has it.
async fn latency(base: &str, behind: &Behind) -> anyhow::Result<Figure> {
    let mut events = client(base)
        .await?
        .watch_fleet(WatchFleetRequest { include_hosts: true, ..Default::default() })
        .await?
        .into_inner();
    let mut ages = Vec::new();
    let reporting = behind.report_now_and_then();
    let watching = async {
        while ages.len() < 200 {
            let Some(event) = events.message().await? else { break };
            let now = jiff::Timestamp::now();
            for host in event.updates.iter().filter_map(|update| update.host.as_ref()) {
                let read_at = host.read_at.as_ref().and_then(|at| from_proto(at).ok());
                let Some(read_at) = read_at.filter(|at| behind.was_reported(&host.host_id, *at)) else {
                    continue;
                };
                ages.push(now.duration_since(read_at).as_secs_f64());
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = watching => done?,
        () = reporting => {}
    }
    ensure!(!ages.is_empty(), "no reading arrived");
    ages.sort_by(f64::total_cmp);
    let worst = ages[ages.len() - 1];
    Ok(Figure {
        what: format!("age of a reading at a client of `WatchFleet`, {} readings", ages.len()),
        found: format!("median {:.2} s, at most {worst:.2} s", ages[ages.len() / 2]),
        target: "≤ 1 s",
        met: worst <= 1.0,
    })
}

/// What streams of live state cost the registry.
async fn streams(base: &str, behind: &Behind) -> anyhow::Result<Figure> {
    let window = Duration::from_secs(10);
    let calls_within = async || {
        let before = behind.calls();
        tokio::time::sleep(window).await;
        behind.calls() - before
    };
    let alone = calls_within().await;
    let mut open = JoinSet::new();
    for _ in 0..STREAMS / 100 {
        let client = client(base).await?;
        for _ in 0..100 {
            let mut client = client.clone();
            open.spawn(async move {
                let mut events = client.watch_fleet(WatchFleetRequest::default()).await?.into_inner();
                events.message().await?;
                std::future::pending::<()>().await;
                anyhow::Ok(())
            });
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let watched = calls_within().await;
    while let Some(ended) = open.try_join_next() {
        ended??;
    }
    Ok(Figure {
        what: format!(
            "calls to the registry in {} s: nobody watches, {STREAMS} clients watch",
            window.as_secs()
        ),
        found: format!("{alone}, {watched}"),
        target: "the same, give or take one round of questions",
        met: watched <= alone + 3,
    })
}
