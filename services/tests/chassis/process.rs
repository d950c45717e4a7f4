//! The example service as a process: exit codes, signals, a parent that goes away, traces that leave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::collector_service_client::CollectorServiceClient;
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, connect_lazy};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use tonic::Code;

use crate::support::{PATIENCE, SERVICE, ask, get};

fn minimal() -> Command {
    let tests = std::env::current_exe().unwrap();
    let example: PathBuf = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/minimal");
    assert!(example.exists(), "{} is built with all tests", example.display());
    let mut command = Command::new(example);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Exit code and stderr.
async fn outcome(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let output = minimal().args(args).envs(env.iter().copied()).output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    admin: SocketAddr,
    url: String,
}

async fn start(args: &[&str], stdin: Stdio) -> Running {
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
    let mut child = minimal().args(ports).args(args).stdin(stdin).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (admin, url) = loop {
        let line = lines.next_line().await.unwrap().expect("the process says where it listens");
        let line: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
        if let Some(admin) = line["admin_listen"].as_str() {
            let listen = line["listen"].as_str().expect("both addresses");
            break (admin.parse().unwrap(), format!("http://{listen}"));
        }
    };
    Running { child, lines, admin, url }
}

impl Running {
    async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        let mut log = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            log.push_str(&line);
            log.push('\n');
        }
        (status, log)
    }
}

#[tokio::test]
async fn a_healthcheck_asks_the_process_that_runs() {
    let running = start(&[], Stdio::null()).await;
    let admin = running.admin.to_string();
    let ask = async || outcome(&["--healthcheck"], &[("MEMHARVEST_ADMIN_LISTEN", &admin)]).await;
    assert_eq!(ask().await, (0, String::new()));
    drop(running.child);
    let (code, told) = loop {
        let answer = ask().await;
        if answer.0 != 0 {
            break answer;
        }
    };
    assert_eq!(code, 1);
    assert!(told.contains(&format!("no answer from http://{admin}/readyz")), "{told}");

    let waiting = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = waiting.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut asker, _) = waiting.accept().unwrap();
        let refusal = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false,\"waiting_for\":[\"store\"]}";
        assert!(asker.read(&mut [0; 1024]).unwrap() > 0);
        asker.write_all(refusal.as_bytes()).unwrap();
    });
    let (code, told) = outcome(&["--healthcheck", "--admin-listen", &admin], &[]).await;
    answering.join().unwrap();
    assert_eq!(code, 1);
    assert_eq!(told, "memharvest-minimal: not ready: {\"ready\":false,\"waiting_for\":[\"store\"]}\n");
    assert_eq!(outcome(&["--healthcheck", "--admin-listen", "127.0.0.1:0"], &[]).await.0, 1);
}

#[tokio::test]
async fn exit_codes_tell_whose_fault_it_is() {
    assert_eq!(outcome(&["--check"], &[]).await.0, 0);
    assert_eq!(outcome(&["--version"], &[]).await.0, 0);
    assert_eq!(outcome(&["--nonsense"], &[]).await.0, 2);
    let (code, told) = outcome(&["--check"], &[("MEMHARVEST_LISTN", "x")]).await;
    assert_eq!(code, 64);
    assert!(told.starts_with("memharvest-minimal: unknown environment variable MEMHARVEST_LISTN"), "{told}");
    assert_eq!(outcome(&["--listen", "0.0.0.0:0"], &[]).await.0, 64);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, told) = outcome(&["--listen", &address, "--log-filter", "off"], &[]).await;
    assert_eq!(code, 1);
    assert_eq!(
        told,
        format!(
            "memharvest-minimal: cannot listen on {address}: address in use; stop the other process or pass --listen\n"
        )
    );
}

#[tokio::test]
async fn a_signal_ends_it_in_good_order() {
    let running = start(&[], Stdio::null()).await;
    assert_eq!(get(running.admin, "/readyz").0, 200);
    let id = running.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let (status, log) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM") && log.contains("memharvest-minimal ends"), "{log}");
}

#[tokio::test]
async fn it_ends_with_its_parent() {
    let mut running = start(&["--supervised"], Stdio::piped()).await;
    drop(running.child.stdin.take());
    let (status, log) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the supervising process is gone"), "{log}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the receiver lives as long as the test's runtime")]
async fn traces_reach_a_receiver_and_one_that_is_away_holds_up_nothing() {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let export = |body: Bytes| async move {
        sender.send(body).unwrap();
        ([("content-type", "application/grpc"), ("grpc-status", "0")], "")
    };
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let router =
        Router::new().route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export));
    tokio::spawn(async move { axum::serve(receiver, router).await });

    let mut running = start(&["--otlp-endpoint", &url, "--supervised"], Stdio::piped()).await;
    let options = ClientOptions::new(&Metrics::new(&SERVICE).unwrap(), DESCRIPTORS).unwrap();
    let mut client = CollectorServiceClient::new(connect_lazy(&running.url, &options).unwrap());
    assert_eq!(client.get_reading(ask("h1")).await.unwrap_err().code(), Code::Unimplemented);
    drop(running.child.stdin.take());
    assert_eq!(running.ended().await.0.code(), Some(0));
    let body = tokio::time::timeout(PATIENCE, bodies.recv()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&body);
    for word in ["memharvest-minimal", "service.version", "service.instance.id", "rpc.method"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }

    let mut running = start(&["--otlp-endpoint", "http://127.0.0.1:1", "--supervised"], Stdio::piped()).await;
    assert_eq!(get(running.admin, "/readyz").0, 200);
    drop(running.child.stdin.take());
    let (status, log) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}
