//! Two registries on one database: each sees what the other stores, and one that is killed takes nothing with it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_proto::registry::v1::{
    Agent, AgentState, BoundaryValues, GetAgentRequest, HeartbeatRequest, SetBoundaryRequest,
    UpdateAgentRequest, WatchBoundariesRequest, WatchViolationsRequest,
};
use tokio::process::Child;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::postgres::Server;
use crate::process::{Acknowledged, WRITERS, program, start, verify, write};
use crate::records::{lasting, registration};
use crate::server::{eventually, next};

async fn replica(url: &str, agent_id: &str) -> (Child, Channel) {
    let mut program = program(url);
    program.args(["--agent-id", agent_id, "--heartbeat-interval", "200ms", "--lost-after", "2s"]);
    start(program).await
}

fn boundaries_of(channel: &Channel) -> BoundaryServiceClient<Channel> {
    BoundaryServiceClient::new(channel.clone())
}

/// Everything that a registry's watches have told.
#[derive(Default)]
struct Watched {
    /// Revisions of boundaries, in the order they came.
    revisions: Vec<u64>,
    violations: BTreeSet<String>,
}

/// Watches both ledgers through one registry.
async fn watch(channel: &Channel, tasks: &mut JoinSet<()>) -> Arc<Mutex<Watched>> {
    let watched = Arc::new(Mutex::new(Watched::default()));
    let request = WatchBoundariesRequest { after_revision: 0 };
    let mut boundaries = boundaries_of(channel).watch_boundaries(request).await.unwrap().into_inner();
    assert!(next(&mut boundaries).await.snapshot_complete, "nothing is set yet");
    let request = WatchViolationsRequest { include_open: true };
    let mut violations =
        ViolationServiceClient::new(channel.clone()).watch_violations(request).await.unwrap().into_inner();
    let all = Arc::clone(&watched);
    tasks.spawn(async move {
        while let Ok(Some(change)) = boundaries.message().await {
            all.lock().unwrap().revisions.push(change.revision);
        }
    });
    let all = Arc::clone(&watched);
    tasks.spawn(async move {
        while let Ok(Some(change)) = violations.message().await {
            all.lock().unwrap().violations.insert(change.violation.unwrap().violation_id);
        }
    });
    watched
}

