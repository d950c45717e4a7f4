use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use hyper::body::Body as _;
use memharvest_proto::collector::v1::WatchReadingsRequest;
use memharvest_services::rpc_error::FieldViolations;
use memharvest_services::rpc_server::Limits;
use tokio_stream::iter;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tower::ServiceExt;

use crate::support::{PATIENCE, TestServer, ask, eventually};

async fn plain_channel(server: &TestServer) -> Channel {
    Channel::from_shared(server.url()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn answers_and_counts() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let reading = server.client().get_reading(ask("h1")).await.unwrap().into_inner().reading.unwrap();
    assert_eq!(reading.host_id, "h1");
    let status = server.client().get_reading(ask("invalid")).await.unwrap_err();
    assert_eq!(FieldViolations::of(&status).as_slice()[0].field, "host_id");
    for side in ["client", "server"] {
        for code in ["OK", "INVALID_ARGUMENT"] {
            let series = format!(
                "memharvest_rpc_{side}_requests_total{{code=\"{code}\",method=\"GetReading\",\
                 service=\"memharvest.collector.v1.CollectorService\"}} 1"
            );
            eventually(&series, || server.page().contains(&series)).await;
        }
    }
}

/// Clients in other languages look for the status of an error in the last headers of the stream.
#[tokio::test]
async fn an_error_is_all_told_in_headers() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let request =
        http::Request::post(format!("{}/memharvest.collector.v1.CollectorService/Diagnose", server.url()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(axum::body::Body::from(vec![0; 5])))
            .unwrap();
    let answer = plain_channel(&server).await.oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.body().is_end_stream(), "nothing follows the headers");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_server_lives_on() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    assert_eq!(server.client().get_reading(ask("panic")).await.unwrap_err().code(), Code::Internal);
    assert!(server.client().get_reading(ask("h1")).await.is_ok());
}

#[tokio::test]
async fn a_call_ends_at_the_shorter_of_both_deadlines() {
    let limits = Limits { unary_deadline: Duration::from_millis(100), ..Limits::default() };
    let server = TestServer::start(limits, PATIENCE);
    let status = server.client().get_reading(ask("slow")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status.message().starts_with("not done within"),
        "the server's own deadline: {}",
        status.message()
    );

    let server = TestServer::start(Limits::default(), PATIENCE);
    let mut client = server.client();
    client.get_reading(ask("connect first: that takes time, too")).await.unwrap();
    let mut request = Request::new(ask("slow"));
    request.set_timeout(Duration::from_millis(300));
    let status = client.get_reading(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Whichever side's timer is first: the server's, or the caller's that hangs up.
    let ended = ["DEADLINE_EXCEEDED", "CANCELLED"]
        .map(|code| format!("memharvest_rpc_server_requests_total{{code=\"{code}\",method=\"GetReading\""));
    eventually("the server ended the call as well", || {
        let page = server.page();
        ended.iter().any(|series| page.contains(series))
    })
    .await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test waits for the handle itself")]
async fn load_beyond_the_limit_is_shed_at_once() {
    let limits = Limits { unary_in_flight: 1, streams_open: 1, ..Limits::default() };
    let server = TestServer::start(limits, PATIENCE);
    let mut slow = server.client();
    let slow = tokio::spawn(async move { slow.get_reading(ask("slow")).await });
    server.collector.entered.notified().await;
    let status = server.client().get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("limit of 1 calls"), "{}", status.message());

    // A stream takes none of the room for calls, and gives its own back.
    let mut client = server.client();
    let first = client.watch_readings(WatchReadingsRequest::default()).await.unwrap();
    let refused = client.watch_readings(WatchReadingsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    server.collector.go_on.notify_one();
    slow.await.unwrap().unwrap();
    assert!(server.client().get_reading(ask("h1")).await.is_ok());
    let started = std::time::Instant::now();
    while client.watch_readings(WatchReadingsRequest::default()).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the stream's room never came back");
    }
}

#[tokio::test]
async fn health_knows_every_service() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let mut health = HealthClient::new(plain_channel(&server).await);
    for service in ["", "memharvest.collector.v1.CollectorService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service} is serving");
    }
    let stranger = health.check(HealthCheckRequest { service: "stranger".into() }).await.unwrap_err();
    assert_eq!(stranger.code(), Code::NotFound);
}

#[tokio::test]
async fn reflects_what_is_served_and_nothing_else() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let expected = BTreeSet::from([
        "grpc.health.v1.Health".to_owned(),
        "memharvest.collector.v1.CollectorService".to_owned(),
    ]);

    let channel = plain_channel(&server).await;
    let ask = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(iter([request])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.remove("grpc.reflection.v1.ServerReflection"));
    assert_eq!(names, expected);

    // The older version tells the file that a symbol is in, health's too.
    let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
        "grpc.health.v1.Health".into(),
    );
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(iter([request])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    assert!(
        matches!(answer, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)),
        "{answer:?}"
    );
}
