//! Tokens of the real registry at the real gateway: made on the registry's machine, used, and ended.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::time::Duration;

use anyhow::ensure;
use http::Method;
use memharvest_end_to_end::apart::Apart;
use memharvest_end_to_end::mesh::binary;
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web::{self, Answer};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

async fn send(mesh: &Apart, method: Method, path: &str, secret: &str, body: &str) -> Answer {
    let shown = format!("Bearer {secret}");
    let headers = [("authorization", &*shown), ("content-type", "application/json")];
    let url = format!("{}/api/v1{path}", mesh.url("gateway"));
    web::send(method, &url, &headers, body).await.unwrap()
}

async fn make(mesh: &Apart, admin: &str, name: &str, role: &str) -> Value {
    let body = format!("{{\"name\": \"{name}\", \"role\": \"{role}\"}}");
    let made = send(mesh, Method::POST, "/tokens", admin, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_until_it_is_ended_and_the_log_says_whose_it_was() {
    let mut mesh = Apart::new(1.0).unwrap();
    mesh.start("registry", &[]).await.unwrap();
    mesh.start("predictor", &[]).await.unwrap();
    mesh.start("gateway", &["--auth-tokens"]).await.unwrap();
    // The first token is made where the database lies.
    let output = std::process::Command::new(binary("memharvest-registry").unwrap())
        .args(["token", "create", "--role", "admin", "--name", "root", "--author", "root"])
        .arg(format!("--database={}/registry.db", mesh.data_dir().display()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let admin = said.trim().to_owned();
    assert!(admin.starts_with("mh_"), "{said}");

    let refused =
        web::send(Method::GET, &format!("{}/api/v1/fleet", mesh.url("gateway")), &[], "").await.unwrap();
    assert_eq!(refused.status, 401, "{}", refused.text);
    let operator = make(&mesh, &admin, "placement", "operator").await;
    let secret = operator["secret"].as_str().unwrap();
    assert_eq!(send(&mesh, Method::GET, "/fleet", secret, "").await.status, 200);
    assert_eq!(send(&mesh, Method::GET, "/tokens", secret, "").await.status, 403);
    let set =
        send(&mesh, Method::PUT, "/boundaries/fleet", secret, r#"{"author": "somebody", "reason": "test"}"#)
            .await;
    assert_eq!((set.status.as_u16(), set.json().unwrap()["author"].as_str().unwrap()), (201, "placement"));
    let audit = send(&mesh, Method::GET, "/audit", secret, "").await.json().unwrap();
    let authors: Vec<&Value> =
        audit["events"].as_array().unwrap().iter().map(|event| &event["author"]).collect();
    assert!(
        authors.contains(&&Value::from("placement")) && authors.contains(&&Value::from("root")),
        "{audit}"
    );

    let id = operator["id"].as_str().unwrap();
    assert_eq!(send(&mesh, Method::DELETE, &format!("/tokens/{id}"), &admin, "").await.status, 204);
    wait_for(SOON, "the token to open nothing any more", async || {
        let status = send(&mesh, Method::GET, "/fleet", secret, "").await.status;
        ensure!(status == 401, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(send(&mesh, Method::GET, "/fleet", &admin, "").await.status, 200);
}

#[test]
fn nobody_is_served_from_afar_without_tls_and_authentication() {
    for flags in [&["--listen=0.0.0.0:0"][..], &["--listen=0.0.0.0:0", "--auth-tokens"], &["--listen=[::]:0"]]
    {
        let output =
            std::process::Command::new(binary("memharvest-gateway").unwrap()).args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {said}");
        assert!(said.contains("--insecure"), "{said}");
    }
}
