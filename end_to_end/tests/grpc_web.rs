//! What a browser's client sends, by buf: grpc-web on the port that serves REST and gRPC, streams included.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use memharvest_end_to_end::grpcurl::Grpcurl;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::tools::python_program;
use memharvest_end_to_end::wait::wait_for;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

const SOON: Duration = Duration::from_mins(1);

/// A call over grpc-web that runs, and what it has answered with so far.
struct Call {
    _running: Child,
    said: BufReader<ChildStdout>,
}

impl Call {
    fn start(mesh: &Mesh, method: &str, json: &str) -> Self {
        let contract = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("proto");
        let mut running = Command::from(python_program("buf").unwrap())
            .args(["curl", "--protocol", "grpcweb", "--schema"])
            .arg(contract)
            .args(["-d", json, &format!("{}/{method}", mesh.url("gateway").unwrap())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(running.stdout.take().unwrap());
        Self { _running: running, said }
    }

    /// The next message: a JSON object that ends on a line of its own.
    async fn message(&mut self) -> anyhow::Result<Value> {
        let mut text = String::new();
        let reading = async {
            while !text.ends_with("\n}\n") && text != "{}\n" {
                ensure!(self.said.read_line(&mut text).await? > 0, "the call ended with {text:?}");
            }
            Ok(serde_json::from_str(&text)?)
        };
        tokio::time::timeout(SOON, reading).await.context("no message")?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_answers_and_streams_on_the_port_of_rest_and_grpc() {
    // Violations come within seconds.
    let mesh = Mesh::up(&["--simulate", "2x5", "--seed", "1", "--speed", "300"]).await.unwrap();
    wait_for(SOON, "all machines", async || {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["vms"] == 10, "{fleet}");
        Ok(())
    })
    .await
    .unwrap();
    let mut once = Call::start(&mesh, "memharvest.gateway.v1.FleetService/GetFleet", "{}");
    assert_eq!(once.message().await.unwrap()["fleet"]["vms"], 10);

    let mut fleet =
        Call::start(&mesh, "memharvest.gateway.v1.FleetService/WatchFleet", r#"{"include_hosts": true}"#);
    let first = fleet.message().await.unwrap();
    assert_eq!(first["updates"].as_array().unwrap().len(), 2, "{first}");
    let mut changes = 0;
    while changes < 3 {
        let event = fleet.message().await.unwrap();
        assert!(event["fleet"]["readAt"].is_string(), "{event}");
        changes += event["updates"].as_array().map_or(0, Vec::len);
    }

    let violations = "memharvest.registry.v1.ViolationService/WatchViolations";
    let mut violations = Call::start(&mesh, violations, r#"{"include_open": true}"#);
    let event = violations.message().await.unwrap();
    assert!(event["violation"]["violationId"].is_string(), "{event}");

    // The same port speaks gRPC to programs, and finds everything by reflection.
    let grpcurl = Grpcurl::new(mesh.address("gateway").unwrap());
    let answer = grpcurl.first_message("memharvest.gateway.v1.FleetService/WatchFleet", "{}").await.unwrap();
    assert!(answer.text.contains("\"vms\": 10"), "{}", answer.text);
}
