//! What Prometheus reads.

use std::io::Write;
use std::process::{Command, Stdio};

use memharvest_proto::registry::v1::{ViolationKind, ViolationState};
use serde_json::json;

use crate::http;
use crate::mesh::Mesh;
use crate::predictor::host;
use crate::violations::violation;

/// Where `setup/install test` has unpacked it.
const PROMTOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/host/usr/bin/promtool");

/// Fails unless promtool finds nothing to say about the page.
pub(crate) fn promtool_is_content(page: &str) {
    let promtool = Command::new(PROMTOOL)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool is missing: run `setup/install test`");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "{text}\n{page}");
}

#[tokio::test]
async fn the_port_has_the_fleets_series_and_no_others() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 2));
    for one in [
        violation("one", ViolationKind::Promise, ViolationState::Open),
        violation("two", ViolationKind::Promise, ViolationState::Closed),
    ] {
        mesh.registry.0.lock().unwrap().violations.insert(one.violation_id.clone(), one);
    }
    let complete = |answer: &http::Answer| {
        let page = answer.text();
        page.contains("memharvest_violations_open 1")
            && page.contains("memharvest_fleet_vms 2")
            && page.contains("memharvest_agents{state=\"live\"} 1")
    };
    let answer = mesh.until("all series", "/metrics", complete).await;
    let page = answer.text();
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in [
        "memharvest_violations_total{kind=\"promise\"} 2",
        "memharvest_violations_total{kind=\"forecast\"} 0",
        "memharvest_prediction_coverage_ratio{signal=\"rss\",horizon=\"15m\"} 0.99",
        "memharvest_prediction_promised_ratio{signal=\"rss\",horizon=\"15m\"} 0.99",
        "memharvest_agents{state=\"lost\"} 0",
        "memharvest_fleet_memory_harvestable_bytes 2147483648",
        "memharvest_fleet_hosts{state=\"live\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing:\n{page}");
    }
    for absent in ["reclaimable", "process_", "memharvest_vm_", "memharvest_host_", "memharvest_build_info"] {
        assert!(!page.contains(absent), "{absent}:\n{page}");
    }
    promtool_is_content(&page);
}

#[tokio::test]
async fn the_process_has_its_own_series_on_the_admin_port() {
    let mesh = Mesh::start().await;
    mesh.get("/api/v1/hosts/nobody").await;
    let url = format!("http://{}/metrics", mesh.gateway.admin_address);
    let page = http::get(&url).await.text();
    assert!(page.contains("memharvest_build_info"), "{page}");
    assert!(page.contains("memharvest_gateway_predictor_connected{endpoint="), "{page}");
    assert!(!page.contains("memharvest_violations"), "{page}");
    let route =
        "memharvest_http_requests_total{method=\"GET\",route=\"/api/v1/hosts/{host}\",status=\"404\"} 1";
    assert!(page.contains(route), "{page}");
    promtool_is_content(&page);
}

#[tokio::test]
async fn a_registry_that_is_away_has_no_series() {
    let mesh = Mesh::with(1, &["--registry=http://127.0.0.1:9"]).await;
    let page = mesh.get("/metrics").await.text();
    assert!(!page.contains("memharvest_violations") && !page.contains("memharvest_agents"), "{page}");
    promtool_is_content(&page);
}

#[tokio::test]
async fn processes_are_discovered() {
    let mesh = Mesh::start().await;
    let listed = |answer: &http::Answer| answer.status == 200 && answer.json() != json!([]);
    let groups = mesh.until("the gateway itself", "/sd/prometheus", listed).await.json();
    assert_eq!(groups[0]["targets"], json!([mesh.gateway.admin_address.to_string()]));
    assert_eq!(groups[0]["labels"]["job"], "memharvest-gateway");
}
