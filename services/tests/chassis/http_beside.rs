use axum::Router;
use axum::routing::get as on_get;
use memharvest_services::rpc_server::Limits;

use crate::support::{PATIENCE, TestServer, ask, get, http};

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_grpc_and_grpc_web_share_a_port() {
    let router = Router::new()
        .route("/hello", on_get(|| async { "hello" }))
        .fallback(|| async { (axum::http::StatusCode::NOT_FOUND, "no such page") });
    let server = TestServer::start_with(Limits::default(), PATIENCE, |server| server.http(router).grpc_web());

    assert!(get(server.address, "/hello").1.ends_with("hello"));
    let (status, answer) = get(server.address, "/memharvest.collector.v1.CollectorService/GetReading");
    assert!(
        status == 404 && answer.ends_with("no such page"),
        "only gRPC's content type reaches gRPC: {answer}"
    );
    assert!(server.client().get_reading(ask("h1")).await.is_ok());

    // One empty message in a grpc-web frame.
    let head = format!(
        "POST /memharvest.collector.v1.CollectorService/GetReading HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n",
        server.address
    );
    let (status, answer) = http(server.address, &[head.as_bytes(), &[0; 5]].concat());
    assert!(status == 200 && answer.contains("application/grpc-web+proto"), "{answer}");
    assert!(answer.contains("grpc-status:0"), "{answer}");
}
