//! Whole readings of hosts through a predictor, over gRPC, with the senders beside it in the same process.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::StreamExt;
use memharvest_predictor::state_file::StateFile;
use memharvest_predictor::{Settings, start};
use memharvest_proto::predictor::v1::ObserveRequest;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_services::shutdown::Stop;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::hosts::Host;
use crate::now;
use crate::page::{Bound, Page};
use crate::spent::Spent;

const HOSTS: u64 = 4;
const MACHINES: u64 = 1000;
const SPAN: Duration = Duration::from_secs(20);
/// Readings of a stream that are on their way at a time.
const IN_FLIGHT: usize = 4;

pub(crate) async fn tell(page: &mut Page) -> anyhow::Result<()> {
    page.section("Readings over gRPC");
    let folder = tempfile::tempdir()?;
    // Known boundaries, none set: a predictor that has not heard of any harvests nothing.
    let file = StateFile::open(&folder.path().join("predictor.db"), 1 << 30).await?;
    file.save_boundaries(1, []).await?;
    file.close().await;
    let settings = Settings::parse_from([
        "memharvest-predictor".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--registry=http://127.0.0.1:1".to_owned(),
        "--cold-start=60s".to_owned(),
        format!("--data-dir={}", folder.path().display()),
    ]);
    let stop = Stop::new();
    let running = start(settings, stop.clone()).await?;
    let url = format!("http://{}", running.address);
    let mut served = JoinSet::new();
    served.spawn(running.finished());

    let started = now() - 72_000.0;
    let mut senders = JoinSet::new();
    for number in 0..HOSTS {
        senders.spawn(send(Host::new(number, MACHINES, started), url.clone()));
    }
    let spent = Spent::now();
    let mut readings = 0;
    while let Some(sent) = senders.join_next().await {
        readings += sent??;
    }
    let each = spent.on(readings);
    let what = format!("readings of machines in a second, {HOSTS} streams of {MACHINES} machines");
    page.figure(&what, each.per_second, "", Bound::AtLeast(150_000.0));
    page.figure("a reading of a machine, sender and predictor together", each.nanoseconds, "ns", Bound::None);
    stop.request();
    while let Some(served) = served.join_next().await {
        served??;
    }
    Ok(())
}

async fn send(mut host: Host, url: String) -> anyhow::Result<u64> {
    let limit = 64 << 20;
    let mut client = PredictorServiceClient::connect(url)
        .await?
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let (requests, waiting) = mpsc::channel(IN_FLIGHT);
    let mut answers = client.observe(ReceiverStream::new(waiting)).await?.into_inner();
    let until = Instant::now() + SPAN;
    let (mut in_flight, mut readings) = (0, 0);
    loop {
        while in_flight < IN_FLIGHT && Instant::now() < until {
            requests.send(ObserveRequest { reading: Some(host.next()) }).await?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(readings);
        }
        let answer = answers.next().await.context("the stream ended")??;
        ensure!(answer.refused_reason.is_empty(), "refused: {}", answer.refused_reason);
        readings += answer.update.context("no forecasts")?.vms.len() as u64;
        in_flight -= 1;
    }
}
