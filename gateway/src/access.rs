//! Who asks, what he may do, and how often: for REST, gRPC and grpc-web alike.
//!
//! Without authentication everybody is let in, on loopback alone (see the settings). With it, every request but probes
//! and pages carries a bearer token: a static one that the registry knows, or one of an identity provider. [`policy`] is
//! the only place that says what a role may do.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use memharvest_proto::gateway::v1::OpenIdProvider;
use memharvest_proto::registry::v1::Role;
use memharvest_services::rpc_client::RpcChannel;
use memharvest_services::rpc_server::Peer;
use memharvest_services::shutdown::Stop;
use tonic::Status;

use crate::rest::problem::Problem;

mod bearer;
mod identity;
mod oidc;
pub(crate) mod policy;
mod rate;
mod settings;
mod sign_in;

use bearer::Bearers;
use identity::{Denied, Identity};
use policy::Needs;
use rate::Buckets;

pub use settings::AccessSettings;
pub(crate) use sign_in::redeem;

/// The name of a caller who has shown who he is, as handlers find it. A caller cannot set it himself.
pub(crate) const CALLER_HEADER: &str = "x-memharvest-caller";
/// Unknown secrets that one address may show in a second before it has to wait, and at once.
const GUESSES: (f64, f64) = (5.0, 50.0);

/// The guard of the port. Clones share what it knows.
#[derive(Clone, Debug)]
pub(crate) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: nobody is asked who he is.
    bearers: Option<Bearers>,
    /// `None`: nobody is held back.
    requests: Option<Mutex<Buckets<Client>>>,
    guesses: Mutex<Buckets<Client>>,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Name(String),
    Address(IpAddr),
}

/// What is known of a caller by the time the route is found.
#[derive(Clone, Debug)]
enum Caller {
    /// Nobody is asked who he is.
    Anybody,
    /// He has shown it, or why he has not.
    Asked(Result<Identity, Denied>),
}

/// Who a caller is, as he may be told himself.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// Whether callers are asked who they are.
    pub(crate) asked: bool,
    /// His name in the audit log; empty: he is nobody yet.
    pub(crate) name: String,
    /// What he may do; unspecified: nothing.
    pub(crate) role: Role,
    /// Why he is nobody.
    pub(crate) denied: Option<String>,
}

/// A request that goes no further.
#[derive(Debug)]
enum Refusal {
    Denied(Denied),
    /// His role does not suffice.
    Forbidden(String),
    TooMany(Duration),
}

impl Access {
    /// The guard that the settings ask for; what it needs to keep fresh runs in tasks of `stop`.
    pub(crate) fn start(settings: &AccessSettings, registry: &RpcChannel, stop: &Stop) -> Self {
        let oidc = settings.oidc();
        if let Some(oidc) = &oidc {
            stop.spawn("identity provider's keys", oidc.clone().keep_fresh(stop.clone()));
        }
        let bearers =
            settings.asks().then(|| Bearers::new(settings.auth_tokens.then(|| registry.clone()), oidc));
        let rate = f64::from(settings.rate_limit);
        Self(Arc::new(Inner {
            bearers,
            requests: (settings.rate_limit > 0).then(|| Mutex::new(Buckets::new(rate, 2.0 * rate))),
            guesses: Mutex::new(Buckets::new(GUESSES.0, GUESSES.1)),
        }))
    }

    /// Who the caller of a request is that came through [`authenticate`].
    pub(crate) fn who(&self, extensions: &Extensions) -> Who {
        let asked = self.0.bearers.is_some();
        let nobody = Who { asked, name: String::new(), role: Role::Unspecified, denied: None };
        match extensions.get::<Caller>() {
            Some(Caller::Asked(Ok(identity))) => {
                Who { name: identity.name.clone(), role: identity.role, ..nobody }
            }
            Some(Caller::Asked(Err(
                Denied::Unknown(reason) | Denied::NoRole(reason) | Denied::Undecided(reason),
            ))) => Who { denied: Some(reason.clone()), ..nobody },
            _ if asked => nobody,
            _ => Who { role: Role::Admin, ..nobody },
        }
    }

    /// Whether the registry's tokens are taken.
    pub(crate) fn takes_tokens(&self) -> bool {
        self.0.bearers.as_ref().is_some_and(Bearers::takes_tokens)
    }

    /// The identity provider that browsers can be sent to.
    pub(crate) async fn open_id(&self) -> Option<OpenIdProvider> {
        self.0.bearers.as_ref()?.oidc()?.provider().await
    }

    /// Finds out who asks, whether he asks too often, and for gRPC whether he may.
    async fn admit(&self, request: &Parts, is_grpc: bool) -> Result<Caller, Refusal> {
        let address = request.extensions.get::<Peer>().map(|peer| peer.address.ip());
        let caller = self.identify(&request.headers, address).await?;
        self.count(&caller, address)?;
        if is_grpc {
            let path = request.uri.path();
            // What is not listed does not exist, or is refused to everybody; whoever may look is told which.
            caller.may(policy::of_method(path).unwrap_or(Needs::AtLeast(Role::Viewer)), path)?;
        }
        Ok(caller)
    }

