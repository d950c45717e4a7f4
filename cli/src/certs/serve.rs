//! `memharvest certs serve`: tickets become certificates, and certificates fresh ones. HTTPS on the authority's machine.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use memharvest_services::listener::{self, Bound};
use memharvest_services::shutdown::Stop;
use memharvest_services::tls::identity::{Identity, Lifetime};
use rcgen::{CertificateSigningRequestParams, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::authority::{Authority, Wanted};
use super::kubernetes::Kubernetes;
use super::{CertsError, files, ticket};
use crate::https::{authorities, certificates, provider};
use crate::verbs::print;

/// Where tickets are exchanged, and where certificates are.
pub(super) const JOIN: &str = "/v1/join";
pub(super) const RENEW: &str = "/v1/renew";

const LONGEST_BODY: usize = 64 * 1024;
const CALLERS_AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
/// The server's own certificate is made anew whenever it starts.
const OWN_CERTIFICATE: Duration = Duration::from_hours(10 * 365 * 24);

/// What a host that joins shows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Secret {
    /// A ticket's secret.
    Ticket(String),
    /// The token of a pod's service account.
    KubernetesToken(String),
}

/// What a host asks with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// What opens; `None` to renew, where the certificate does.
    #[serde(flatten)]
    pub(super) shown: Option<Secret>,
    /// A certificate signing request in PEM. Only its key counts.
    pub(super) request: String,
}

/// What it is given.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Given {
    /// In PEM.
    pub(super) certificate: String,
    /// In PEM.
    pub(super) authorities: String,
}

/// Who gives certificates out.
struct Office {
    authority: Authority,
    folder: PathBuf,
    kubernetes: Option<Kubernetes>,
}

/// Gives certificates out until told to stop.
pub(super) async fn run(
    authority: Authority,
    folder: PathBuf,
    kubernetes: Option<Kubernetes>,
    listen: SocketAddr,
    names: &[String],
) -> Result<(), crate::Failure> {
    let unreachable = |cause: String| CertsError::Unreachable { url: listen.to_string(), cause };
    let acceptor = acceptor(&authority, names, SystemTime::now())?;
    let stop = Stop::on_signals().map_err(|error| unreachable(error.to_string()))?;
    let Bound { listener, address } =
        listener::bind("--listen", listen).map_err(|error| unreachable(error.to_string()))?;
    print(&format!("gives certificates out at https://{address}\n"))?;
    let office = Arc::new(Office { authority, folder, kubernetes });
    let room = Arc::new(Semaphore::new(CALLERS_AT_ONCE));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.requested() => return Ok(()),
        };
        // One that is broken already, or no room: the caller tries again.
        let (Ok((socket, address)), Ok(permit)) = (accepted, Arc::clone(&room).try_acquire_owned()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (office, acceptor) = (Arc::clone(&office), acceptor.clone());
        stop.spawn("caller", async move {
            // Whoever is slower than that is no host that joins.
            let _ = tokio::time::timeout(PATIENCE, office.attend(acceptor, socket, address.ip())).await;
            drop(permit);
        });
    }
}

