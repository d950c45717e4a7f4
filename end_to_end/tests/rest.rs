//! The REST interface of a running mesh, as a script meets it.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use memharvest_end_to_end::grpcurl::Grpcurl;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::shape::faults;
use memharvest_end_to_end::tools;
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web::{self, Answer};
use serde_json::{Value, json};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(30);

const VM: &str = "vm name host state quality allocated_bytes maximum_bytes rss_bytes demand_bytes predicted_rss_bytes \
     predicted_demand_bytes harvestable_bytes reclaimable_bytes read_at valid_until stats_age_seconds";
const EXPLAIN: &str = "vm signal start_bytes terms result_bytes";
const HOST: &str = "host name state labels vms_running total_bytes available_bytes allocated_bytes rss_bytes \
     harvestable_bytes pooled_harvestable_bytes reclaimable_bytes leased_bytes read_at";
const FLEET: &str = "hosts vms allocated_bytes rss_bytes predicted_rss_bytes harvestable_bytes reclaimable_bytes \
     violations_open coverage";
const VIOLATION: &str = "id vm host kind signal state opened_at closed_at predicted_bytes actual_bytes overshoot_bytes \
     model_version boundary_version acknowledged_by note";
const BOUNDARY: &str = "scope etag version headroom_ratio headroom_bytes floor_bytes max_harvest_ratio upper_usage_bytes \
     lower_usage_bytes target_violation_rate fairness horizon signal excluded host_basis error_budget_per_1000_vm_days \
     author reason updated_at";
const LEASE: &str = "id host consumer_vm bytes state holder expires_at idempotency_key held_back_bytes";