    /// Finds out who asks.
    async fn identify(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Result<Caller, Refusal> {
        let Some(bearers) = &self.0.bearers else { return Ok(Caller::Anybody) };
        let Some(shown) = headers.get(AUTHORIZATION) else {
            return Ok(Caller::Asked(Err(Denied::Unknown("show a token: authorization: Bearer …".into()))));
        };
        let words = shown.to_str().ok().and_then(|text| text.trim().split_once(' '));
        let Some((_, secret)) = words.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            let reason = "the authorization header is not written as `Bearer` and a token";
            return Ok(Caller::Asked(Err(Denied::Unknown(reason.into()))));
        };
        let secret = secret.trim();
        if let Some(answer) = bearers.remembered(secret) {
            return Ok(Caller::Asked(answer));
        }
        // Whoever tries many secrets waits; whoever shows one that opens is not counted again until it is forgotten.
        if let Some(address) = address {
            take(&self.0.guesses, Client::Address(network(address)))?;
        }
        Ok(Caller::Asked(bearers.check(secret).await))
    }

    fn count(&self, caller: &Caller, address: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(requests) = &self.0.requests else { return Ok(()) };
        match (caller, address) {
            (Caller::Asked(Ok(identity)), _) => take(requests, Client::Name(identity.name.clone())),
            // The programs of this machine, where nobody is asked who he is.
            (Caller::Anybody, Some(address)) if address.is_loopback() => Ok(()),
            (_, Some(address)) => take(requests, Client::Address(network(address))),
            (_, None) => Ok(()),
        }
    }
}

fn take(buckets: &Mutex<Buckets<Client>>, client: Client) -> Result<(), Refusal> {
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    buckets.take(client, Instant::now()).map_err(Refusal::TooMany)
}

/// One subscriber has 2^64 addresses of the sixth version.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

impl Caller {
    fn may(&self, needs: Needs, what: &str) -> Result<(), Refusal> {
        match self {
            Self::Anybody => Ok(()),
            Self::Asked(Ok(identity)) if needs.met_by(Some(identity.role)) => Ok(()),
            Self::Asked(Ok(identity)) => {
                let least = match needs {
                    Needs::AtLeast(Role::Admin) => "admin",
                    Needs::AtLeast(Role::Operator) => "operator",
                    _ => "viewer",
                };
                Err(Refusal::Forbidden(format!("`{}` may not: {what} needs the role {least}", identity.name)))
            }
            Self::Asked(Err(_)) if needs.met_by(None) => Ok(()),
            Self::Asked(Err(denied)) => Err(Refusal::Denied(denied.clone())),
        }
    }
}

/// The layer around the whole port: finds out who asks, and lets gRPC calls through. REST is let through where the
/// route is known, by [`authorize`].
pub(crate) async fn authenticate(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(CALLER_HEADER);
    let grpc = grpc_type(&parts.headers);
    let caller = match access.admit(&parts, grpc.is_some()).await {
        Ok(caller) => caller,
        Err(refusal) => return refusal.answer(grpc),
    };
    if let Caller::Asked(Ok(identity)) = &caller
        && let Ok(name) = HeaderValue::from_bytes(identity.name.as_bytes())
    {
        parts.headers.insert(CALLER_HEADER, name);
    }
    parts.extensions.insert(caller);
    next.run(Request::from_parts(parts, body)).await
}

/// The layer within the REST routes.
pub(crate) async fn authorize(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anybody);
    let method = request.method();
    let (needs, what) = match request.extensions().get::<MatchedPath>() {
        // A route that nobody has put into the table is nobody's.
        Some(route) => (
            policy::of_route(method, route.as_str()).unwrap_or(unlisted(method, route.as_str())),
            format!("{method} {}", route.as_str()),
        ),
        None => (Needs::AtLeast(Role::Viewer), "it".to_owned()),
    };
    match caller.may(needs, &what) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.answer(None),
    }
}

/// A method that a route does not have is refused by the route itself, to everybody who may look.
fn unlisted(method: &Method, route: &str) -> Needs {
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let has_others = known.iter().any(|other| other != method && policy::of_route(other, route).is_some());
    Needs::AtLeast(if has_others { Role::Viewer } else { Role::Admin })
}

/// The content type of a gRPC or grpc-web call; `None`: it is neither.
fn grpc_type(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(CONTENT_TYPE).filter(|value| value.as_bytes().starts_with(b"application/grpc")).cloned()
}

impl Refusal {
    fn answer(self, grpc: Option<HeaderValue>) -> Response {
        tracing::debug!(?self, "refused");
        match grpc {
            // A browser's client reads the status in headers too, of an answer in its own type.
            Some(content_type) => {
                let mut response = self.status().into_http::<axum::body::Body>();
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            None => self.problem(),
        }
    }

    fn status(self) -> Status {
        match self {
            Self::Denied(Denied::Unknown(reason)) => Status::unauthenticated(reason),
            Self::Denied(Denied::NoRole(reason)) | Self::Forbidden(reason) => {
                Status::permission_denied(reason)
            }
            Self::Denied(Denied::Undecided(reason)) => Status::unavailable(reason),
            Self::TooMany(wait) => Status::resource_exhausted(too_many(wait)),
        }
    }

    fn problem(self) -> Response {
        let (status, detail) = match &self {
            Self::Denied(Denied::Unknown(reason)) => (StatusCode::UNAUTHORIZED, reason.clone()),
            Self::Denied(Denied::NoRole(reason)) | Self::Forbidden(reason) => {
                (StatusCode::FORBIDDEN, reason.clone())
            }
            Self::Denied(Denied::Undecided(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason.clone()),
            Self::TooMany(wait) => (StatusCode::TOO_MANY_REQUESTS, too_many(*wait)),
        };
        let mut response = Problem::new(status, detail).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"memharvest\""));
        }
        if let Self::TooMany(wait) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response
    }
}

fn too_many(wait: Duration) -> String {
    format!("too many requests; try again in {} s", wait.as_secs() + 1)
}

#[cfg(test)]
mod tests;
