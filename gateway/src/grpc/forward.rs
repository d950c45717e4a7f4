//! Calls that are handed on as they are, without reading them: to the registry, or to a predictor. One table says which.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use memharvest_services::rpc_client::RpcChannel;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use super::author;
use crate::access::CALLER_HEADER;
use crate::upstream::Upstream;

/// What becomes of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The registry answers.
    Registry,
    /// A predictor answers.
    Predictor,
    /// Nobody may call it here; the reason says where it belongs.
    Refused(&'static str),
}

const AGENTS_ONLY: &str = "the processes of the mesh call this on the registry itself";
const PREDICTORS_ONLY: &str = "predictors record on the registry itself; the gateway takes no records";
const BULK: &str =
    "predictors read whole histories from the registry itself; QueryHistory tells one machine's here";
const LIVE_STATE: &str = "the gateway serves the live state by memharvest.gateway.v1.FleetService";

/// Every method of the services that are handed on. A method that is missing here does not exist for callers.
const ROUTES: &[(&str, Route)] = &[
    ("/memharvest.registry.v1.AgentService/GetAgent", Route::Registry),
    ("/memharvest.registry.v1.AgentService/ListAgents", Route::Registry),
    ("/memharvest.registry.v1.AgentService/DecommissionAgent", Route::Registry),
    ("/memharvest.registry.v1.AgentService/RegisterAgent", Route::Refused(AGENTS_ONLY)),
    ("/memharvest.registry.v1.AgentService/Heartbeat", Route::Refused(AGENTS_ONLY)),
    ("/memharvest.registry.v1.AgentService/UpdateAgent", Route::Refused(AGENTS_ONLY)),
    ("/memharvest.registry.v1.AuditService/ListAuditEvents", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/GetBoundary", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/ListBoundaries", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/SetBoundary", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/DeleteBoundary", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/GetEffectiveBoundary", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/ListBoundaryVersions", Route::Registry),
    ("/memharvest.registry.v1.BoundaryService/WatchBoundaries", Route::Registry),
    ("/memharvest.registry.v1.HarvestService/QueryHistory", Route::Registry),
    ("/memharvest.registry.v1.HarvestService/RecordHarvest", Route::Refused(PREDICTORS_ONLY)),
    ("/memharvest.registry.v1.HarvestService/ListLatest", Route::Refused(LIVE_STATE)),
    ("/memharvest.registry.v1.HarvestService/StreamHistory", Route::Refused(BULK)),
    ("/memharvest.registry.v1.LeaseService/ReserveMemory", Route::Registry),
    ("/memharvest.registry.v1.LeaseService/RenewLease", Route::Registry),
    ("/memharvest.registry.v1.LeaseService/ReleaseLease", Route::Registry),
    ("/memharvest.registry.v1.LeaseService/ListLeases", Route::Registry),
    ("/memharvest.registry.v1.LeaseService/WatchLeases", Route::Registry),
    ("/memharvest.registry.v1.TokenService/CreateToken", Route::Registry),
    ("/memharvest.registry.v1.TokenService/ListTokens", Route::Registry),
    ("/memharvest.registry.v1.TokenService/RevokeToken", Route::Registry),
    ("/memharvest.registry.v1.TokenService/VerifyToken", Route::Refused(AGENTS_ONLY)),
    ("/memharvest.registry.v1.ViolationService/ListViolations", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/GetViolation", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/AcknowledgeViolation", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/ExplainViolation", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/WatchViolations", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/ListErrorBudgets", Route::Registry),
    ("/memharvest.registry.v1.ViolationService/RecordViolations", Route::Refused(PREDICTORS_ONLY)),
    ("/memharvest.predictor.v1.PredictorService/SimulateBoundary", Route::Predictor),
    (
        "/memharvest.predictor.v1.PredictorService/Observe",
        Route::Refused("collectors send readings to a predictor itself"),
    ),
    ("/memharvest.predictor.v1.PredictorService/ListHosts", Route::Refused(LIVE_STATE)),
    ("/memharvest.predictor.v1.PredictorService/ListVms", Route::Refused(LIVE_STATE)),
    ("/memharvest.predictor.v1.PredictorService/ExplainVm", Route::Refused(LIVE_STATE)),
    ("/memharvest.predictor.v1.PredictorService/WatchForecasts", Route::Refused(LIVE_STATE)),
];

/// What a simulation may take where its caller does not say; a predictor gives a call no more than this.
const SIMULATION: HeaderValue = HeaderValue::from_static("30S");

/// Headers of a call that go on. Everything else is between the caller and the gateway; the trace's are written anew.
const PASSED_ON: [HeaderName; 5] = [
    CONTENT_TYPE,
    USER_AGENT,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// The services, each under its own name.
pub(crate) mod services {
    use tonic::server::NamedService;

    macro_rules! names {
        ($($service:ident in $package:ident is $module:ident;)*) => {$(
            #[derive(Clone, Debug)]
            pub(crate) enum $service {}

            impl NamedService for $service {
                const NAME: &'static str = memharvest_proto::$package::v1::$module::SERVICE_NAME;
            }
        )*};
    }

    names! {
        Agents in registry is agent_service_server;
        Audit in registry is audit_service_server;
        Boundaries in registry is boundary_service_server;
        Harvest in registry is harvest_service_server;
        Leases in registry is lease_service_server;
        Tokens in registry is token_service_server;
        Violations in registry is violation_service_server;
        Predictor in predictor is predictor_service_server;
    }
}

/// Hands the calls of one service on.
#[derive(Clone, Debug)]
pub(crate) struct Forward<Name> {
    upstream: Upstream,
    name: PhantomData<Name>,
}

impl<Name> Forward<Name> {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self { upstream: upstream.clone(), name: PhantomData }
    }

    fn channel(&self, path: &str) -> Result<RpcChannel, Status> {
        match route(path) {
            Some(Route::Registry) => Ok(self.upstream.registry.clone()),
            // Every predictor can simulate: the history comes from the registry.
            Some(Route::Predictor) => {
                let first = self.upstream.predictors.first().cloned();
                first.ok_or_else(|| Status::unavailable("the gateway knows no predictor"))
            }
            Some(Route::Refused(reason)) => Err(Status::permission_denied(reason)),
            None => Err(Status::unimplemented(format!("the gateway does not serve {path}"))),
        }
    }
}

fn route(path: &str) -> Option<Route> {
    ROUTES.iter().find(|(known, _)| *known == path).map(|(_, route)| *route)
}

/// Whether a method reaches a service behind the gateway.
#[cfg(test)]
pub(crate) fn is_handed_on(path: &str) -> bool {
    matches!(route(path), Some(Route::Registry | Route::Predictor))
}

impl<Name: NamedService> NamedService for Forward<Name> {
    const NAME: &'static str = Name::NAME;
}

impl<Name> Service<http::Request<Body>> for Forward<Name> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let (chosen, simulates) = (self.channel(path), route(path) == Some(Route::Predictor));
        Box::pin(async move {
            let answered = async {
                let channel = chosen?;
                let mut request = onward(signed(request).await?);
                if simulates {
                    request.headers_mut().entry("grpc-timeout").or_insert(SIMULATION);
                }
                channel.oneshot(request).await
            };
            let answered: Result<_, Status> = answered.await;
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}

/// The same call, in the name of a caller who is known.
async fn signed(request: http::Request<Body>) -> Result<http::Request<Body>, Status> {
    let caller =
        request.headers().get(CALLER_HEADER).and_then(|name| std::str::from_utf8(name.as_bytes()).ok());
    let (Some(caller), Some(field)) = (caller.map(str::to_owned), author::field_of(request.uri().path()))
    else {
        return Ok(request);
    };
    let (parts, body) = request.into_parts();
    Ok(http::Request::from_parts(parts, author::sign(body, field, &caller).await?))
}

/// The same call, to another server.
fn onward(request: http::Request<Body>) -> http::Request<Body> {
    let (parts, body) = request.into_parts();
    let mut headers = HeaderMap::new();
    for name in &PASSED_ON {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = Uri::try_from(parts.uri.path()).unwrap_or_default();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// No method of a service that is handed on is forgotten, and the table names none that does not exist.
    #[test]
    fn the_table_covers_every_method() {
        let set = prost_types::FileDescriptorSet::decode(memharvest_proto::DESCRIPTORS).unwrap();
        let mut methods = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
            }
        }
        let handed_on = |path: &String| {
            let apart = ["collector.v1.", "gateway.v1.", "registry.v1.ModelService"];
            path.starts_with("/memharvest.") && !apart.iter().any(|part| path.contains(part))
        };
        let mut expected: Vec<String> = methods.into_iter().filter(handed_on).collect();
        let mut known: Vec<String> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
        expected.sort();
        known.sort();
        assert_eq!(known, expected);
    }

    #[test]
    fn records_cannot_be_written_through_the_gateway() {
        for path in [
            "/memharvest.registry.v1.ViolationService/RecordViolations",
            "/memharvest.registry.v1.HarvestService/RecordHarvest",
            "/memharvest.registry.v1.AgentService/RegisterAgent",
            "/memharvest.predictor.v1.PredictorService/Observe",
        ] {
            assert!(matches!(route(path), Some(Route::Refused(_))), "{path}");
        }
        assert_eq!(route("/memharvest.registry.v1.ModelService/PutSnapshots"), None);
    }
}