/// Every GET of the contract: its path, the field that holds its items where it is a list, and the fields that each item, or
/// the answer itself, must have.
const GETS: &[(&str, &str, &str)] = &[
    ("/fleet", "", FLEET),
    ("/hosts", "hosts", HOST),
    ("/hosts?state=live", "hosts", HOST),
    ("/hosts/$host", "", HOST),
    ("/hosts/$host/vms", "vms", VM),
    ("/hosts/$host/diagnosis", "", "findings"),
    ("/hosts/$host/history?step=15m", "", "points"),
    ("/vms", "vms", VM),
    ("/vms/$vm", "", VM),
    ("/vms/$vm/explain", "", EXPLAIN),
    ("/vms/$vm/explain?signal=demand", "", EXPLAIN),
    ("/vms/$vm/history", "", "points"),
    ("/boundaries", "boundaries", BOUNDARY),
    ("/boundaries/fleet", "", BOUNDARY),
    ("/boundaries/fleet/versions", "versions", BOUNDARY),
    ("/boundaries/vm:$vm/effective", "", "scope headroom_ratio horizon sources"),
    ("/violations", "violations", VIOLATION),
    ("/violations?state=open&kind=boundary&host=$host&since=2020-01-01T00:00:00Z", "violations", VIOLATION),
    ("/violations/$violation", "", VIOLATION),
    ("/agents", "agents", "id kind state"),
    ("/audit", "events", "at author action subject"),
    ("/audit?action=lease&author=ann&until=2199-01-01T00:00:00Z", "events", "at author action subject"),
    ("/leases", "leases", LEASE),
    ("/leases?host=elsewhere&state=live", "leases", LEASE),
    ("/tokens", "tokens", "id name role created_at expires_at last_used_at revoked_at"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_script_finds_what_the_contract_names() {
    let mesh = Mesh::up(&["--simulate", "2x5", "--seed", "1", "--speed", "300"]).await.unwrap();
    wait_for(SOON, "all machines", || async {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["vms"] == 10, "{fleet}");
        Ok(())
    })
    .await
    .unwrap();
    boundaries_have_versions_and_preconditions(&mesh).await;
    let violation = a_violation_is_seen_and_explained(&mesh).await;
    memory_is_leased_once(&mesh).await;
    tokens_are_shown_once(&mesh).await;
    let vm = mesh.get("/vms?page_size=1").await.unwrap()["vms"][0].clone();
    for (path, list, fields) in GETS {
        let path = path
            .replace("$host", vm["host"].as_str().unwrap())
            .replace("$vm", vm["vm"].as_str().unwrap())
            .replace("$violation", &violation);
        let answer = mesh.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error:#}"));
        assert_eq!(faults(&answer), Vec::<String>::new(), "{path}");
        let items = if list.is_empty() {
            std::slice::from_ref(&answer)
        } else {
            assert!(answer["next_page_token"].is_string(), "{path}: {answer}");
            answer[list].as_array().unwrap_or_else(|| panic!("{path}: {answer}"))
        };
        assert!(!items.is_empty(), "{path} is empty");
        for (item, field) in
            items.iter().flat_map(|item| fields.split_whitespace().map(move |field| (item, field)))
        {
            assert!(item.get(field).is_some(), "{path} has no {field}: {item}");
        }
    }
    every_harvest_adds_up(&mesh).await;
    pages_are_walked_without_repeats(&mesh).await;
    strangers_are_refused(&mesh).await;
    grpc_web_is_spoken(&mesh).await.unwrap();
}

/// An error by RFC 9457.
fn assert_problem(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json().unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    assert!(problem["errors"].is_array(), "{problem}");
}

/// Leaves behind a boundary of the fleet that every machine breaks.
async fn boundaries_have_versions_and_preconditions(mesh: &Mesh) {
    let send = async |method: Method, headers: &[(&str, &str)], body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        mesh.send(method, "/boundaries/fleet", headers, &body).await.unwrap()
    };
    let nothing = Value::Null;
    let band = json!({"upper_usage_bytes": 1, "horizon": "15m", "reason": "a trial", "author": "ann"});
    assert_problem(&send(Method::GET, &[], &nothing).await, StatusCode::NOT_FOUND);
    let created = send(Method::PUT, &[], &band).await;
    assert_eq!(created.status, StatusCode::CREATED, "creating needs no If-Match: {}", created.text);
    let etag = created.headers["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && created.json().unwrap()["etag"] == etag, "{etag}: {}", created.text);

    let misspelt = send(Method::PUT, &[], &json!({"upper_usage_byte": 1})).await;
    assert_problem(&misspelt, StatusCode::BAD_REQUEST);
    assert_eq!(misspelt.json().unwrap()["errors"][0]["field"], "upper_usage_byte", "the body comes first");
    assert_problem(&send(Method::PUT, &[], &band).await, StatusCode::PRECONDITION_REQUIRED);
    let stale = [("if-match", "\"no such etag\"")];
    assert_problem(&send(Method::PUT, &stale, &band).await, StatusCode::PRECONDITION_FAILED);
    let changed = send(Method::PUT, &[("if-match", &etag)], &band).await;
    assert_eq!((changed.status, &changed.json().unwrap()["version"]), (StatusCode::OK, &json!(2)));

    assert_problem(&send(Method::DELETE, &[], &nothing).await, StatusCode::PRECONDITION_REQUIRED);
    assert_problem(
        &send(Method::DELETE, &[("if-match", &etag)], &nothing).await,
        StatusCode::PRECONDITION_FAILED,
    );
    let etag = changed.headers["etag"].to_str().unwrap().to_owned();
    let deleted = send(Method::DELETE, &[("if-match", &etag)], &nothing).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text);
    assert_problem(&send(Method::GET, &[], &nothing).await, StatusCode::NOT_FOUND);
    assert_problem(&send(Method::DELETE, &[("if-match", &etag)], &nothing).await, StatusCode::NOT_FOUND);
    let again = send(Method::PUT, &[], &band).await;
    assert_eq!(again.status, StatusCode::CREATED, "{}", again.text);
    let versions = mesh.get("/boundaries/fleet/versions").await.unwrap();
    let versions: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect();
    assert_eq!(versions, [4, 3, 2, 1].map(Value::from), "nothing is forgotten, newest first");
    let first = mesh.get("/boundaries/fleet/versions").await.unwrap()["versions"][3]["diff"].clone();
    let diff = json!([{"field": "horizon", "before": null, "after": "15m"},
        {"field": "upper_usage_bytes", "before": null, "after": 1}]);
    assert_eq!(first, diff);
}

