//! grpcurl on the four gRPC ports of a running mesh.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use memharvest_end_to_end::grpcurl::Grpcurl;
use memharvest_end_to_end::mesh::{Mesh, PROCESSES};
use memharvest_end_to_end::wait::wait_for;
use memharvest_services::metrics::code_name;
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::Value;

const CALLS: &str = include_str!("grpcurl/calls.txt");
/// What later requests are filled in with, and the field of earlier answers that tells it.
const TOLD: [(&str, &str); 4] =
    [("$etag", "etag"), ("$lease", "leaseId"), ("$token", "tokenId"), ("$secret", "secret")];
const SOON: Duration = Duration::from_secs(30);

/// One RPC of the table.
struct Row {
    method: &'static str,
    at_home: &'static str,
    through_gateway: Option<&'static str>,
    request: &'static str,
}

impl Row {
    fn service(&self) -> &'static str {
        self.method.split('/').next().unwrap()
    }

    /// The process that serves it: services are named by it.
    fn home(&self) -> &'static str {
        self.method.split('.').nth(1).unwrap()
    }

    /// The code that it ends with at a process; nothing where the process does not serve it.
    fn code_at(&self, process: &str) -> Option<&'static str> {
        if self.home() == process {
            return Some(self.at_home);
        }
        self.through_gateway.filter(|_| process == "gateway")
    }
}

fn rows() -> Vec<Row> {
    let lines = CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(row).collect()
}

fn row(line: &'static str) -> Row {
    let (head, request) = line.split_at(line.find('{').unwrap_or_else(|| panic!("no request in {line}")));
    let words: Vec<&str> = head.split_whitespace().collect();
    let [method, at_home, through_gateway] = words[..] else { panic!("not three words before {request}") };
    Row { method, at_home, through_gateway: (through_gateway != "-").then_some(through_gateway), request }
}

/// Every method of the contract, and whether it answers with a stream to one request.
fn methods() -> BTreeMap<String, bool> {
    let set = FileDescriptorSet::decode(memharvest_proto::DESCRIPTORS).unwrap();
    let own = set.file.iter().filter(|file| file.package().starts_with("memharvest."));
    own.flat_map(|file| file.service.iter().map(|service| (file.package(), service)))
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| {
                let watched = method.server_streaming() && !method.client_streaming();
                (format!("{package}.{}/{}", service.name(), method.name()), watched)
            })
        })
        .collect()
}

#[test]
fn the_table_has_every_rpc_of_the_contract_once() {
    let rows = rows();
    let named: BTreeSet<String> = rows.iter().map(|row| row.method.to_owned()).collect();
    assert_eq!(named, methods().into_keys().collect());
    assert_eq!(named.len(), rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_listed_described_and_called_on_every_port() {
    let mesh = Mesh::up(&["--simulate", "2x5", "--seed", "1", "--speed", "300"]).await.unwrap();
    let known = known(&mesh).await.unwrap();
    for process in PROCESSES {
        is_listed_and_healthy(&mesh, process).await.unwrap();
    }
    // The gateway comes last: its calls rest on what the registry was told.
    let (registry, predictor, collector) = tokio::join!(
        call_all(&mesh, "registry", known.clone()),
        call_all(&mesh, "predictor", known.clone()),
        call_all(&mesh, "collector", known.clone()),
    );
    let gateway = call_all(&mesh, "gateway", known).await;
    let surprises = [registry, predictor, collector, gateway].map(Result::unwrap).concat();
    assert!(surprises.is_empty(), "not as the table says:\n{}", surprises.join("\n"));
}

/// What requests of the table are filled in with.
async fn known(mesh: &Mesh) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let vm = wait_for(SOON, "all machines of the simulation", || async {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["vms"] == 10, "{fleet}");
        Ok(mesh.get("/vms?page_size=1").await?["vms"][0].clone())
    })
    .await?;
    let text = |field: &str| vm[field].as_str().map(str::to_owned).context("a machine without an identity");
    Ok(BTreeMap::from([
        ("$vm", text("vm")?),
        ("$host", text("host")?),
        ("$now", text("read_at")?),
        ("$etag", String::new()),
        ("$lease", String::new()),
        ("$token", String::new()),
        ("$secret", String::new()),
    ]))
}

async fn is_listed_and_healthy(mesh: &Mesh, process: &str) -> anyhow::Result<()> {
    let grpcurl = Grpcurl::new(mesh.address(process)?);
    let mut expected: BTreeSet<String> = rows()
        .iter()
        .filter(|row| row.code_at(process).is_some())
        .map(|row| row.service().to_owned())
        .collect();
    for service in &expected {
        let described = grpcurl.describe(service).await?;
        ensure!(described.contains("rpc "), "{service} on the {process} is described as {described}");
    }
    expected.extend(["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"].map(str::to_owned));
    let listed = grpcurl.list().await?;
    ensure!(listed == expected, "the {process} lists {listed:?} and not {expected:?}");
    for service in std::iter::once("").chain(expected.iter().map(String::as_str)) {
        if service.starts_with("grpc.") {
            continue;
        }
        let request = format!(r#"{{"service": "{service}"}}"#);
        let health = grpcurl.call("grpc.health.v1.Health/Check", &request).await?;
        ensure!(health.text.contains("SERVING"), "{service} on the {process}: {health:?}");
    }
    Ok(())
}

/// Calls everything that a process serves; what is not as the table says comes back.
async fn call_all(
    mesh: &Mesh,
    process: &str,
    mut known: BTreeMap<&'static str, String>,
) -> anyhow::Result<Vec<String>> {
    let grpcurl = Grpcurl::new(mesh.address(process)?);
    // What is made at one process is not what is made at another.
    known.insert("$process", process.to_owned());
    let methods = methods();
    let mut surprises = Vec::new();
    for row in rows() {
        let Some(expected) = row.code_at(process) else { continue };
        let request = filled_in(row.request, &known)?;
        let answer = if methods[row.method] {
            grpcurl.first_message(row.method, &request).await?
        } else {
            grpcurl.call(row.method, &request).await?
        };
        let code = code_name(answer.code);
        if code != expected {
            surprises
                .push(format!("{} on the {process}: {code}, not {expected}: {}", row.method, answer.text));
        }
        let json: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        for (name, field) in TOLD {
            known.extend(last(&json, field).map(|value| (name, value)));
        }
    }
    Ok(surprises)
}

fn filled_in(request: &str, known: &BTreeMap<&'static str, String>) -> anyhow::Result<String> {
    let mut request = request.to_owned();
    for (name, value) in known {
        // As JSON has it: an etag has quotes of its own.
        let quoted = serde_json::to_string(value)?;
        request = request.replace(name, &quoted[1..quoted.len() - 1]);
    }
    Ok(request)
}

/// The last value of a field that holds a text, however deep it lies.
fn last(json: &Value, field: &str) -> Option<String> {
    match json {
        Value::Object(fields) => fields.iter().rev().find_map(|(name, value)| match value {
            Value::String(text) if name == field => Some(text.clone()),
            value => last(value, field),
        }),
        Value::Array(items) => items.iter().rev().find_map(|item| last(item, field)),
        _ => None,
    }
}
