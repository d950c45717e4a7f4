//! A registry on ports and a database of its own, in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::audit_service_client::AuditServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::lease_service_client::LeaseServiceClient;
use memharvest_proto::registry::v1::model_service_client::ModelServiceClient;
use memharvest_proto::registry::v1::token_service_client::TokenServiceClient;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_registry::settings::RegistrySettings;
use memharvest_services::shutdown::Stop;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct TestRegistry {
    pub(crate) grpc: String,
    pub(crate) admin: String,
    pub(crate) channel: Channel,
    stop: Stop,
    served: JoinHandle<anyhow::Result<()>>,
}

/// Settings of a registry on a file, with further flags.
pub(crate) fn settings(database: &Path, flags: &[&str]) -> RegistrySettings {
    let database = database.display().to_string();
    let fixed =
        ["registry", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--database", &database];
    let mut settings = RegistrySettings::try_parse_from(fixed.iter().chain(flags)).unwrap();
    // Records of tests are of fixed times; where it is not the matter of the test, none is too old.
    if !flags.contains(&"--retention") {
        settings.retention = Duration::from_hours(100 * 365 * 24);
        settings.hourly_after = settings.retention;
    }
    settings
}

impl TestRegistry {
    pub(crate) async fn start(database: &Path, flags: &[&str]) -> Self {
        let stop = Stop::new();
        let running = memharvest_registry::start(settings(database, flags), stop.clone()).await.unwrap();
        let (grpc, admin) = (running.grpc_address.to_string(), running.admin_address.to_string());
        #[expect(clippy::disallowed_methods, reason = "the handle is joined by `stop`")]
        let served = tokio::spawn(running.serve());
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        Self { grpc, admin, channel, stop, served }
    }

    /// Drains it and waits for its end.
    pub(crate) async fn stop(self) {
        drop(self.channel);
        self.stop.request();
        self.served.await.unwrap().unwrap();
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
    }

    pub(crate) fn boundaries(&self) -> BoundaryServiceClient<Channel> {
        BoundaryServiceClient::new(self.channel.clone())
    }

    pub(crate) fn harvest(&self) -> HarvestServiceClient<Channel> {
        HarvestServiceClient::new(self.channel.clone())
    }

    pub(crate) fn violations(&self) -> ViolationServiceClient<Channel> {
        ViolationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel.clone())
    }

    pub(crate) fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel.clone())
    }

    pub(crate) fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }
}

/// A folder that goes with the test, and the database's path in it.
pub(crate) fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    (folder, path)
}

/// The fields that a refused request names.
pub(crate) fn wrong_fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let found = memharvest_services::rpc_error::FieldViolations::of(status);
    found.as_slice().iter().map(|one| one.field.clone()).collect()
}

/// Looks again and again until `probe` gives something.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next event of a watch.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> T {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("an event in time")
        .unwrap()
        .expect("no end")
}