/// Hands out the violation's identity.
async fn a_violation_is_seen_and_explained(mesh: &Mesh) -> String {
    let violation = wait_for(SOON, "the boundary to be broken", || async {
        let found = mesh.get("/violations?kind=boundary&page_size=1").await?;
        found["violations"][0]["id"].as_str().map(str::to_owned).with_context(|| found.to_string())
    })
    .await
    .unwrap();
    let tell = async |id: &str, verb: &str, body: Value| {
        mesh.send(Method::POST, &format!("/violations/{id}/{verb}"), &[], &body.to_string()).await.unwrap()
    };
    let seen =
        tell(&violation, "acknowledge", json!({"author": "ann", "note": "seen"})).await.json().unwrap();
    assert_eq!((&seen["acknowledged_by"], &seen["note"]), (&json!("ann"), &json!("seen")), "{seen}");
    let explained =
        tell(&violation, "explain", json!({"author": "bob", "note": "as asked"})).await.json().unwrap();
    assert_eq!((&explained["explained_by"], &explained["acknowledged_by"]), (&json!("bob"), &json!("ann")));
    assert_problem(&tell("none", "acknowledge", json!({"note": "?"})).await, StatusCode::NOT_FOUND);
    violation
}

/// On a host that a predictor elsewhere has told of. Leaves behind one live lease.
async fn memory_is_leased_once(mesh: &Mesh) {
    let told = json!({"predictor_id": "elsewhere", "harvests": [{"host_id": "elsewhere", "harvestable_bytes": 1 << 30,
        "read_at": "2020-01-01T00:00:00Z", "valid_until": "2199-01-01T00:00:00Z"}]});
    let registry = Grpcurl::new(mesh.address("registry").unwrap());
    let recorded = registry
        .call("memharvest.registry.v1.HarvestService/RecordHarvest", &told.to_string())
        .await
        .unwrap();
    assert!(recorded.text.contains("stored"), "{recorded:?}");
    let send = async |method: Method, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        mesh.send(method, path, &[("x-memharvest-author", "ann")], &body).await.unwrap()
    };
    let reserve = async |bytes: u64, key: &str| {
        let body = json!({"host": "elsewhere", "bytes": bytes, "ttl": "10m", "holder": "ann", "idempotency_key": key});
        send(Method::POST, "/leases", body).await
    };
    let made = reserve(600 << 20, "one").await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let lease = made.json().unwrap();
    assert_eq!((&lease["state"], &lease["held_back_bytes"]), (&json!("live"), &json!(600 << 20)), "{lease}");
    assert_eq!(
        reserve(600 << 20, "one").await.json().unwrap()["id"],
        lease["id"],
        "the same key, the same lease"
    );
    assert_problem(&reserve(1, "one").await, StatusCode::CONFLICT);
    assert_problem(&reserve(600 << 20, "two").await, StatusCode::CONFLICT);
    assert_problem(&reserve(0, "two").await, StatusCode::BAD_REQUEST);
    let misspelt = send(Method::POST, "/leases", json!({"host": "elsewhere", "byte": 1})).await;
    assert_eq!(misspelt.json().unwrap()["errors"][0]["field"], "byte", "{}", misspelt.text);
    let nowhere = json!({"host": "nowhere", "bytes": 1, "holder": "ann"});
    assert_problem(&send(Method::POST, "/leases", nowhere).await, StatusCode::NOT_FOUND);

    let path = format!("/leases/{}", lease["id"].as_str().unwrap());
    let longer = send(Method::PATCH, &path, json!({"ttl": "1h", "holder": "ann"})).await;
    assert_eq!(longer.status, StatusCode::OK, "{}", longer.text);
    assert!(longer.json().unwrap()["expires_at"].as_str() > lease["expires_at"].as_str(), "{}", longer.text);
    let foreign = send(Method::PATCH, &path, json!({"holder": "eve"})).await;
    assert_problem(&foreign, StatusCode::FORBIDDEN);
    let released = send(Method::DELETE, &format!("{path}?reason=done"), Value::Null).await;
    assert_eq!(released.status, StatusCode::NO_CONTENT, "{}", released.text);
    assert_problem(&send(Method::PATCH, &path, json!({"ttl": "1h"})).await, StatusCode::CONFLICT);
    assert_problem(&send(Method::DELETE, "/leases/none", Value::Null).await, StatusCode::NOT_FOUND);
    assert_eq!(reserve(1 << 30, "three").await.status, StatusCode::CREATED);
}

