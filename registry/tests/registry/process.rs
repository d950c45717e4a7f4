//! The real program, killed in the middle of write load: every acknowledged record is there, none is doubled.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::records::{T0, at, batch_of, violation, vm_id, vm_window};
use crate::server::{PATIENCE, database, eventually};
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_proto::registry::v1::{
    BoundaryValues, ListBoundaryVersionsRequest, ListViolationsRequest, QueryHistoryRequest,
    RecordViolationsRequest, SetBoundaryRequest,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// How often the registry is killed; `make soak` says more.
fn rounds() -> u64 {
    std::env::var("SOAK_ROUNDS").map_or(5, |rounds| rounds.parse().expect("SOAK_ROUNDS is a number"))
}

pub(crate) const WRITERS: u32 = 4;
const MACHINES: u32 = 20;

pub(crate) fn program(database: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memharvest-registry"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]);
    command.args(["--retention", "100years", "--hourly-after", "100years"]);
    command
        .arg("--database")
        .arg(database.as_ref())
        .kill_on_drop(true)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Starts the program and waits until it tells where it listens.
pub(crate) async fn start(mut program: Command) -> (Child, Channel) {
    let mut child = program.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = log.next_line().await.unwrap().expect("the program lives");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = line["grpc"].as_str() {
                return address.to_owned();
            }
        }
    });
    let address = address.await.expect("an address in time");
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (child, channel)
}

/// What a writer was told to be durable.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged {
    /// Start of the last acknowledged window of each writer's machines.
    pub(crate) windows: BTreeMap<u32, i64>,
    /// Ids of violations.
    pub(crate) violations: Vec<String>,
    /// The newest version of each writer's boundary.
    pub(crate) boundaries: BTreeMap<u32, u64>,
}

