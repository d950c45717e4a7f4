//! Channels to other services, and how to try again.
//!
//! A channel connects when it is first used and reconnects by itself. Unary calls get a deadline and a span, every call carries the trace
//! context and is counted.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument, Span, field};

use crate::metrics::Metrics;
use crate::rpc_body::{Interrupt, WatchedBody, code_of};
use crate::rpc_methods::{RpcMethod, RpcMethods};
use crate::tls::identity::Role;
use crate::tls::{MeshConnector, MeshTls};
use crate::trace_context;

mod retry;

pub use retry::{Backoff, is_transient, retry};

/// An endpoint that is no URL of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("`{0}` is no URL; write it like http://127.0.0.1:7401")]
    NoUrl(String),
    /// No scheme, or another one.
    #[error("`{0}` does not start with http:// or https://; write it like http://127.0.0.1:7401")]
    Scheme(String),
    /// TLS without a certificate to show.
    #[error(
        "`{0}` asks for TLS, and there is no certificate to show; pass --mesh-ca, --mesh-cert and --mesh-key"
    )]
    NoCertificate(String),
    /// A certificate without TLS.
    #[error("`{0}` would be called in the clear in spite of --mesh-ca; write it with https://")]
    Plain(String),
    /// A path that would be ignored.
    #[error("`{0}` has a path; a service is named by its host and port alone")]
    Path(String),
    /// The descriptors cannot be read.
    #[error("cannot read the descriptors of the services: {0}")]
    Descriptors(#[from] prost::DecodeError),
}

/// What all channels of a process share.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// A unary call's deadline, unless the request sets its own.
    pub unary_deadline: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    metrics: Metrics,
    methods: RpcMethods,
    mesh: Option<MeshTls>,
    expects: Option<Role>,
}

impl ClientOptions {
    /// Deadlines of 10 s for calls and 3 s for connecting. `descriptors` is the encoded `FileDescriptorSet` of the
    /// services that will be called.
    ///
    /// # Errors
    /// The bytes are no descriptor set.
    pub fn new(metrics: &Metrics, descriptors: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(Self {
            unary_deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            metrics: metrics.clone(),
            methods: RpcMethods::new(descriptors)?,
            mesh: None,
            expects: None,
        })
    }

    /// Connections show the certificate of the mesh, and ask for one. URLs must be `https://` then.
    #[must_use]
    pub fn mesh(mut self, tls: Option<&MeshTls>) -> Self {
        self.mesh = tls.cloned();
        self
    }

    /// The same, for a service of this role: where certificates are shown, that of another role is refused.
    #[must_use]
    pub fn to(&self, role: Role) -> Self {
        Self { expects: Some(role), ..self.clone() }
    }
}

/// A channel for generated clients: `AgentServiceClient::new(channel)`. Clones share the connection.
#[derive(Debug, Clone)]
pub struct RpcChannel {
    inner: Channel,
    endpoint: String,
    options: ClientOptions,
}

/// Host and port of a service, and whether it is called with TLS. The URI begins with `http://` in either case: tonic
/// leaves TLS to the connector then.
pub(crate) fn parse_endpoint(url: &str) -> Result<(Endpoint, bool), EndpointError> {
    let no_url = || EndpointError::NoUrl(url.to_owned());
    let (rest, with_tls) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err(EndpointError::Scheme(url.to_owned())),
    };
    let mut endpoint = Endpoint::from_shared(format!("http://{rest}")).map_err(|_| no_url())?;
    let uri = endpoint.uri();
    if uri.host().is_none_or(str::is_empty) {
        return Err(no_url());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(EndpointError::Path(url.to_owned()));
    }
    if with_tls {
        endpoint = endpoint.origin(url.parse().map_err(|_| no_url())?);
    }
    Ok((endpoint, with_tls))
}

