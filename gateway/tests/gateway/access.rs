//! Who may do what, cell by cell, over REST and gRPC; and what strangers get.

use ::http::Method;
use memharvest_proto::registry::v1::Role;
use serde_json::json;
use tonic::Code;

use crate::http::{Answer, send, send_json};
use crate::mesh::Mesh;

/// The role that each operation asks for, written down apart from the program.
const REST: &str = "
    GET / nobody
    GET /vms/x nobody
    GET /hosts nobody
    GET /violations/x nobody
    GET /boundaries nobody
    GET /sign-in nobody
    GET /assets/x nobody
    POST /oidc/token nobody
    GET /docs nobody
    GET /docs/docs.js nobody
    GET /docs/docs.css nobody
    GET /openapi.json nobody
    GET /livez nobody
    GET /readyz nobody
    GET /metrics viewer
    GET /federate?match[]=up viewer
    GET /sd/prometheus viewer
    GET /nowhere viewer
    GET /api/v1/fleet viewer
    GET /api/v1/hosts viewer
    GET /api/v1/hosts/x viewer
    GET /api/v1/hosts/x/vms viewer
    GET /api/v1/hosts/x/history viewer
    GET /api/v1/hosts/x/diagnosis viewer
    DELETE /api/v1/hosts/x admin
    GET /api/v1/vms viewer
    GET /api/v1/vms/x viewer
    GET /api/v1/vms/x/explain viewer
    GET /api/v1/vms/x/history viewer
    GET /api/v1/boundaries viewer
    GET /api/v1/boundaries/fleet viewer
    GET /api/v1/boundaries/fleet/versions viewer
    GET /api/v1/boundaries/fleet/effective viewer
    PUT /api/v1/boundaries/fleet operator
    DELETE /api/v1/boundaries/fleet operator
    POST /api/v1/boundaries/fleet/simulate operator
    GET /api/v1/violations viewer
    GET /api/v1/violations/x viewer
    POST /api/v1/violations/x/acknowledge operator
    POST /api/v1/violations/x/explain operator
    GET /api/v1/leases viewer
    POST /api/v1/leases operator
    PATCH /api/v1/leases/x operator
    DELETE /api/v1/leases/x operator
    GET /api/v1/agents viewer
    GET /api/v1/audit viewer
    GET /api/v1/tokens admin
    POST /api/v1/tokens admin
    DELETE /api/v1/tokens/x admin
";

const GRPC: &str = "
    grpc.health.v1.Health/Check nobody
    memharvest.gateway.v1.FleetService/GetSession nobody
    memharvest.gateway.v1.FleetService/GetFleet viewer
    memharvest.gateway.v1.FleetService/ListHosts viewer
    memharvest.gateway.v1.FleetService/GetHost viewer
    memharvest.gateway.v1.FleetService/ListVms viewer
    memharvest.gateway.v1.FleetService/GetVm viewer
    memharvest.gateway.v1.FleetService/ExplainVm viewer
    memharvest.gateway.v1.FleetService/WatchFleet viewer
    memharvest.registry.v1.AgentService/GetAgent viewer
    memharvest.registry.v1.AgentService/ListAgents viewer
    memharvest.registry.v1.AgentService/DecommissionAgent admin
    memharvest.registry.v1.AuditService/ListAuditEvents viewer
    memharvest.registry.v1.BoundaryService/GetBoundary viewer
    memharvest.registry.v1.BoundaryService/ListBoundaries viewer
    memharvest.registry.v1.BoundaryService/GetEffectiveBoundary viewer
    memharvest.registry.v1.BoundaryService/ListBoundaryVersions viewer
    memharvest.registry.v1.BoundaryService/WatchBoundaries viewer
    memharvest.registry.v1.BoundaryService/SetBoundary operator
    memharvest.registry.v1.BoundaryService/DeleteBoundary operator
    memharvest.registry.v1.HarvestService/QueryHistory viewer
    memharvest.registry.v1.LeaseService/ListLeases viewer
    memharvest.registry.v1.LeaseService/WatchLeases viewer
    memharvest.registry.v1.LeaseService/ReserveMemory operator
    memharvest.registry.v1.LeaseService/RenewLease operator
    memharvest.registry.v1.LeaseService/ReleaseLease operator
    memharvest.registry.v1.TokenService/CreateToken admin
    memharvest.registry.v1.TokenService/ListTokens admin
    memharvest.registry.v1.TokenService/RevokeToken admin
    memharvest.registry.v1.ViolationService/ListViolations viewer
    memharvest.registry.v1.ViolationService/GetViolation viewer
    memharvest.registry.v1.ViolationService/WatchViolations viewer
    memharvest.registry.v1.ViolationService/ListErrorBudgets viewer
    memharvest.registry.v1.ViolationService/AcknowledgeViolation operator
    memharvest.registry.v1.ViolationService/ExplainViolation operator
    memharvest.predictor.v1.PredictorService/SimulateBoundary operator
