use std::time::{Duration, Instant};

use memharvest_proto::collector::v1::WatchReadingsRequest;
use memharvest_services::rpc_server::Limits;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{PATIENCE, TestServer, ask};

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test waits for the handle itself")]
async fn calls_in_hand_are_finished_and_streams_end_with_a_reason() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let mut client = server.client();
    let mut readings = client.watch_readings(WatchReadingsRequest::default()).await.unwrap().into_inner();
    readings.message().await.unwrap().expect("the first reading");
    let mut health = HealthClient::new(Channel::from_shared(server.url()).unwrap().connect().await.unwrap());
    let mut states = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status, 1);
    let mut slow = server.client();
    let slow = tokio::spawn(async move { slow.get_reading(ask("slow")).await });
    server.collector.entered.notified().await;

    server.stop.request();
    let end = readings.message().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "the server is stopping; connect again"));
    assert_eq!(states.message().await.unwrap().unwrap().status, 2, "health tells before its stream ends");
    assert_eq!(states.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(!server.serving.is_finished(), "a call is still in hand");
    server.collector.go_on.notify_one();
    slow.await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test waits for the handle itself")]
async fn what_is_busy_at_the_deadline_is_cut_off() {
    let server = TestServer::start(Limits::default(), Duration::from_millis(100));
    let mut slow = server.client();
    let slow = tokio::spawn(async move { slow.get_reading(ask("slow")).await });
    server.collector.entered.notified().await;
    let started = Instant::now();
    server.stop.request();
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(slow.await.unwrap().unwrap_err().code(), Code::Unavailable);
}
