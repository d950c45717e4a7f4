//! Fleet, hosts and machines over REST.

use ::http::Method;
use jiff::{SignedDuration, Timestamp};
use memharvest_proto::collector::v1::{Finding, Severity};
use memharvest_proto::registry::v1::{Agent, AgentKind, AgentState, HostRollup};
use memharvest_services::proto_time::to_proto;
use serde_json::{Value, json};

use crate::http::send;
use crate::mesh::Mesh;
use crate::predictor::{host, host_read_at, vm_id};

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn the_fleet_is_the_sum_of_all_predictors() {
    let mesh = Mesh::with(2, &[]).await;
    mesh.predictors[0].update(host("a", 2));
    mesh.predictors[1].update(host("b", 3));
    mesh.hosts(2).await;
    let fleet = mesh.json("/api/v1/fleet").await;
    assert_eq!(fleet["vms"], 5);
    assert_eq!(fleet["allocated_bytes"], 20 * GIB);
    assert_eq!(fleet["harvestable_bytes"], 5 * GIB);
    assert_eq!(fleet["reclaimable_bytes"], Value::Null);
    assert_eq!(fleet["coverage"], 0.99);
    assert_eq!(fleet["coverage_by_forecast"][0]["horizon"], "15m");
    assert_eq!(fleet["violations_open"], 0);

    mesh.predictors[1].gone("b");
    mesh.hosts(1).await;
    assert_eq!(mesh.json("/api/v1/fleet").await["harvestable_bytes"], 2 * GIB);
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_and_its_snapshot_replaces_what_was() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 1));
    mesh.predictors[0].update(host("b", 1));
    mesh.hosts(2).await;
    mesh.predictors[0].lose_streams_and("a");
    mesh.hosts(1).await;
    assert_eq!(mesh.get("/api/v1/hosts/a").await.status, 404);
}

#[tokio::test]
async fn a_host_that_falls_silent_is_stale_and_yields_nothing() {
    let mesh = Mesh::start().await;
    let almost_stale = Timestamp::now() - SignedDuration::from_millis(13_500);
    mesh.predictors[0].update(host_read_at("a", 1, almost_stale));
    let live = mesh.until("a live host", "/api/v1/hosts/a", |answer| answer.status == 200).await.json();
    assert_eq!((&live["state"], &live["harvestable_bytes"]), (&json!("live"), &json!(GIB)));
    let stale =
        mesh.until("a stale host", "/api/v1/hosts/a", |answer| answer.json()["state"] == "stale").await;
    assert_eq!(stale.json()["harvestable_bytes"], 0);
    assert_eq!(stale.json()["allocated_bytes"], 4 * GIB);
    let vm = mesh.json(&format!("/api/v1/vms/{}", vm_id("a", 0))).await;
    assert_eq!((&vm["harvestable_bytes"], &vm["reclaimable_bytes"]), (&json!(0), &Value::Null));
    assert_eq!(vm["quality"], "stale");
    let fleet = mesh.json("/api/v1/fleet").await;
    assert_eq!((&fleet["hosts_stale"], &fleet["harvestable_bytes"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn pages_follow_each_other_and_filters_hold() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 5));
    mesh.predictors[0].update(host("b", 2));
    mesh.hosts(2).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = mesh.json(&format!("/api/v1/vms?page_size=3&page_token={token}")).await;
        seen.extend(page["vms"].as_array().unwrap().iter().map(|vm| vm["vm"].as_str().unwrap().to_owned()));
        page["next_page_token"].as_str().unwrap().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<String> =
        (0..5).map(|number| vm_id("a", number)).chain((0..2).map(|number| vm_id("b", number))).collect();
    expected.sort();
    assert_eq!(seen, expected);

    let count = async |path: &str, list: &str| mesh.json(path).await[list].as_array().unwrap().len();
    assert_eq!(count("/api/v1/vms?host=b", "vms").await, 2);
    assert_eq!(count("/api/v1/vms?quality=no_period", "vms").await, 2);
    assert_eq!(count("/api/v1/hosts/a/vms", "vms").await, 5);
    assert_eq!(count("/api/v1/hosts?state=live", "hosts").await, 2);
    assert_eq!(count("/api/v1/hosts?state=lost", "hosts").await, 0);
    assert_eq!(count("/api/v1/hosts?label=rack%3Dr%2Fa", "hosts").await, 1);
    assert_eq!(count("/api/v1/hosts?label=rack=r/a&label=rack=r/b", "hosts").await, 0);
}

#[tokio::test]
async fn a_host_has_the_names_of_the_contract() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 1));
    mesh.hosts(1).await;
    let host = mesh.json("/api/v1/hosts/a").await;
    for name in [
        "host",
        "name",
        "state",
        "labels",
        "vms_running",
        "total_bytes",
        "available_bytes",
        "allocated_bytes",
        "rss_bytes",
        "harvestable_bytes",
        "pooled_harvestable_bytes",
        "reclaimable_bytes",
        "leased_bytes",
        "read_at",
    ] {
        assert!(host.get(name).is_some(), "{name}");
    }
    assert_eq!(
        (&host["name"], &host["breaker"], &host["interval"]),
        (&json!("name-of-a"), &json!("closed"), &json!("5s"))
    );
    let vm = mesh.json(&format!("/api/v1/vms/{}", vm_id("a", 0))).await;
    for name in [
        "vm",
        "name",
        "host",
        "state",
        "quality",
        "allocated_bytes",
        "maximum_bytes",
        "rss_bytes",
        "demand_bytes",
        "predicted_rss_bytes",
        "predicted_demand_bytes",
        "harvestable_bytes",
        "reclaimable_bytes",
        "read_at",
        "valid_until",
        "stats_age_seconds",
        "warm_at",
    ] {
        assert!(vm.get(name).is_some(), "{name}");
    }
    assert_eq!((&vm["state"], &vm["quality"]), (&json!("running"), &json!("no_period")));
}

