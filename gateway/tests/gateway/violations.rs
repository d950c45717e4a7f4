//! Violations, agents and the audit log over REST.

use ::http::Method;
use memharvest_proto::registry::v1::{Violation, ViolationKind, ViolationPoint, ViolationState};
use memharvest_services::proto_time::to_proto;
use serde_json::{Value, json};

use crate::http::send_json;
use crate::mesh::Mesh;

/// A violation that a test stores.
pub(crate) fn violation(id: &str, kind: ViolationKind, state: ViolationState) -> Violation {
    let at = Some(to_proto("2026-11-22T12:00:00Z".parse().unwrap()));
    Violation {
        violation_id: id.into(),
        vm_id: "v".into(),
        host_id: "a".into(),
        kind: kind.into(),
        signal: 1,
        state: state.into(),
        opened_at: at,
        predicted_bytes: 100,
        actual_bytes: 150,
        overshoot_bytes: 50,
        overshoot_ratio: 0.25,
        series: vec![ViolationPoint { at, actual_bytes: 150, predicted_bytes: None }],
        ..Violation::default()
    }
}

async fn mesh() -> Mesh {
    let mesh = Mesh::start().await;
    for one in [
        violation("one", ViolationKind::Forecast, ViolationState::Open),
        violation("two", ViolationKind::Promise, ViolationState::Closed),
    ] {
        mesh.registry.0.lock().unwrap().violations.insert(one.violation_id.clone(), one);
    }
    mesh
}

#[tokio::test]
async fn violations_are_listed_and_read() {
    let mesh = mesh().await;
    let count = async |filter: &str| {
        let path = format!("/api/v1/violations?{filter}");
        mesh.json(&path).await["violations"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("state=open").await, 1);
    assert_eq!(count("kind=promise").await, 1);
    assert_eq!(count("host=b").await, 0);
    let one = mesh.json("/api/v1/violations/one").await;
    assert_eq!(
        (&one["kind"], &one["state"], &one["signal"]),
        (&json!("forecast"), &json!("open"), &json!("rss"))
    );
    assert_eq!(
        (&one["closed_at"], &one["acknowledged_by"], &one["note"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        one["series"][0],
        json!({"at": "2026-11-22T12:00:00Z", "actual_bytes": 150, "predicted_bytes": null})
    );
    mesh.get("/api/v1/violations/three").await.problem(404);
    mesh.until("the open violation in the fleet", "/api/v1/fleet", |answer| {
        answer.json()["violations_open"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_person_answers_a_violation() {
    let mesh = mesh().await;
    let url = |verb: &str| mesh.url(&format!("/api/v1/violations/one/{verb}"));
    let seen =
        send_json(Method::POST, &url("acknowledge"), &[], &json!({"author": "ann", "note": "looking"})).await;
    assert_eq!((&seen.json()["acknowledged_by"], &seen.json()["note"]), (&json!("ann"), &json!("looking")));
    let header = [("x-memharvest-author", "bob")];
    let told = send_json(Method::POST, &url("explain"), &header, &json!({"note": "a backup"})).await;
    assert_eq!(
        (&told.json()["explained_by"], &told.json()["explanation"]),
        (&json!("bob"), &json!("a backup"))
    );
    let problem = send_json(Method::POST, &url("explain"), &[], &json!({})).await.problem(400);
    assert_eq!(problem["errors"][0]["field"], "note");
}

#[tokio::test]
async fn agents_and_the_audit_log_are_listed() {
    let mesh = mesh().await;
    let registered = |answer: &crate::http::Answer| answer.json()["agents"].as_array().unwrap().len() == 1;
    let agents = mesh.until("the gateway itself", "/api/v1/agents?kind=gateway", registered).await.json();
    assert_eq!(agents["agents"][0]["kind"], "gateway");
    assert_eq!(agents["agents"][0]["admin_address"], mesh.gateway.admin_address.to_string());
    let audit = mesh.json("/api/v1/audit").await;
    assert_eq!(audit["events"][0]["after"], json!({"floor_bytes": 5}));
    assert_eq!(audit["events"][0]["before"], Value::Null);
}

#[tokio::test]
async fn what_a_registry_does_not_serve_is_told_as_such() {
    let mesh = mesh().await;
    mesh.get("/api/v1/leases").await.problem(501);
    let lease = json!({"host": "a", "bytes": 5, "holder": "me", "idempotency_key": "k", "ttl": "5m"});
    send_json(Method::POST, &mesh.url("/api/v1/leases"), &[], &lease).await.problem(501);
}