fn acceptor(authority: &Authority, names: &[String], now: SystemTime) -> Result<TlsAcceptor, CertsError> {
    let unfit = |what: String| CertsError::Unfit { path: "ca.crt".into(), what };
    let key = KeyPair::generate()?;
    let own = authority.certify_server(names, &key, now, OWN_CERTIFICATE)?;
    let roots = Arc::new(authorities(&authority.believed()?).map_err(unfit)?);
    // Who joins has no certificate yet.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unfit(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
        .map_err(|error| unfit(error.to_string()))?;
    let chain = certificates(&own).map_err(unfit)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| unfit(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Office {
    async fn attend(&self, acceptor: TlsAcceptor, socket: TcpStream, address: IpAddr) {
        let Ok(stream) = acceptor.accept(socket).await else { return };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let shown = shown.as_ref();
        let serve = service_fn(move |request| self.answer(request, shown, address));
        // A connection that breaks has nobody to tell.
        let _ = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), serve)
            .await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        shown: Option<&CertificateDer<'_>>,
        address: IpAddr,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, text) = match self.give(request, shown, SystemTime::now()).await {
            Ok((identity, given)) => {
                let until = files::expiry(&given.certificate);
                note(&format!("gave {identity} to {address}, until {until}\n"));
                (StatusCode::OK, serde_json::to_string(&given).unwrap_or_default())
            }
            Err((status, reason)) => {
                note(&format!("refused {address}: {reason}\n"));
                (status, serde_json::json!({ "error": reason }).to_string())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        Ok(response)
    }

    async fn give(
        &self,
        request: Request<Incoming>,
        shown: Option<&CertificateDer<'_>>,
        now: SystemTime,
    ) -> Result<(Identity, Given), (StatusCode, String)> {
        let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
        let path = request.uri().path().to_owned();
        if request.method() != Method::POST || ![JOIN, RENEW].contains(&path.as_str()) {
            return Err((StatusCode::NOT_FOUND, format!("there is only POST of {JOIN} and {RENEW}")));
        }
        let body = Limited::new(request.into_body(), LONGEST_BODY).collect().await;
        let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
        let ask: Ask = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        // Before the ticket is used up.
        let request = CertificateSigningRequestParams::from_pem(&ask.request)
            .map_err(|error| bad(format!("the signing request cannot be used: {error}")))?;
        let forbidden = |reason: String| (StatusCode::FORBIDDEN, reason);
        let is_pods = path == JOIN && matches!(ask.shown, Some(Secret::KubernetesToken(_)));
        let failed = |error: CertsError| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        // Held from the question whether a certificate was revoked until the fresh one is entered.
        let mut held = None;
        let wanted = match (&*path, ask.shown, shown) {
            (JOIN, Some(Secret::Ticket(secret)), _) => ticket::take(&self.folder, &secret, now),
            (JOIN, Some(Secret::KubernetesToken(token)), _) => match &self.kubernetes {
                Some(kubernetes) => kubernetes.take(&token).await,
                None => Err("pods are not known here; see --kubernetes-account".into()),
            },
            (JOIN, None, _) => Err("show a ticket".into()),
            (_, _, Some(shown)) => {
                let ledger = held.insert(self.authority.ledger(now).map_err(failed)?);
                ledger.check(shown).and_then(|()| same_again(shown))
            }
            (_, _, None) => Err("show the certificate that is to be renewed".into()),
        };
        let wanted = wanted.map_err(forbidden)?;
        let certificate = self.authority.certify(&wanted, &request.public_key, now).map_err(failed)?;
        // That of a pod ends within a day, and is not renewed: its token is asked for again.
        if !is_pods {
            let ledger = held.map_or_else(|| self.authority.ledger(now), Ok);
            ledger.and_then(|mut ledger| ledger.enter(&certificate)).map_err(failed)?;
        }
        let authorities = self.authority.believed().map_err(failed)?;
        Ok((wanted.identity, Given { certificate, authorities }))
    }
}

/// Tells what was done. That nobody reads it is no reason to give nothing out.
fn note(text: &str) {
    let _ = print(text);
}

/// What a certificate stands for, to be made once more: the same identity and names, for as long.
fn same_again(shown: &CertificateDer<'_>) -> Result<Wanted, String> {
    let identity = Identity::of(shown).map_err(|error| error.to_string())?;
    let lifetime = Lifetime::of(shown).ok_or("the certificate cannot be read")?;
    let unreadable = |_| "the certificate cannot be read".to_owned();
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(shown)
        .map_err(|_| "the certificate cannot be read")?;
    let names = parsed.subject_alternative_name().map_err(unreadable)?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|address| address.to_string()),
        _ => None,
    });
    let length = u64::try_from(lifetime.expires - lifetime.starts).unwrap_or(0);
    let valid = Duration::from_secs(length).saturating_sub(super::authority::BACKDATED);
    Ok(Wanted { identity, names: names.collect(), valid })
}
