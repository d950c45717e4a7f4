//! Two registries on one database lease the memory of one host at the same time.

use std::collections::BTreeSet;

use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::lease_service_client::LeaseServiceClient;
use memharvest_proto::registry::v1::{
    HostHarvest, Lease, LeaseState, ListLeasesRequest, RecordHarvestRequest, ReserveMemoryRequest,
    WatchLeasesRequest,
};
use tokio::process::Child;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::postgres::Server;
use crate::process::{program, start};
use crate::records::{T0, at, batch_of, harvest, lasting};
use crate::server::next;

const GIB: u64 = 1 << 30;

async fn replica(url: &str, agent_id: &str) -> (Child, Channel) {
    let mut program = program(url);
    program.args(["--agent-id", agent_id]);
    start(program).await
}

/// Reserves like a scheduler: what is refused because the registry is busy is asked for again, with the same key.
async fn reserve(channel: Channel, key: String, bytes: u64) -> Result<Lease, Status> {
    let request = ReserveMemoryRequest {
        host_id: "h".to_owned(),
        bytes,
        ttl: lasting(3600),
        holder: "scheduler".to_owned(),
        idempotency_key: key,
        ..Default::default()
    };
    let mut client = LeaseServiceClient::new(channel);
    loop {
        match client.reserve_memory(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => {}
            decided => return Ok(decided?.into_inner().lease.unwrap()),
        }
    }
}

async fn live(channel: &Channel) -> Vec<Lease> {
    let request = ListLeasesRequest {
        host_id: "h".to_owned(),
        state: LeaseState::Live.into(),
        page_size: 1000,
        ..Default::default()
    };
    LeaseServiceClient::new(channel.clone()).list_leases(request).await.unwrap().into_inner().leases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_registries_never_lease_a_byte_twice() {
    let server = Server::start().await;
    let url = server.database().await;
    let (_first, to_first) = replica(&url, "first").await;
    let (_second, to_second) = replica(&url, "second").await;
    let channels = [to_first.clone(), to_second.clone()];
    let told = HostHarvest { valid_until: at(7_000_000_000), ..harvest("h", T0, 100 * GIB) };
    let batch = RecordHarvestRequest { harvests: vec![told], ..batch_of(vec![]) };
    HarvestServiceClient::new(to_first.clone()).record_harvest(batch).await.unwrap();
    let mut watch = LeaseServiceClient::new(to_second.clone())
        .watch_leases(WatchLeasesRequest { include_live: true, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert!(next(&mut watch).await.snapshot_complete, "nothing is leased yet");

    let mut all = JoinSet::new();
    for i in 0..300_usize {
        // Every third request comes to both at the same time, as a retry does that was sent too early.
        let everywhere = i % 3 == 0;
        for (_, channel) in channels.iter().enumerate().filter(|(place, _)| everywhere || i % 2 == *place) {
            all.spawn(reserve(channel.clone(), format!("key {i}"), (1 + i as u64 % 4) * GIB));
        }
    }
    let mut made: BTreeSet<(String, u64)> = BTreeSet::new();
    while let Some(outcome) = all.join_next().await {
        match outcome.unwrap() {
            Ok(lease) => drop(made.insert((lease.lease_id, lease.bytes))),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
    }
    let given: u64 = made.iter().map(|(_, bytes)| bytes).sum();
    assert!(given <= 100 * GIB, "{given} bytes of {} are leased", 100 * GIB);
    assert!(given > 96 * GIB, "the smallest that were refused would have fitted: {given}");
    for channel in &channels {
        let listed: BTreeSet<_> =
            live(channel).await.into_iter().map(|lease| (lease.lease_id, lease.bytes)).collect();
        assert_eq!(listed, made);
    }
    let (mut revisions, mut watched) = (Vec::new(), BTreeSet::new());
    for _ in &made {
        let event = next(&mut watch).await;
        let lease = event.lease.unwrap();
        revisions.push(event.revision);
        watched.insert((lease.lease_id, lease.bytes));
    }
    assert_eq!(watched, made, "those of the other registry too");
    assert_eq!(revisions, (1..=made.len() as u64).collect::<Vec<_>>(), "every change once, in order");
}