async fn tokens_are_shown_once(mesh: &Mesh) {
    let body = json!({"name": "ci", "role": "viewer", "ttl": "1h", "author": "ann", "reason": "a trial"});
    let made = mesh.send(Method::POST, "/tokens", &[], &body.to_string()).await.unwrap();
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.json().unwrap();
    let secret = token["secret"].as_str().unwrap();
    assert!(secret.starts_with("mh_"), "{secret}");
    let listed = mesh.send(Method::GET, "/tokens", &[], "").await.unwrap();
    assert!(listed.text.contains("\"ci\"") && !listed.text.contains(secret), "{}", listed.text);
    let path = format!("/tokens/{}", token["id"].as_str().unwrap());
    let revoked = mesh.send(Method::DELETE, &path, &[], "").await.unwrap();
    assert_eq!(revoked.status, StatusCode::NO_CONTENT, "{}", revoked.text);
    let known = mesh.get("/tokens").await.unwrap();
    assert!(known["tokens"][0]["revoked_at"].is_string(), "{known}");
    let none = mesh.send(Method::DELETE, "/tokens/none", &[], "").await.unwrap();
    assert_problem(&none, StatusCode::NOT_FOUND);
}

async fn every_harvest_adds_up(mesh: &Mesh) {
    let vms = mesh.get("/vms?page_size=1000").await.unwrap();
    for vm in vms["vms"].as_array().unwrap() {
        for signal in ["rss", "demand"] {
            let path = format!("/vms/{}/explain?signal={signal}", vm["vm"].as_str().unwrap());
            let explained = mesh.get(&path).await.unwrap();
            let terms = explained["terms"].as_array().unwrap();
            let taken: u64 = terms.iter().map(|term| term["bytes"].as_u64().unwrap()).sum();
            let left = explained["start_bytes"].as_u64().unwrap() - taken;
            assert_eq!(explained["result_bytes"], left, "{explained}");
            for term in terms.iter().filter(|term| term["bytes"] != 0) {
                assert!(term["limited_by"].is_string() && term["detail"] != "", "{term}");
            }
        }
    }
}

async fn pages_are_walked_without_repeats(mesh: &Mesh) {
    for (list, id, count) in [("hosts", "host", 2), ("vms", "vm", 10), ("agents", "id", 5)] {
        let mut seen = BTreeSet::new();
        let mut token = String::new();
        loop {
            let page = mesh.get(&format!("/{list}?page_size=1&page_token={token}")).await.unwrap();
            let items = page[list].as_array().unwrap();
            assert_eq!(items.len(), 1, "{page}");
            assert!(seen.insert(items[0][id].to_string()), "{} twice in /{list}", items[0][id]);
            page["next_page_token"].as_str().unwrap().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), count, "/{list}: {seen:?}");
    }
}

async fn strangers_are_refused(mesh: &Mesh) {
    let fleet = format!("{}/api/v1/fleet", mesh.url("gateway").unwrap());
    for header in [("host", "rebound.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        let answer = web::send(Method::GET, &fleet, &[header], "").await.unwrap();
        assert_problem(&answer, StatusCode::FORBIDDEN);
    }
    let forms = [("content-type", "text/plain")];
    let path = format!("{}/api/v1/boundaries/fleet", mesh.url("gateway").unwrap());
    let answer = web::send(Method::PUT, &path, &forms, "{}").await.unwrap();
    assert_problem(&answer, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

/// By buf, whose client is that of browsers' programs.
async fn grpc_web_is_spoken(mesh: &Mesh) -> anyhow::Result<()> {
    let url = mesh.url("gateway")?;
    let call = async |method: &str, json: &str| {
        let mut buf = Command::from(tools::python_program("buf")?);
        buf.args(["curl", "--protocol", "grpcweb", "-d", json])
            .arg(format!("{url}/memharvest.gateway.v1.FleetService/{method}"));
        anyhow::Ok(buf.output().await?)
    };
    let fleet = call("GetFleet", "{}").await?;
    ensure!(fleet.status.success(), "{}", String::from_utf8_lossy(&fleet.stderr));
    let fleet: Value = serde_json::from_slice(&fleet.stdout)?;
    ensure!(fleet["fleet"]["hosts"] == 2, "{fleet}");
    let nobody = call("GetVm", r#"{"vm_id": "nobody"}"#).await?;
    let said = String::from_utf8_lossy(&nobody.stderr);
    ensure!(!nobody.status.success() && said.contains("not_found"), "{said}");
    Ok(())
}