/// Writes through one registry until it is gone, then through the other.
fn spawn_writers(
    tasks: &mut JoinSet<()>,
    channels: &[Channel; 2],
    all: &Arc<Mutex<Acknowledged>>,
    steps: &Arc<AtomicU64>,
) {
    for writer in 0..WRITERS {
        let (channels, all, steps) = (channels.clone(), Arc::clone(all), Arc::clone(steps));
        tasks.spawn(async move {
            for channel in channels.iter().cycle() {
                write(writer, channel.clone(), Arc::clone(&all), Arc::clone(&steps)).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_is_killed_under_load_and_nothing_is_lost_doubled_or_missed() {
    let server = Server::start().await;
    let url = server.database().await;
    let (mut first, to_first) = replica(&url, "first").await;
    let (_second, to_second) = replica(&url, "second").await;
    let mut tasks = JoinSet::new();
    let watched = watch(&to_second, &mut tasks).await;
    let all = Arc::new(Mutex::new(Acknowledged::default()));
    let steps = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    spawn_writers(&mut writers, &[to_first, to_second.clone()], &all, &steps);
    let more = async |count: u64| {
        let enough = steps.load(Ordering::Relaxed) + count;
        eventually("some load", async || (steps.load(Ordering::Relaxed) >= enough).then_some(())).await;
    };
    more(20).await;
    first.kill().await.unwrap();
    more(20).await;
    let (_first, to_first) = replica(&url, "first").await;
    more(5).await;
    writers.shutdown().await;

    let acknowledged = all.lock().unwrap().clone();
    for channel in [to_first, to_second.clone()] {
        verify(channel, &acknowledged).await;
    }
    eventually("everything in the watches", async || {
        let watched = watched.lock().unwrap();
        let told = acknowledged.violations.iter().all(|id| watched.violations.contains(id));
        (told && watched.revisions.len() as u64 >= acknowledged.boundaries.values().sum()).then_some(())
    })
    .await;
    let revisions = watched.lock().unwrap().revisions.clone();
    let expected: Vec<u64> = (1..=revisions.len() as u64).collect();
    assert_eq!(revisions, expected, "every change once, in order");
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_is_told_at_once_and_found_again() {
    let mut server = Server::start().await;
    let url = server.database().await;
    let (_registry, channel) = replica(&url, "only").await;
    let mut boundaries = boundaries_of(&channel);
    let mut set = async |version: u64| {
        let request = SetBoundaryRequest {
            scope: "fleet".to_owned(),
            values: Some(BoundaryValues { floor_bytes: Some(version), ..BoundaryValues::default() }),
            etag: if version == 1 { String::new() } else { format!("\"{}\"", version - 1) },
            ..SetBoundaryRequest::default()
        };
        boundaries.set_boundary(request).await.map(|set| set.into_inner().boundary.unwrap().version)
    };
    assert_eq!(set(1).await.unwrap(), 1);
    server.kill();
    assert_eq!(set(2).await.unwrap_err().code(), tonic::Code::Unavailable);
    server.start_again().await;
    eventually("the server found again", async || {
        set(2).await.is_ok_and(|version| version == 2).then_some(())
    })
    .await;
    // The watch ended with the database; it goes on from where it was.
    let request = WatchBoundariesRequest { after_revision: 1 };
    let mut watch = boundaries_of(&channel).watch_boundaries(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.revision, 2);
}

async fn agent(channel: &Channel, agent_id: &str) -> Agent {
    let request = GetAgentRequest { agent_id: agent_id.to_owned() };
    AgentServiceClient::new(channel.clone()).get_agent(request).await.unwrap().into_inner().agent.unwrap()
}

async fn beat(channel: &Channel, instance_id: &str) -> Option<prost_types::Duration> {
    let (agent_id, instance_id) = ("h".to_owned(), instance_id.to_owned());
    let request = HeartbeatRequest { agent_id, instance_id, findings: vec![] };
    AgentServiceClient::new(channel.clone()).heartbeat(request).await.unwrap().into_inner().interval
}

#[tokio::test]
async fn an_agent_is_as_live_to_one_as_to_the_other() {
    let server = Server::start().await;
    let url = server.database().await;
    let (_first, to_first) = replica(&url, "first").await;
    let (_second, to_second) = replica(&url, "second").await;
    let register = async |channel: &Channel, instance_id: &str| {
        let request = registration("h", instance_id);
        AgentServiceClient::new(channel.clone()).register_agent(request).await.unwrap();
    };
    register(&to_first, "a").await;
    assert_eq!(agent(&to_second, "h").await.state(), AgentState::Live);
    // It goes on with the other registry, which never saw it register.
    beat(&to_second, "a").await;
    eventually("silence", async || (agent(&to_first, "h").await.state() == AgentState::Late).then_some(()))
        .await;
    beat(&to_second, "a").await;
    eventually("news of it", async || {
        (agent(&to_first, "h").await.state() == AgentState::Live).then_some(())
    })
    .await;

    // An order that one takes reaches it through the other.
    let known = agent(&to_first, "h").await;
    let request = UpdateAgentRequest {
        agent: Some(Agent { interval: lasting(30), ..known }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["interval".to_owned()] }),
    };
    AgentServiceClient::new(to_first.clone()).update_agent(request).await.unwrap();
    eventually("the order", async || (beat(&to_second, "a").await == lasting(30)).then_some(())).await;

    // A clone that talks to the first one, while the agent goes on talking to the second.
    register(&to_first, "b").await;
    for channel in [&to_first, &to_second] {
        eventually("the clone told apart", async || {
            beat(&to_first, "b").await;
            beat(&to_second, "a").await;
            let told = agent(channel, "h").await;
            (told.instance_id == "b" && told.duplicate_instance_id == "a").then_some(())
        })
        .await;
    }
    for channel in [&to_first, &to_second] {
        eventually("the clone gone", async || {
            beat(&to_first, "b").await;
            agent(channel, "h").await.duplicate_instance_id.is_empty().then_some(())
        })
        .await;
    }
    eventually("lost for both", async || {
        let states = [agent(&to_first, "h").await.state(), agent(&to_second, "h").await.state()];
        (states == [AgentState::Lost; 2]).then_some(())
    })
    .await;
}