";

/// Callers from nobody to the highest role.
const CALLERS: [(&str, &str); 4] =
    [("nobody", ""), ("viewer", "mh_viewer"), ("operator", "mh_operator"), ("admin", "mh_admin")];

fn rank(role: &str) -> usize {
    CALLERS.iter().position(|(name, _)| *name == role).unwrap_or_else(|| panic!("{role} is no role"))
}

/// A mesh that asks for tokens and knows one of each role.
async fn guarded(flags: &[&str]) -> Mesh {
    let flags: Vec<&str> = flags.iter().copied().chain(["--auth-tokens"]).collect();
    let mesh = Mesh::with(1, &flags).await;
    for (secret, role) in
        [("mh_viewer", Role::Viewer), ("mh_operator", Role::Operator), ("mh_admin", Role::Admin)]
    {
        mesh.registry.issue(secret, &secret.replace("mh_", "ann-the-"), role);
    }
    mesh
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

async fn rest(mesh: &Mesh, method: Method, path: &str, secret: &str) -> Answer {
    let shown = bearer(secret);
    let headers: &[(&str, &str)] = if secret.is_empty() { &[] } else { &[("authorization", &shown)] };
    if method == Method::PUT || method == Method::POST || method == Method::PATCH {
        return send_json(method, &mesh.url(path), headers, &json!({})).await;
    }
    send(method, &mesh.url(path), headers, Vec::new()).await
}

/// The code of a call with an empty message, over grpc-web, where an answer is known to be complete.
async fn grpc(mesh: &Mesh, method: &str, secret: &str) -> Code {
    let shown = bearer(secret);
    let mut headers = vec![("content-type", "application/grpc-web+proto")];
    if !secret.is_empty() {
        headers.push(("authorization", &shown));
    }
    let url = mesh.url(&format!("/{method}"));
    let call = send(Method::POST, &url, &headers, vec![0; 5]);
    // A stream that goes on was let in.
    let Ok(answer) = tokio::time::timeout(std::time::Duration::from_millis(500), call).await else {
        return Code::Ok;
    };
    assert_eq!(answer.status, 200, "{method}");
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    let told =
        text.split("grpc-status:").nth(1).map(|rest| rest.split('\r').next().unwrap_or_default().to_owned());
    let code = if answer.header("grpc-status").is_empty() {
        told.unwrap_or_default()
    } else {
        answer.header("grpc-status").to_owned()
    };
    Code::from_i32(code.parse().unwrap_or_else(|_| panic!("{method}: no status in {text:?}")))
}

fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[tokio::test]
async fn every_cell_of_the_policy_over_rest() {
    let mesh = guarded(&[]).await;
    for row in rows(REST) {
        let [method, path, least] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        for (caller, secret) in CALLERS {
            let answer = rest(&mesh, method.parse().unwrap(), path, secret).await;
            let status = answer.status.as_u16();
            let cell = format!("{row} as {caller}: {status} {}", String::from_utf8_lossy(&answer.bytes));
            if rank(caller) >= rank(least) {
                assert!(status != 401 && status != 403, "{cell}");
            } else if caller == "nobody" {
                answer.problem(401);
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{cell}");
            } else {
                let detail = answer.problem(403)["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains(&format!("needs the role {least}")), "{cell}");
            }
        }
    }
}

#[tokio::test]
async fn every_cell_of_the_policy_over_grpc() {
    let mesh = guarded(&[]).await;
    for row in rows(GRPC) {
        let [method, least] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        for (caller, secret) in CALLERS {
            let code = grpc(&mesh, method, secret).await;
            let expected = match () {
                () if rank(caller) >= rank(least) => None,
                () if caller == "nobody" => Some(Code::Unauthenticated),
                () => Some(Code::PermissionDenied),
            };
            match expected {
                Some(expected) => assert_eq!(code, expected, "{row} as {caller}"),
                None => assert!(
                    !matches!(code, Code::Unauthenticated | Code::PermissionDenied),
                    "{row} as {caller}: {code:?}"
                ),
            }
        }
    }
    for refused in [
        "memharvest.registry.v1.TokenService/VerifyToken",
        "memharvest.registry.v1.HarvestService/RecordHarvest",
        "memharvest.registry.v1.AgentService/RegisterAgent",
    ] {
        assert_eq!(grpc(&mesh, refused, "mh_admin").await, Code::PermissionDenied, "{refused}");
    }
    assert_eq!(
        grpc(&mesh, "memharvest.registry.v1.ModelService/PutSnapshots", "mh_admin").await,
        Code::Unimplemented
    );
}

#[tokio::test]
async fn what_opens_nothing_is_refused() {
    let mesh = guarded(&[]).await;
    let status = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        send(Method::GET, &mesh.url("/api/v1/fleet"), &headers, Vec::new()).await.status.as_u16()
    };
    assert_eq!(status("Bearer mh_viewer").await, 200);
    assert_eq!(status("bearer  mh_viewer").await, 200);
    let long = format!("Bearer mh_{}", "x".repeat(17_000));
    for wrong in [
        "Bearer mh_other",
        "Bearer ",
        "mh_viewer",
        "Basic bWhfdmlld2Vy",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        &long,
    ] {
        assert_eq!(status(wrong).await, 401, "{}", &wrong[..wrong.len().min(40)]);
    }
    // The name that handlers trust cannot be brought along.
    let headers = [
        ("authorization", "Bearer mh_operator"),
        ("x-memharvest-caller", "root"),
        ("x-memharvest-author", "root"),
    ];
    let set =
        send_json(Method::PUT, &mesh.url("/api/v1/boundaries/fleet"), &headers, &json!({"author": "root"}))
            .await;
    assert_eq!((set.status.as_u16(), set.json()["author"].as_str().unwrap()), (201, "ann-the-operator"));
}

#[tokio::test]
async fn the_audit_log_hears_who_it_was_over_grpc_too() {
    use memharvest_proto::registry::v1::SetBoundaryRequest;
    use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
    let mesh = guarded(&[]).await;
    let channel = tonic::transport::Channel::from_shared(mesh.url("")).unwrap().connect().await.unwrap();
    let mut request = tonic::Request::new(SetBoundaryRequest {
        scope: "host:a".into(),
        author: "mallory".into(),
        reason: "because".into(),
        ..SetBoundaryRequest::default()
    });
    request.metadata_mut().insert("authorization", "Bearer mh_admin".parse().unwrap());
    let set = BoundaryServiceClient::new(channel)
        .set_boundary(request)
        .await
        .unwrap()
        .into_inner()
        .boundary
        .unwrap();
    assert_eq!((set.author.as_str(), set.reason.as_str()), ("ann-the-admin", "because"));
}

#[tokio::test]
async fn a_token_is_asked_about_once_and_its_end_is_seen_within_seconds() {
    let mesh = guarded(&[]).await;
    for _ in 0..20 {
        assert_eq!(rest(&mesh, Method::GET, "/api/v1/fleet", "mh_viewer").await.status, 200);
    }
    let asked = mesh.registry.0.lock().unwrap().verified;
    assert!(asked < 5, "asked {asked} times for 20 requests");
    mesh.registry.0.lock().unwrap().tokens.clear();
    let ended = async {
        while rest(&mesh, Method::GET, "/api/v1/fleet", "mh_viewer").await.status != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended)
        .await
        .expect("the token opens nothing any more");
}

#[tokio::test]
async fn a_registry_that_is_away_lets_nobody_in() {
    let mesh = Mesh::with(1, &["--auth-tokens", "--registry=http://127.0.0.1:9"]).await;
    rest(&mesh, Method::GET, "/api/v1/fleet", "mh_viewer").await.problem(503);
    assert_eq!(
        grpc(&mesh, "memharvest.gateway.v1.FleetService/GetFleet", "mh_viewer").await,
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_caller_who_asks_too_often_waits_and_others_do_not() {
    let mesh = guarded(&["--rate-limit=1"]).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(rest(&mesh, Method::GET, "/api/v1/fleet", "mh_viewer").await.status.as_u16());
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(rest(&mesh, Method::GET, "/api/v1/fleet", "mh_admin").await.status, 200);
    // Whoever tries secrets is held back by his address.
    let mut guessed = Vec::new();
    for number in 0..80 {
        guessed
            .push(rest(&mesh, Method::GET, "/api/v1/fleet", &format!("mh_{number}")).await.status.as_u16());
    }
    assert!(guessed.contains(&429), "{guessed:?}");
}
