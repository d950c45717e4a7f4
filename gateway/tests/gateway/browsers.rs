//! What browsers may do: grpc-web, CORS, and no page of a stranger.

use ::http::{Method, StatusCode};
use memharvest_proto::gateway::v1::{GetFleetRequest, GetFleetResponse, GetHostRequest};
use prost::Message;

use crate::http::{Answer, send};
use crate::mesh::Mesh;
use crate::predictor::host;

const FLEET: &str = "/memharvest.gateway.v1.FleetService/GetFleet";
const GRPC_WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

/// A message as gRPC frames it.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

/// The messages of a grpc-web answer, and its trailers.
fn unframed(answer: &Answer) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers, mut rest) = (Vec::new(), String::new(), answer.bytes.as_slice());
    while let [kind, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if kind & 0x80 == 0 {
            messages.push(tail[..length].to_vec());
        } else {
            trailers = String::from_utf8(tail[..length].to_vec()).unwrap();
        }
        rest = &tail[length..];
    }
    (messages, trailers)
}

async fn call(mesh: &Mesh, path: &str, headers: &[(&str, &str)], message: &impl Message) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([GRPC_WEB]).collect();
    send(Method::POST, &mesh.url(path), &headers, framed(message)).await
}

#[tokio::test]
async fn grpc_web_reaches_the_same_port() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 3));
    mesh.hosts(1).await;
    let answer = call(&mesh, FLEET, &[("x-grpc-web", "1")], &GetFleetRequest {}).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, GRPC_WEB.1));
    let (messages, trailers) = unframed(&answer);
    let fleet = GetFleetResponse::decode(messages[0].as_slice()).unwrap().fleet.unwrap();
    assert_eq!(fleet.vms, 3);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");

    let nobody = GetHostRequest { host_id: "nobody".into() };
    let answer = call(&mesh, "/memharvest.gateway.v1.FleetService/GetHost", &[], &nobody).await;
    let status = answer.header("grpc-status").to_owned();
    assert!(status == "5" || unframed(&answer).1.contains("grpc-status:5"), "{:?}", answer.headers);

    let answer =
        call(&mesh, "/memharvest.registry.v1.BoundaryService/ListBoundaries", &[], &GetFleetRequest {}).await;
    assert!(unframed(&answer).1.contains("grpc-status:0"), "handed on to the registry");
}

#[tokio::test]
async fn strangers_are_refused_over_rest_and_grpc_web() {
    let mesh = Mesh::with(1, &["--allowed-host=mesh.example.org"]).await;
    let rest = async |headers: &[(&str, &str)]| {
        send(Method::GET, &mesh.url("/api/v1/fleet"), headers, Vec::new()).await
    };
    rest(&[("host", "evil.example")]).await.problem(403);
    rest(&[("origin", "https://evil.example")]).await.problem(403);
    rest(&[("origin", "null")]).await.problem(403);
    assert_eq!(rest(&[("host", "mesh.example.org")]).await.status, 200);
    assert_eq!(rest(&[("origin", &mesh.url(""))]).await.status, 200);
    for headers in [[("host", "evil.example")], [("origin", "https://evil.example")]] {
        let answer = call(&mesh, FLEET, &headers, &GetFleetRequest {}).await;
        answer.problem(403);
    }
    assert_eq!(rest(&[]).await.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn other_origins_may_call_only_where_they_are_listed() {
    let preflight = async |mesh: &Mesh, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-grpc-web"),
        ];
        send(Method::OPTIONS, &mesh.url(FLEET), &headers, Vec::new()).await
    };
    let closed = Mesh::start().await;
    let answer = preflight(&closed, &closed.url("")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");

    let open = Mesh::with(1, &["--cors-origin=https://ops.example.org"]).await;
    let answer = preflight(&open, "https://ops.example.org").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://ops.example.org");
    assert!(answer.header("access-control-allow-headers").contains("x-grpc-web"));
    preflight(&open, "https://evil.example").await.problem(403);
    let answer = call(&open, FLEET, &[("origin", "https://ops.example.org")], &GetFleetRequest {}).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://ops.example.org");
    assert!(answer.header("access-control-expose-headers").contains("grpc-status"));
}
