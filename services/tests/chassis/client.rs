use std::net::SocketAddr;
use std::time::Duration;

use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::collector_service_client::CollectorServiceClient;
use memharvest_services::listener;
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, EndpointError, connect_lazy, retry};
use memharvest_services::rpc_server::Limits;
use tonic::Code;

use crate::support::{PATIENCE, SERVICE, TestServer, ask};

fn options() -> ClientOptions {
    ClientOptions::new(&Metrics::new(&SERVICE).unwrap(), DESCRIPTORS).unwrap()
}

#[tokio::test]
async fn a_wrong_url_is_refused_with_a_cure() {
    for (url, expected) in [
        ("127.0.0.1:7401", EndpointError::Scheme("127.0.0.1:7401".into())),
        ("https://127.0.0.1:7401", EndpointError::NoCertificate("https://127.0.0.1:7401".into())),
        ("ftp://127.0.0.1:7401", EndpointError::Scheme("ftp://127.0.0.1:7401".into())),
        ("http://", EndpointError::NoUrl("http://".into())),
        ("http://a b", EndpointError::NoUrl("http://a b".into())),
        ("http://127.0.0.1:7401/v1", EndpointError::Path("http://127.0.0.1:7401/v1".into())),
    ] {
        assert_eq!(connect_lazy(url, &options()).unwrap_err(), expected);
        assert!(expected.to_string().contains(url));
    }
    assert!(connect_lazy("http://registry.mesh:7401/", &options()).is_ok());
}

#[tokio::test]
async fn a_service_that_is_away_is_unavailable_by_name() {
    let bound = listener::bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", bound.address);
    drop(bound);
    let mut client = CollectorServiceClient::new(connect_lazy(&url, &options()).unwrap());
    let status = client.get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with(&format!("cannot reach {url}: ")), "{}", status.message());
    assert!(status.message().contains("refused"), "{}", status.message());
}

#[tokio::test]
async fn a_service_that_does_not_answer_costs_its_deadline_only() {
    // Listens, so that the connection is made, but nobody ever accepts it.
    let bound = listener::bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut options = options();
    options.unary_deadline = Duration::from_millis(100);
    let url = format!("http://{}", bound.address);
    let mut client = CollectorServiceClient::new(connect_lazy(&url, &options).unwrap());
    let status = client.get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), format!("{url} has not answered within 100ms"));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the server outlives the test's interest in it")]
async fn a_channel_finds_a_service_that_comes_back() {
    let server = TestServer::start(Limits::default(), PATIENCE);
    let (address, client) = (server.address, server.client());
    client.clone().get_reading(ask("h1")).await.unwrap();
    server.stop.request();
    server.serving.await.unwrap();
    assert_eq!(client.clone().get_reading(ask("h1")).await.unwrap_err().code(), Code::Unavailable);

    let bound = listener::bind("--listen", address).unwrap();
    let metrics = server.metrics.clone();
    let again = memharvest_services::rpc_server::RpcServer::new(&metrics, DESCRIPTORS).add_service(
        memharvest_proto::collector::v1::collector_service_server::CollectorServiceServer::new(
            server.collector,
        ),
    );
    tokio::spawn(
        async move { again.serve(bound, &memharvest_services::shutdown::Stop::new(), PATIENCE).await },
    );
    let pauses = std::iter::repeat_n(Duration::from_millis(20), 100);
    let answer = retry(pauses, || {
        let mut client = client.clone();
        async move { client.get_reading(ask("h1")).await }
    });
    assert!(answer.await.is_ok());
}