#[tokio::test]
async fn a_waterfall_comes_from_the_predictor_that_has_the_machine() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 1));
    mesh.hosts(1).await;
    let explained = mesh.json(&format!("/api/v1/vms/{}/explain?signal=demand", vm_id("a", 0))).await;
    assert_eq!(explained["signal"], "demand");
    assert_eq!(
        explained["terms"][0],
        json!({"name": "predicted", "bytes": 1000, "limited_by": "prediction", "detail": "a sentence"})
    );
    assert_eq!(explained["terms"][1]["limited_by"], Value::Null);
    assert_eq!(explained["warm_at"], "2026-11-22T12:00:00Z");
    let terms: u64 =
        explained["terms"].as_array().unwrap().iter().map(|term| term["bytes"].as_u64().unwrap()).sum();
    assert_eq!(explained["start_bytes"].as_u64().unwrap() - terms, explained["result_bytes"]);
}

#[tokio::test]
async fn without_a_predictor_the_registry_is_shown_as_lost() {
    let mesh = Mesh::with(1, &["--predictor=http://127.0.0.1:9"]).await;
    let finding = Finding {
        code: "no_period".into(),
        severity: Severity::Warning.into(),
        cause: "no statistics period".into(),
        cure: "virsh dommemstat".into(),
        ..Finding::default()
    };
    let agent = Agent {
        agent_id: "a".into(),
        kind: AgentKind::Collector.into(),
        state: AgentState::Lost.into(),
        findings: vec![finding],
        ..Agent::default()
    };
    {
        let mut state = mesh.registry.0.lock().unwrap();
        state.agents.insert("a".into(), agent);
        state.hosts.push(HostRollup {
            host_id: "c".into(),
            window_start: Some(to_proto("2026-11-22T12:00:00Z".parse().unwrap())),
            window: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            allocated_bytes: Some(GIB),
            ..HostRollup::default()
        });
    }
    mesh.until("a lost host", "/api/v1/hosts/a", |answer| answer.status == 200).await;
    let lost = mesh.json("/api/v1/hosts/a").await;
    assert_eq!(
        (&lost["state"], &lost["harvestable_bytes"], &lost["read_at"]),
        (&json!("lost"), &Value::Null, &Value::Null)
    );
    let diagnosis = mesh.json("/api/v1/hosts/a/diagnosis").await;
    assert_eq!(diagnosis["findings"][0]["code"], "no_period");
    assert_eq!(diagnosis["findings"][0]["severity"], "warning");

    let reason = "?reason=broken%20board";
    let headers = [("x-memharvest-author", "ann")];
    let gone =
        send(Method::DELETE, &mesh.url(&format!("/api/v1/hosts/a{reason}")), &headers, Vec::new()).await;
    assert_eq!(gone.status, 204);
    mesh.until("no host", "/api/v1/hosts/a", |answer| answer.status == 404).await;
    assert_eq!(mesh.registry.0.lock().unwrap().decommissioned_by, ["ann: broken board"]);
}

#[tokio::test]
async fn history_is_asked_of_the_registry() {
    let mesh = Mesh::start().await;
    mesh.registry.0.lock().unwrap().hosts.push(HostRollup {
        host_id: "a".into(),
        window_start: Some(to_proto("2026-11-22T12:00:00Z".parse().unwrap())),
        window: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
        rss_max_bytes: Some(GIB),
        ..HostRollup::default()
    });
    let history =
        mesh.json("/api/v1/hosts/a/history?from=2026-11-22T11:00:00Z&to=2026-11-22T13:00:00Z&step=15m").await;
    let point = &history["points"][0];
    assert_eq!((&point["at"], &point["window"]), (&json!("2026-11-22T12:00:00Z"), &json!("15m")));
    assert_eq!((&point["rss_max_bytes"], &point["harvestable_bytes"]), (&json!(GIB), &Value::Null));
    let asked = mesh.registry.0.lock().unwrap().history_asked[0].clone();
    assert_eq!(asked.step.unwrap().seconds, 900);
    assert_eq!(asked.to.unwrap().seconds - asked.from.unwrap().seconds, 7200);
    assert_eq!(mesh.get("/api/v1/vms/00000000-0000-0000-0000-000000000000/history").await.status, 404);
}
