//! Whatever goes wrong is a problem by RFC 9457 that names cause and cure.

use ::http::Method;

use crate::http::send;
use crate::mesh::Mesh;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Method, path, headers, body, and the status that they get.
type Case<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

#[tokio::test]
async fn wrong_requests_have_their_status() {
    let mesh = Mesh::start().await;
    let many = format!("{{\"reason\": \"{}\"}}", "x".repeat(300 * 1024));
    let cases: &[Case<'_>] = &[
        (Method::GET, "/api/v1/nothing", &[], "", 404),
        (Method::GET, "/nothing", &[], "", 404),
        (Method::GET, "/api/v1/hosts/nobody", &[], "", 404),
        (Method::GET, "/api/v1/hosts/nobody/vms", &[], "", 404),
        (Method::GET, "/api/v1/hosts/nobody/diagnosis", &[], "", 404),
        (Method::GET, "/api/v1/vms/not-a-uuid", &[], "", 404),
        (Method::GET, "/api/v1/vms/not-a-uuid/explain", &[], "", 404),
        (Method::DELETE, "/api/v1/hosts/nobody", &[], "", 404),
        (Method::POST, "/api/v1/fleet", &[JSON], "{}", 405),
        (Method::PATCH, "/api/v1/boundaries/fleet", &[JSON], "{}", 405),
        (Method::OPTIONS, "/api/v1/fleet", &[], "", 405),
        (Method::PUT, "/api/v1/boundaries/fleet", &[], "{}", 415),
        (Method::PUT, "/api/v1/boundaries/fleet", &[("content-type", "text/plain")], "{}", 415),
        (
            Method::POST,
            "/api/v1/violations/x/acknowledge",
            &[("content-type", "application/x-www-form-urlencoded")],
            "note=x",
            415,
        ),
        (Method::PUT, "/api/v1/boundaries/fleet", &[JSON], "{", 400),
        (Method::PUT, "/api/v1/boundaries/fleet", &[JSON], "", 400),
        (Method::PUT, "/api/v1/boundaries/fleet", &[JSON], "[]", 400),
        (Method::PUT, "/api/v1/boundaries/fleet", &[JSON], "{} {}", 400),
        (Method::PUT, "/api/v1/boundaries/fleet", &[JSON], &many, 413),
        (Method::GET, "/api/v1/boundaries/%ff", &[], "", 400),
        (Method::GET, "/federate", &[], "", 400),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = send(method.clone(), &mesh.url(path), headers, body.as_bytes().to_vec()).await;
        assert_eq!(answer.status, *status, "{method} {path} {headers:?}: {}", answer.text());
        answer.problem(*status);
        if *status == 405 {
            assert!(!answer.header("allow").is_empty(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let mesh = Mesh::start().await;
    for (path, field) in [
        ("/api/v1/hosts?page_size=-1", "page_size"),
        ("/api/v1/hosts?page_size=many", "page_size"),
        ("/api/v1/vms?page_token=zz", "page_token"),
        ("/api/v1/hosts?state=gone", "state"),
        ("/api/v1/hosts?label=rack", "label"),
        ("/api/v1/hosts?stat=live", "stat"),
        ("/api/v1/fleet?verbose=1", "verbose"),
        ("/api/v1/vms?quality=good", "quality"),
        ("/api/v1/vms/x/explain?signal=cpu", "signal"),
        ("/api/v1/vms/x/history?from=yesterday", "from"),
        ("/api/v1/vms/x/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/api/v1/vms/x/history?step=often", "step"),
        ("/api/v1/violations?since=2026", "since"),
        ("/api/v1/violations?state=stale", "state"),
        ("/api/v1/violations?acknowledged=maybe", "acknowledged"),
        ("/api/v1/agents?kind=robot", "kind"),
        ("/api/v1/hosts?state=live&state=lost", "state"),
    ] {
        let problem = mesh.get(path).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{path}: {problem}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_said_so() {
    let mesh = Mesh::with(1, &["--registry=http://127.0.0.1:9"]).await;
    let answer = mesh.get("/api/v1/violations").await;
    let problem = answer.problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("cannot reach http://127.0.0.1:9"), "{problem}");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(mesh.json("/api/v1/fleet").await["violations_open"].is_null());
    mesh.get("/sd/prometheus").await.problem(503);
}
