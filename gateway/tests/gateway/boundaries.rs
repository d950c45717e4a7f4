//! Boundaries over REST: etags and preconditions, bodies, scopes in paths.

use ::http::Method;
use serde_json::{Value, json};

use crate::http::{Answer, send, send_json};
use crate::mesh::Mesh;
use crate::predictor::{host, vm_id};

async fn put(mesh: &Mesh, scope: &str, etag: Option<&str>, body: &Value) -> Answer {
    let headers: Vec<_> = etag.map(|etag| ("if-match", etag)).into_iter().collect();
    send_json(Method::PUT, &mesh.url(&format!("/api/v1/boundaries/{scope}")), &headers, body).await
}

#[tokio::test]
async fn changes_rest_on_the_etag_that_was_read() {
    let mesh = Mesh::start().await;
    mesh.get("/api/v1/boundaries/fleet").await.problem(404);
    let made = put(
        &mesh,
        "fleet",
        None,
        &json!({"headroom_ratio": 0.1, "horizon": "15m", "author": "ann", "reason": "trial"}),
    )
    .await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("etag"), made.json()["etag"].as_str().unwrap());
    assert_eq!(made.header("etag"), "\"1\"");

    let mut read = mesh.json("/api/v1/boundaries/fleet").await;
    assert_eq!(
        (&read["headroom_ratio"], &read["horizon"], &read["floor_bytes"]),
        (&json!(0.1), &json!("15m"), &Value::Null)
    );
    assert_eq!(
        (&read["author"], &read["version"], &read["scope"]),
        (&json!("ann"), &json!(1), &json!("fleet"))
    );

    put(&mesh, "fleet", None, &json!({"floor_bytes": 1})).await.problem(428);
    put(&mesh, "fleet", Some("\"7\""), &json!({"floor_bytes": 1})).await.problem(412);
    put(&mesh, "fleet", Some("W/\"1\""), &json!({"floor_bytes": 1})).await.problem(412);
    put(&mesh, "host:a", Some("\"1\""), &json!({"floor_bytes": 1})).await.problem(412);
    put(&mesh, "host:a", Some("*"), &json!({"floor_bytes": 1})).await.problem(412);

    // What was read can be changed and sent back.
    read["excluded"] = true.into();
    let changed = put(&mesh, "fleet", Some("\"1\""), &read).await;
    assert_eq!((changed.status.as_u16(), changed.header("etag")), (200, "\"2\""));
    assert_eq!(put(&mesh, "fleet", Some("*"), &json!({})).await.header("etag"), "\"3\"");
    assert_eq!(put(&mesh, "fleet", Some("\"1\", \"3\""), &json!({})).await.header("etag"), "\"4\"");

    let delete = async |etag: &[(&str, &str)]| {
        send(Method::DELETE, &mesh.url("/api/v1/boundaries/fleet"), etag, Vec::new()).await
    };
    delete(&[]).await.problem(428);
    delete(&[("if-match", "\"3\"")]).await.problem(412);
    assert_eq!(delete(&[("if-match", "\"4\"")]).await.status, 204);
    delete(&[("if-match", "\"4\"")]).await.problem(404);
}

#[tokio::test]
async fn a_body_is_judged_before_its_precondition() {
    let mesh = Mesh::start().await;
    put(&mesh, "fleet", None, &json!({"floor_bytes": 1})).await;
    for (body, field) in [
        (json!({"headroom": 1}), "headroom"),
        (json!({"headroom_ratio": "much"}), "headroom_ratio"),
        (json!({"headroom_ratio": 11}), "headroom_ratio"),
        (json!({"floor_bytes": -1}), "floor_bytes"),
        (json!({"horizon": "soon"}), "horizon"),
        (json!({"fairness": "none"}), "fairness"),
        (json!({"scope": "host:a"}), "scope"),
        (json!({"author": ""}), "author"),
    ] {
        for etag in [None, Some("\"7\""), Some("*"), Some("\"7\", \"8\"")] {
            let problem = put(&mesh, "fleet", etag, &body).await.problem(400);
            assert_eq!(problem["errors"][0]["field"], field, "{body} {etag:?}: {problem}");
        }
    }
    assert_eq!(mesh.json("/api/v1/boundaries/fleet").await["version"], 1);
}

#[tokio::test]
async fn a_scope_is_percent_encoded_in_the_path() {
    let mesh = Mesh::start().await;
    let made = put(&mesh, "group:rack=a%2Fb", None, &json!({"max_harvest_ratio": 0.5})).await;
    assert_eq!(made.json()["scope"], "group:rack=a/b");
    assert_eq!(made.json()["author"], "anonymous");
    assert_eq!(mesh.json("/api/v1/boundaries/group:rack=a%2Fb/versions").await["versions"][0]["version"], 1);
    let listed = mesh.json("/api/v1/boundaries").await;
    assert_eq!(listed["boundaries"][0]["max_harvest_ratio"], 0.5);
    assert_eq!(listed["next_page_token"], "");
}

#[tokio::test]
async fn what_holds_for_a_machine_knows_where_it_runs() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 1));
    mesh.hosts(1).await;
    let effective = mesh.json(&format!("/api/v1/boundaries/vm:{}/effective", vm_id("a", 0))).await;
    assert_eq!(effective["floor_bytes"], 1 << 20);
    assert_eq!(effective["sources"][0], json!({"field": "floor_bytes", "scope": "host:a", "version": 3}));
    assert_eq!(effective["sources"][1], json!({"field": "horizon", "scope": null, "version": null}));
}

#[tokio::test]
async fn a_simulation_is_a_predictors() {
    let mesh = Mesh::start().await;
    let simulate = async |scope: &str, body: Value| {
        send_json(Method::POST, &mesh.url(&format!("/api/v1/boundaries/{scope}/simulate")), &[], &body).await
    };
    let (from, to) = ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z");
    let body = json!({"floor_bytes": 5, "from": from, "to": to, "max_vms": 9});
    let result = simulate("fleet", body).await.json();
    let total = &result["total"];
    assert_eq!((&total["vm"], &total["harvest_before_bytes"]), (&Value::Null, &json!(7)));
    assert_eq!((&total["harvest_after_bytes"], &total["violations_after"]), (&json!(5), &json!(2)));
    assert_eq!((&result["vms"][0]["host"], &result["vms"][0]["vm_days"]), (&json!("a"), &json!(1.5)));
    assert_eq!((&result["from"], &result["to"]), (&json!(from), &json!(to)));
    assert_eq!(result["points"], json!([{"at": from, "harvest_before_bytes": 7, "harvest_after_bytes": 5}]));
    assert_eq!(result["windows"], 9);

    let problem = simulate("host:a", json!({"floor_bytes": 6})).await.problem(400);
    assert_eq!(problem["errors"][0]["field"], "floor_bytes");
    simulate("fleet", json!({"floor": 6})).await.problem(400);
    simulate("fleet", json!({"max_vms": -1})).await.problem(400);
}