/// A channel to `url`, such as `http://127.0.0.1:7401`. Must be called within a tokio runtime. Nothing is connected
/// yet: a service that is away shows as `UNAVAILABLE` when it is called.
///
/// # Errors
/// The URL is wrong, or its scheme does not fit the options.
pub fn connect_lazy(url: &str, options: &ClientOptions) -> Result<RpcChannel, EndpointError> {
    let (endpoint, with_tls) = parse_endpoint(url)?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let inner = match (options.mesh.clone(), with_tls) {
        (None, false) => endpoint.connect_lazy(),
        (Some(tls), true) => {
            endpoint.connect_with_connector_lazy(MeshConnector { tls, expects: options.expects })
        }
        (None, true) => return Err(EndpointError::NoCertificate(url.to_owned())),
        (Some(_), false) => return Err(EndpointError::Plain(url.to_owned())),
    };
    Ok(RpcChannel { inner, endpoint: url.to_owned(), options: options.clone() })
}

impl Service<http::Request<Body>> for RpcChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(context).map_err(|error| unreachable_status(&self.endpoint, error))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let endpoint = self.endpoint.clone();
        let method = self.options.methods.look_up(request.uri().path());
        let span = span_of(&method, &endpoint);
        trace_context::inject(
            &if span.is_none() { Span::current() } else { span.clone() },
            request.headers_mut(),
        );
        let mut timer = self.options.metrics.client.start(&method.service, &method.name, span.clone());
        let deadline = (!method.streaming).then(|| set_deadline(&mut request, self.options.unary_deadline));
        let call = async move {
            let answered = match deadline {
                None => inner.call(request).await,
                Some(deadline) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(deadline.at) => {
                        timer.end(Code::DeadlineExceeded);
                        return Err(deadline.status(&endpoint));
                    }
                    answered = inner.call(request) => answered,
                },
            };
            let response = answered.map_err(|error| {
                let status = unreachable_status(&endpoint, error);
                timer.end(status.code());
                status
            })?;
            if let Some(code) = code_of(response.headers()) {
                timer.end(code);
            }
            let interrupt: Option<Interrupt> = deadline.map(|deadline| -> Interrupt {
                Box::pin(async move {
                    tokio::time::sleep_until(deadline.at).await;
                    deadline.status(&endpoint)
                })
            });
            Ok(response.map(|body| Body::new(WatchedBody::new(body, timer, interrupt, None))))
        };
        Box::pin(call.instrument(span))
    }
}

#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    fn status(&self, endpoint: &str) -> Status {
        Status::deadline_exceeded(format!("{endpoint} has not answered within {:?}", self.after))
    }
}

/// The request's own deadline, or the channel's, which the server is then told.
fn set_deadline(request: &mut http::Request<Body>, default: Duration) -> Deadline {
    let headers = request.headers_mut();
    let own = headers
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(crate::rpc_server::parse_timeout);
    if own.is_none() {
        let millis = default.as_millis().min(99_999_999);
        if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
            headers.insert("grpc-timeout", value);
        }
    }
    let after = own.unwrap_or(default);
    Deadline { at: Instant::now() + after, after }
}

fn span_of(method: &RpcMethod, endpoint: &str) -> Span {
    if method.streaming {
        return Span::none();
    }
    tracing::info_span!(
        "rpc_client",
        otel.name = format!("{}/{}", method.service, method.name),
        otel.kind = "client",
        rpc.system = "grpc",
        rpc.service = method.service,
        rpc.method = method.name,
        server.address = endpoint,
        rpc.grpc.status_code = field::Empty,
        otel.status_code = field::Empty,
    )
}

/// Names who could not be reached, and why down to the last cause.
fn unreachable_status(endpoint: &str, error: tonic::transport::Error) -> Status {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        let text = error.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        cause = error.source();
    }
    let message = format!("cannot reach {endpoint}: {}", causes.join(": "));
    match Status::from_error(Box::new(error)).code() {
        // A broken connection is no fault of the call: the next one may pass.
        Code::Unknown | Code::Internal | Code::Cancelled => Status::unavailable(message),
        code => Status::new(code, message),
    }
}
