//! PostgreSQL restarted, crashed and cut off under load: callers hear of it within their time, what was acknowledged is there once, and
//! everything goes on by itself afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_proto::registry::v1::{ListViolationsRequest, RecordViolationsRequest};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::postgres::Server;
use crate::process::{Acknowledged, WRITERS, program, start, verify, write};
use crate::proxy::{Network, Proxy};
use crate::records::{T0, violation};
use crate::server::eventually;

/// How long a caller waits.
const CALLERS_PATIENCE: Duration = Duration::from_secs(8);

/// Writers that try again whenever they are refused.
struct Load {
    all: Arc<Mutex<Acknowledged>>,
    steps: Arc<AtomicU64>,
    writers: JoinSet<()>,
}

impl Load {
    fn on(channel: &Channel) -> Self {
        let (all, steps) = (Arc::new(Mutex::new(Acknowledged::default())), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (channel, all, steps) = (channel.clone(), Arc::clone(&all), Arc::clone(&steps));
            writers.spawn(async move {
                loop {
                    write(writer, channel.clone(), Arc::clone(&all), Arc::clone(&steps)).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Self { all, steps, writers }
    }

    async fn more(&self, count: u64) {
        let enough = self.steps.load(Ordering::Relaxed) + count;
        eventually("some load", async || (self.steps.load(Ordering::Relaxed) >= enough).then_some(())).await;
    }

    async fn end(mut self) -> Acknowledged {
        self.writers.shutdown().await;
        self.all.lock().unwrap().clone()
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALLERS_PATIENCE);
    request
}

async fn reads(channel: &Channel) -> Result<(), Status> {
    let request = patient(ListViolationsRequest { page_size: 1, ..Default::default() });
    ViolationServiceClient::new(channel.clone()).list_violations(request).await.map(drop)
}

async fn writes(channel: &Channel, id: &str) -> Result<(), Status> {
    let violations = vec![violation(id, 99, T0, 1)];
    let request = patient(RecordViolationsRequest { predictor_id: "p".to_owned(), violations });
    ViolationServiceClient::new(channel.clone()).record_violations(request).await.map(drop)
}

/// Both kinds of callers are told, each within its time, that it may try again.
async fn are_told(channel: &Channel, what: &str) {
    let (read, written) = tokio::join!(reads(channel), writes(channel, what));
    for (call, outcome) in [("a read", read), ("a write", written)] {
        let status = outcome.expect_err(call);
        assert_eq!(status.code(), Code::Unavailable, "{what}: {call}: {status:?}");
        assert!(status.message().contains("try again"), "{what}: {call}: {status:?}");
    }
}

/// The same calls pass, without anybody's help.
async fn pass_again(channel: &Channel, what: &str) {
    eventually("reads and writes pass again", async || {
        (reads(channel).await.is_ok() && writes(channel, what).await.is_ok()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restarted_under_load_is_told_and_found_again() {
    let mut server = Server::start().await;
    let url = server.database().await;
    let (_registry, channel) = start(program(&url)).await;
    let load = Load::on(&channel);
    for what in ["restarted", "crashed"] {
        load.more(20).await;
        if what == "crashed" {
            server.kill();
        } else {
            server.stop();
        }
        are_told(&channel, what).await;
        server.start_again().await;
        pass_again(&channel, what).await;
    }
    load.more(20).await;
    verify(channel, &load.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_breaks_under_load_is_told_and_mends() {
    let server = Server::start().await;
    let url = server.database().await;
    let proxy = Proxy::before(server.port()).await;
    let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port));
    let (_registry, channel) = start(program(&url)).await;
    let load = Load::on(&channel);
    for (what, network) in [("cut", Network::Cut), ("silent", Network::Silent), ("cut-again", Network::Cut)] {
        load.more(20).await;
        proxy.set(network);
        are_told(&channel, what).await;
        proxy.set(Network::Whole);
        pass_again(&channel, what).await;
    }
    load.more(20).await;
    verify(channel, &load.end().await).await;
}