/// Writes on and on until the registry is gone. Each step but the last is acknowledged; the last one may be stored or not, and is
/// sent again in the next round.
pub(crate) async fn write(
    writer: u32,
    channel: Channel,
    all: Arc<Mutex<Acknowledged>>,
    steps: Arc<AtomicU64>,
) {
    let mut harvest = HarvestServiceClient::new(channel.clone());
    let mut violations = ViolationServiceClient::new(channel.clone());
    let mut boundaries = BoundaryServiceClient::new(channel);
    loop {
        let (start, version) = {
            let all = all.lock().unwrap();
            let start = all.windows.get(&writer).map_or(T0, |start| start + 300);
            (start, all.boundaries.get(&writer).copied().unwrap_or(0))
        };
        let vms = (0..MACHINES).map(|i| vm_window(u128::from(writer * MACHINES + i), start)).collect();
        if harvest.record_harvest(batch_of(vms)).await.is_err() {
            return;
        }
        all.lock().unwrap().windows.insert(writer, start);
        let id = format!("{writer}-{start}");
        let request = RecordViolationsRequest {
            predictor_id: "p".to_owned(),
            violations: vec![violation(&id, u128::from(writer), start, 1)],
        };
        if violations.record_violations(request).await.is_err() {
            return;
        }
        all.lock().unwrap().violations.push(id);
        let request = |version: u64| SetBoundaryRequest {
            scope: format!("host:w{writer}"),
            values: Some(BoundaryValues { floor_bytes: Some(version), ..BoundaryValues::default() }),
            etag: if version == 0 { String::new() } else { format!("\"{version}\"") },
            ..SetBoundaryRequest::default()
        };
        let set = match boundaries.set_boundary(request(version)).await {
            // The last change before the kill was stored, only its answer was lost.
            Err(status)
                if [tonic::Code::Aborted, tonic::Code::FailedPrecondition].contains(&status.code()) =>
            {
                boundaries.set_boundary(request(version + 1)).await
            }
            set => set,
        };
        let Ok(set) = set else { return };
        all.lock().unwrap().boundaries.insert(writer, set.into_inner().boundary.unwrap().version);
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything that was acknowledged is there, once.
pub(crate) async fn verify(channel: Channel, all: &Acknowledged) {
    let mut harvest = HarvestServiceClient::new(channel.clone());
    for (writer, last) in &all.windows {
        for i in 0..MACHINES {
            let number = u128::from(writer * MACHINES + i);
            let request = QueryHistoryRequest {
                subject: Some(Subject::VmId(vm_id(number))),
                from: at(T0),
                to: at(last + 1),
                step: None,
            };
            let found = harvest.query_history(request).await.unwrap().into_inner().vms;
            let expected: Vec<_> = (T0..=*last).step_by(300).map(|start| vm_window(number, start)).collect();
            assert_eq!(found, expected, "machine {number}");
        }
    }
    let mut violations = ViolationServiceClient::new(channel.clone());
    let mut request = ListViolationsRequest { page_size: 1000, ..Default::default() };
    let mut ids = Vec::new();
    loop {
        let page = violations.list_violations(request.clone()).await.unwrap().into_inner();
        ids.extend(page.violations.into_iter().map(|one| one.violation_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let stored = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), stored, "none is doubled");
    for id in &all.violations {
        assert!(ids.binary_search(id).is_ok(), "violation {id} was acknowledged and is lost");
    }
    let mut boundaries = BoundaryServiceClient::new(channel);
    for (writer, version) in &all.boundaries {
        let scope = format!("host:w{writer}");
        let request = ListBoundaryVersionsRequest { scope, page_size: 1000, ..Default::default() };
        let versions = boundaries.list_boundary_versions(request).await.unwrap().into_inner().boundaries;
        let numbers: Vec<u64> = versions.iter().rev().map(|one| one.version).collect();
        let newest = numbers.last().copied().unwrap_or(0);
        assert!(newest >= *version, "version {version} was acknowledged");
        assert_eq!(numbers, (1..=newest).collect::<Vec<u64>>(), "each version once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_sqlite_it_loses_and_doubles_nothing_that_was_acknowledged() {
    let (_folder, path) = database();
    kill_again_and_again(path.as_os_str()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_postgresql_it_loses_and_doubles_nothing_that_was_acknowledged() {
    kill_again_and_again(crate::postgres::database().await.as_ref()).await;
}

async fn kill_again_and_again(database: &OsStr) {
    let all = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 1..=rounds() {
        let (mut child, channel) = start(program(database)).await;
        let so_far = all.lock().unwrap().clone();
        verify(channel.clone(), &so_far).await;
        let steps = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(writer, channel.clone(), Arc::clone(&all), Arc::clone(&steps)));
        }
        // At a different depth of the load every time.
        let enough = 5 + 7 * (round % 8);
        eventually("some load", async || (steps.load(Ordering::Relaxed) >= enough).then_some(())).await;
        child.kill().await.unwrap();
        writers.join_all().await;
    }
    let (mut child, channel) = start(program(database)).await;
    let all = all.lock().unwrap().clone();
    verify(channel, &all).await;
    assert!(all.violations.len() as u64 >= rounds() * 5);
    child.kill().await.unwrap();
}

pub(crate) async fn ends(mut command: Command) -> (ExitStatus, String) {
    let output: Output =
        tokio::time::timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_cannot_work_is_told_in_one_line_with_the_right_exit_code() {
    let (folder, path) = database();
    std::fs::write(&path, "no database".repeat(100)).unwrap();
    let (status, stderr) = ends(program(&path)).await;
    assert_eq!(status.code(), Some(1));
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("memharvest-registry: cannot open database"), "{last}");
    assert!(last.contains("not a SQLite database; move it away or pass --database"), "{last}");

    let (status, stderr) = ends(program(folder.path().join("missing/registry.db"))).await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.lines().last().unwrap().contains("create it or pass --database"), "{stderr}");

    let (status, stderr) = ends(program("mysql://db/memharvest")).await;
    assert_eq!((status.code(), stderr.lines().count()), (Some(64), 1), "{stderr}");
    assert!(stderr.contains("no such kind of database"), "{stderr}");

    let mut unknown = program(&path);
    unknown.arg("--databse=x");
    assert_eq!(ends(unknown).await.0.code(), Some(2));
}

#[tokio::test]
async fn it_ends_in_time_when_it_is_asked_to() {
    let (_folder, path) = database();
    let (mut child, channel) = start(program(&path)).await;
    let mut violations = ViolationServiceClient::new(channel);
    let mut watch = violations
        .watch_violations(memharvest_proto::registry::v1::WatchViolationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let status =
        tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("an end in time").unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(watch.message().await.unwrap_err().code(), tonic::Code::Unavailable);
}
