//! One port for a service: gRPC with health, reflection and limits, and plain HTTP beside it where there is any.
//!
//! Every gRPC call goes through one layer (see [`Limits`]) that counts and times it, adopts the caller's trace, refuses it
//! when too many are in flight, cuts it at its deadline and turns a panic into `INTERNAL`. Streams have no deadline and a limit of
//! their own; they end with `UNAVAILABLE` when the process stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::{Service, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;

use crate::caller::{Refusal, Refusals};
use crate::listener::Bound;
use crate::metrics::Metrics;
use crate::rpc_methods::RpcMethods;
use crate::shutdown::Stop;
use crate::tls::{MeshTls, ServerTls};

mod admission;
mod call;
mod connection;

pub(crate) use call::parse_timeout;
pub use connection::Peer;

/// Largest message that a service should take: pass it to `max_decoding_message_size` of servers and clients.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What a server puts up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A unary call's deadline, unless its caller sets a shorter one.
    pub unary_deadline: Duration,
    /// Unary calls in flight; more get `RESOURCE_EXHAUSTED` at once.
    pub unary_in_flight: usize,
    /// Streams that are open; more get `RESOURCE_EXHAUSTED` at once.
    pub streams_open: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unary_deadline: Duration::from_secs(30), unary_in_flight: 1024, streams_open: 16_384 }
    }
}

/// A server cannot be put together, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The bytes of the descriptors are no descriptor set.
    #[error("cannot read the descriptors: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// Reflection refuses the descriptors.
    #[error("cannot reflect the services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport broke.
    #[error("the server broke: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Puts a server together.
#[derive(Debug)]
pub struct RpcServer {
    routes: Routes,
    names: Vec<&'static str>,
    descriptors: &'static [u8],
    http: Option<Router>,
    grpc_web: bool,
    around: Option<Around>,
    tls: Option<ServerTls>,
    /// Callers are members of the mesh, and each may make the calls of its role.
    members_only: bool,
    refusals: Option<mpsc::Sender<Refusal>>,
    limits: Limits,
    metrics: Metrics,
}

/// Wraps the routes of a whole port.
struct Around(Box<dyn FnOnce(Router) -> Router + Send>);

impl std::fmt::Debug for Around {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Around")
    }
}

impl RpcServer {
    /// A server without services. `descriptors` is the encoded `FileDescriptorSet` of all that will be added; only
    /// the added ones are reflected.
    #[must_use]
    pub fn new(metrics: &Metrics, descriptors: &'static [u8]) -> Self {
        Self {
            routes: Routes::default(),
            names: Vec::new(),
            descriptors,
            http: None,
            grpc_web: false,
            around: None,
            tls: None,
            members_only: false,
            refusals: None,
            limits: Limits::default(),
            metrics: metrics.clone(),
        }
    }

    /// Adds a tonic service; health and reflection know it by its name.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Serves everything that is not gRPC with this router, on the same port.
    #[must_use]
    pub fn http(mut self, router: Router) -> Self {
        self.http = Some(router);
        self
    }

    /// Speaks grpc-web as well.
    #[must_use]
    pub fn grpc_web(mut self) -> Self {
        self.grpc_web = true;
        self
    }

    /// Puts layers around everything on the port, gRPC and grpc-web included: who may ask at all.
    #[must_use]
    pub fn around(mut self, wrap: impl FnOnce(Router) -> Router + Send + 'static) -> Self {
        self.around = Some(Around(Box::new(wrap)));
        self
    }

    /// Speaks TLS; callers are not asked for certificates.
    #[must_use]
    pub fn tls(mut self, tls: Option<ServerTls>) -> Self {
        self.tls = tls;
        self
    }

    /// Speaks TLS with members of the mesh alone, and lets each make the calls of its role (`mesh_policy`).
    #[must_use]
    pub fn mesh(mut self, tls: Option<&MeshTls>) -> Self {
        self.members_only = tls.is_some();
        self.tls = tls.map(MeshTls::server);
        self
    }

    /// Tells of callers that are refused.
    #[must_use]
    pub fn tell_refusals(mut self, listener: mpsc::Sender<Refusal>) -> Self {
        self.refusals = Some(listener);
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `stop` is requested: then health turns `NOT_SERVING`, streams end, calls in flight are finished
    /// until `drain_deadline`, and what is left is cut off.
    ///
    /// # Errors
    /// The descriptors do not fit, or the transport broke.
    pub async fn serve(self, bound: Bound, stop: &Stop, drain_deadline: Duration) -> Result<(), ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in &self.names {
            health.set_service_status(*name, ServingStatus::Serving).await;
        }
        let end_streams = CancellationToken::new();
        let calls = Arc::new(call::Calls {
            methods: RpcMethods::new(self.descriptors)?,
            metrics: self.metrics.clone(),
            unary: Arc::new(Semaphore::new(self.limits.unary_in_flight)),
            streams: Arc::new(Semaphore::new(self.limits.streams_open)),
            limits: self.limits,
            end_streams: end_streams.clone(),
        });
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that tools can show which fields of a request are wrong.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health");
            self.names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let v1 = reflection().with_service_name("grpc.reflection.v1.ServerReflection").build_v1()?;
        let v1alpha =
            reflection().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?;
        let mut grpc = self
            .routes
            .add_service(health_service)
            .add_service(v1)
            .add_service(v1alpha)
            .into_axum_router()
            .layer(CatchPanicLayer::custom(call::panicked));
        let refusals = Arc::new(Refusals::new(&self.metrics, self.refusals));
        if self.members_only {
            let admit = axum::middleware::from_fn_with_state(Arc::clone(&refusals), admission::admit);
            grpc = grpc.layer(admit);
        }
        grpc = grpc.layer(axum::middleware::from_fn_with_state(calls, call::serve));
        if self.grpc_web {
            // Around the gRPC routes alone: this layer refuses everything else that comes over HTTP/1.
            grpc = grpc.layer(tonic_web::GrpcWebLayer::new());
        }
        let has_http = self.http.is_some();
        let mut routes = beside(grpc, self.http);
        if let Some(Around(wrap)) = self.around {
            routes = wrap(routes);
        }

        let cut_off = CancellationToken::new();
        let incoming = connection::incoming(bound.listener, self.tls, refusals, &cut_off);
        let server = Server::builder()
            .accept_http1(has_http || self.grpc_web)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_routes(routes.into())
            .serve_with_incoming_shutdown(incoming, async {
                stop.requested().await;
                health.set_service_status("", ServingStatus::NotServing).await;
                for name in &self.names {
                    health.set_service_status(*name, ServingStatus::NotServing).await;
                }
                end_streams.cancel();
            });
        let cut = async {
            stop.requested().await;
            tokio::time::sleep(drain_deadline).await;
            tracing::warn!(address = %bound.address, "connections are still busy at the drain deadline, cutting them off");
            cut_off.cancel();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            outcome = server => outcome?,
            _ = cut => {}
        }
        Ok(())
    }
}

/// Sends gRPC one way and everything else the other, each with its own answer for what it does not know.
fn beside(grpc: Router, http: Option<Router>) -> Router {
    let Some(http) = http else { return grpc };
    Router::new().fallback(move |request: Request| {
        let chosen = if is_grpc(&request) { grpc.clone() } else { http.clone() };
        async move { chosen.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}) }
    })
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}
