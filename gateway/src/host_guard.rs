//! Who may ask at all, before anybody is known by name: no web page of a stranger may drive the mesh of a laptop.
//!
//! A browser sends the name of the host that it believes to talk to, and the origin of the page. A name that is not
//! this gateway's is DNS rebinding, an origin that is not this gateway's is a foreign page: both are refused, for REST,
//! gRPC and grpc-web alike. Programs that send no `Origin` are judged by `Host` alone.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use tonic::Status;

use crate::rest::problem::Problem;

/// An origin as browsers write it: scheme, host, and port where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The text that browsers send.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| wrong_origin())?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.ends_with('/');
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if bare && !authority.as_str().contains('@') => {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err(wrong_origin()),
        }
    }
}

fn wrong_origin() -> String {
    "write scheme, host and port alone, such as https://ops.example.org".into()
}

/// The names that this gateway answers to.
#[derive(Clone, Debug)]
pub(crate) struct HostGuard(Arc<Allowed>);

#[derive(Debug)]
struct Allowed {
    listen: IpAddr,
    hosts: Vec<String>,
    origins: Vec<Origin>,
}

impl HostGuard {
    /// Loopback, the listen address and `hosts` are this gateway; `origins` are pages that may call it besides its own.
    /// Listening on every address, it answers to every address that is written as such: no name can be rebound to one.
    #[must_use]
    pub(crate) fn new(listen: SocketAddr, hosts: &[String], origins: &[Origin]) -> Self {
        Self(Arc::new(Allowed { listen: listen.ip(), hosts: hosts.to_vec(), origins: origins.to_vec() }))
    }

    /// Nothing, or why the request is refused.
    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let host = headers.get(HOST).map(http::HeaderValue::to_str).transpose();
        let host = host.map_err(|_| "the Host header is no text".to_owned())?;
        let Some(host) = host.or_else(|| uri.authority().map(Authority::as_str)) else {
            return Err("the request names no host".into());
        };
        if !self.is_own(host) {
            return Err(format!("`{host}` is no name of this gateway; add it with --allowed-host"));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let page = origin.split_once("://").map_or("", |(_, page)| page);
        let listed = self.0.origins.iter().any(|listed| listed.as_str().eq_ignore_ascii_case(origin));
        // Its own page: a browser writes host and port alike in both headers. Not any page of this machine: another
        // port may serve anybody's.
        if listed || (!page.is_empty() && page.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(format!("pages of `{origin}` may not call this gateway; add the origin with --cors-origin"))
    }

    fn is_own(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if host == "localhost" || host.ends_with(".localhost") || self.0.hosts.contains(&host) {
            return true;
        }
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| {
            address.is_loopback() || address == self.0.listen || self.0.listen.is_unspecified()
        })
    }
}

/// The layer.
pub(crate) async fn refuse_strangers(
    State(guard): State<HostGuard>,
    request: Request,
    next: Next,
) -> Response {
    match guard.judge(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => {
            tracing::debug!(reason, "a stranger was refused");
            if is_grpc(request.headers()) {
                return Status::permission_denied(reason).into_http();
            }
            Problem::new(StatusCode::FORBIDDEN, reason).into_response()
        }
    }
}

/// Whether the caller reads statuses of gRPC alone; a browser's grpc-web understands those of HTTP.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.starts_with("application/grpc") && !content_type.starts_with("application/grpc-web")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(listen: &str, host: &str, origin: Option<&str>) -> bool {
        let origins = ["https://ops.example.org".parse().unwrap()];
        let guard = HostGuard::new(listen.parse().unwrap(), &["mesh.example.org".into()], &origins);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        guard.judge(&Uri::from_static("/api/v1/fleet"), &headers).is_ok()
    }

    #[test]
    fn own_names_pass_and_foreign_ones_do_not() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "127.8.9.1",
            "mesh.example.org:80",
            "localhost.",
        ] {
            assert!(judged("127.0.0.1:8080", host, None), "{host}");
        }
        for host in
            ["evil.example", "10.0.0.5:8080", "localhost.evil.example", "evil@localhost", "", "local host"]
        {
            assert!(!judged("127.0.0.1:8080", host, None), "{host}");
        }
    }

    #[test]
    fn an_address_is_a_name_where_every_address_is_listened_on() {
        assert!(judged("10.0.0.5:8080", "10.0.0.5:8080", None));
        assert!(!judged("10.0.0.5:8080", "10.0.0.6:8080", None));
        assert!(judged("0.0.0.0:8080", "10.0.0.6:8080", None));
        assert!(!judged("0.0.0.0:8080", "evil.example", None));
    }

    #[test]
    fn pages_of_strangers_are_refused() {
        let passes = |origin| judged("127.0.0.1:8080", "localhost:8080", Some(origin));
        for origin in ["http://localhost:8080", "https://ops.example.org"] {
            assert!(passes(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://127.0.0.1:8080",
            "http://localhost:5173",
            "https://evil.example",
            "http://ops.example.org",
            "https://ops.example.org.evil.example",
            "",
            "file://",
        ] {
            assert!(!passes(origin), "{origin}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!("https://ops.example.org:8443".parse::<Origin>().is_ok());
        for wrong in [
            "ops.example.org",
            "https://ops.example.org/",
            "https://ops.example.org/x",
            "ftp://x",
            "*",
            "https://a@b",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}
