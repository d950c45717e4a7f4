//! A gateway on ports of its own, with a registry and predictors that a test holds in its hands.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use memharvest_gateway::{Running, Settings, start};
use memharvest_proto::registry::v1::agent_service_server::AgentServiceServer;
use memharvest_proto::registry::v1::audit_service_server::AuditServiceServer;
use memharvest_proto::registry::v1::boundary_service_server::BoundaryServiceServer;
use memharvest_proto::registry::v1::harvest_service_server::HarvestServiceServer;
use memharvest_proto::registry::v1::token_service_server::TokenServiceServer;
use memharvest_proto::registry::v1::violation_service_server::ViolationServiceServer;
use memharvest_services::shutdown::Stop;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::http::{self, Answer};
use crate::predictor::Predictor;
use crate::registry::Registry;

/// A gateway with one predictor, unless told otherwise.
pub(crate) struct Mesh {
    pub(crate) registry: Registry,
    pub(crate) predictors: Vec<Predictor>,
    pub(crate) gateway: Running,
    pub(crate) stop: Stop,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Self::with(1, &[]).await
    }

    pub(crate) async fn with(predictors: usize, flags: &[&str]) -> Self {
        let mesh = Self::begin(predictors, flags).await;
        mesh.until("readyz says ready", "/readyz", |answer| answer.status == 200).await;
        mesh
    }

    /// With one predictor and flags that make the port speak TLS.
    pub(crate) async fn over_tls(flags: &[&str]) -> Self {
        Self::begin(1, flags).await
    }

    async fn begin(predictors: usize, flags: &[&str]) -> Self {
        let stop = Stop::new();
        let registry = Registry::default();
        let of_registry = Server::builder()
            .add_service(AgentServiceServer::new(registry.clone()))
            .add_service(AuditServiceServer::new(registry.clone()))
            .add_service(BoundaryServiceServer::new(registry.clone()))
            .add_service(HarvestServiceServer::new(registry.clone()))
            .add_service(TokenServiceServer::new(registry.clone()))
            .add_service(ViolationServiceServer::new(registry.clone()));
        let mut args = vec!["memharvest-gateway".to_owned()];
        let registry_address = serve(of_registry, &stop).await;
        if !flags.iter().any(|flag| flag.starts_with("--registry=")) {
            args.push(format!("--registry=http://{registry_address}"));
        }
        let predictors: Vec<Predictor> = (0..predictors).map(|_| Predictor::default()).collect();
        for predictor in &predictors {
            let server = Server::builder().add_service(predictor.service());
            args.push(format!("--predictor=http://{}", serve(server, &stop).await));
        }
        args.extend(
            ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--registry-poll=50ms"].map(Into::into),
        );
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let gateway = start(&Settings::parse_from(args), &stop).unwrap();
        Self { registry, predictors, gateway, stop }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::get(&self.url(path)).await
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Asks until the answer is as wished.
    pub(crate) async fn until(&self, what: &str, path: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = String::new();
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if wished(&answer) {
                    return answer;
                }
                last = answer.text();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(20), asking).await;
        outcome.unwrap_or_else(|_| panic!("{what} did not come; last: {last}"))
    }

    /// Waits until the fleet has this many hosts.
    pub(crate) async fn hosts(&self, count: u64) {
        self.until(&format!("{count} hosts"), "/api/v1/fleet", |answer| answer.json()["hosts"] == count)
            .await;
    }
}

async fn serve(server: tonic::transport::server::Router, stop: &Stop) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = stop.clone();
    stop.spawn("a service behind the gateway", async move {
        let incoming = TcpListenerStream::new(listener);
        let _ = server.serve_with_incoming_shutdown(incoming, async move { ended.requested().await }).await;
    });
    address
}
