//! The services behind the gateway: the registry, and the predictors in the order of the settings.

use memharvest_proto::DESCRIPTORS;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::audit_service_client::AuditServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::lease_service_client::LeaseServiceClient;
use memharvest_proto::registry::v1::token_service_client::TokenServiceClient;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, EndpointError, RpcChannel, connect_lazy};
use memharvest_services::rpc_server::MAX_MESSAGE_BYTES;
use memharvest_services::tls::MeshTls;
use memharvest_services::tls::identity::Role;

/// Channels that connect when they are first used. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The registry.
    pub registry: RpcChannel,
    /// The predictors.
    pub predictors: Vec<RpcChannel>,
}

macro_rules! registry_clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Upstream {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $client<RpcChannel> {
                $client::new(self.registry.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
            })*
        }
    };
}

registry_clients! {
    /// Agents of the registry.
    agents: AgentServiceClient;
    /// Audit log of the registry.
    audit: AuditServiceClient;
    /// Boundaries of the registry.
    boundaries: BoundaryServiceClient;
    /// History of the registry.
    harvest: HarvestServiceClient;
    /// Leases of the registry.
    leases: LeaseServiceClient;
    /// Tokens of the registry.
    tokens: TokenServiceClient;
    /// Violations of the registry.
    violations: ViolationServiceClient;
}

impl Upstream {
    /// Channels to the services. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A URL is wrong.
    pub fn new(
        registry: &str,
        predictors: &[String],
        mesh: Option<&MeshTls>,
        metrics: &Metrics,
    ) -> Result<Self, EndpointError> {
        let options = ClientOptions::new(metrics, DESCRIPTORS)?.mesh(mesh);
        let predictor = |url: &String| connect_lazy(url, &options.to(Role::Predictor));
        Ok(Self {
            registry: connect_lazy(registry, &options.to(Role::Registry))?,
            predictors: predictors.iter().map(predictor).collect::<Result<_, _>>()?,
        })
    }

    /// A predictor by its place in the settings.
    #[must_use]
    pub fn predictor(&self, place: usize) -> Option<PredictorServiceClient<RpcChannel>> {
        let channel = self.predictors.get(place)?.clone();
        Some(PredictorServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }
}
