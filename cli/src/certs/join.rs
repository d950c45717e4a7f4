//! A host's side: a ticket, or the certificate that it has, for a fresh one. The key is made here and never leaves.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use memharvest_services::shutdown::Stop;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::serve::{Ask, Given, JOIN, RENEW, Secret};
use super::ticket::Ticket;
use super::{CertsError, files};
use crate::client::root_cause;
use crate::https::{HttpsClient, authorities, client_of};
use crate::verbs::print;

const PATIENCE: Duration = Duration::from_secs(20);
/// After a try that failed.
const AGAIN: Duration = Duration::from_mins(1);
const LONGEST_ANSWER: usize = 256 * 1024;

/// Refuses the URL of an authority that could not be believed.
pub(super) fn check_url(url: &str) -> Result<(), CertsError> {
    let uri: Option<Uri> = url.parse().ok();
    let fits = uri.is_some_and(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some() && matches!(uri.path(), "" | "/")
    });
    let wrong = || CertsError::Usage(format!("--ca-url {url}: write it like https://ca.example.org:7409"));
    if fits { Ok(()) } else { Err(wrong()) }
}

/// Gets the certificate that a ticket stands for.
pub(super) async fn by_ticket(ticket: &Path, folder: &Path) -> Result<String, CertsError> {
    let io = |source| CertsError::Io { path: ticket.to_owned(), source };
    let mut text = String::new();
    if ticket == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(io)?;
    } else {
        text = std::fs::read_to_string(ticket).map_err(io)?;
    }
    let unfit = |what: String| CertsError::Unfit { path: ticket.to_owned(), what };
    let ticket: Ticket = serde_json::from_str(&text)
        .map_err(|error| unfit(format!("is no ticket of `certs ticket`: {error}")))?;
    check_url(&ticket.url)?;
    // A ticket is used once: it must not be lost on a folder that cannot be written.
    files::make_folder(folder)?;
    let client = client_of(authorities(&ticket.authorities).map_err(unfit)?, None).map_err(unfit)?;
    let said = fetch(&client, &ticket.url, JOIN, Some(Secret::Ticket(ticket.secret)), folder).await?;
    files::write(&folder.join(files::URL), &format!("{}\n", ticket.url), files::PUBLIC)?;
    Ok(said)
}

/// Gets the certificate of the node that a pod is on.
pub(super) async fn by_token(
    token: &Path,
    url: &str,
    ca: &Path,
    folder: &Path,
) -> Result<String, CertsError> {
    check_url(url)?;
    let token = files::read(token)?.trim().to_owned();
    let unfit = |what: String| CertsError::Unfit { path: ca.to_owned(), what };
    let client = client_of(authorities(&files::read(ca)?).map_err(unfit)?, None).map_err(unfit)?;
    files::make_folder(folder)?;
    fetch(&client, url.trim_end_matches('/'), JOIN, Some(Secret::KubernetesToken(token)), folder).await
}

/// Exchanges the certificate of a folder for a fresh one, at this URL or where the folder says.
pub(super) async fn renew(url: Option<&str>, folder: &Path) -> Result<String, CertsError> {
    let known = folder.join(files::URL);
    let url = match url {
        Some(url) => url.to_owned(),
        None if known.exists() => files::read(&known)?.trim().to_owned(),
        None => return Err(CertsError::Usage(format!("{} is not there; give --ca-url", known.display()))),
    };
    check_url(&url)?;
    let [ca, certificate, key] = ["ca.crt", "tls.crt", "tls.key"].map(|file| files::read(&folder.join(file)));
    let unfit = |what: String| CertsError::Unfit { path: folder.to_owned(), what };
    let roots = authorities(&ca?).map_err(unfit)?;
    let client = client_of(roots, Some((&certificate?, &key?))).map_err(unfit)?;
    fetch(&client, url.trim_end_matches('/'), RENEW, None, folder).await
}

/// Gets fresh certificates until told to stop.
pub(super) async fn again_and_again<F>(
    every: Duration,
    folder: &Path,
    fresh: impl Fn() -> F,
) -> Result<(), crate::Failure>
where
    F: Future<Output = Result<String, CertsError>>,
{
    let stop = Stop::on_signals().map_err(|source| CertsError::Io { path: folder.to_owned(), source })?;
    let mut pause = every;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested() => return Ok(()),
        }
        pause = match fresh().await {
            Ok(said) => {
                print(&said)?;
                every
            }
            Err(error @ CertsError::Usage(_)) => return Err(error.into()),
            Err(error) => {
                print(&format!("no fresh certificate: {error}\n"))?;
                every.min(AGAIN)
            }
        };
    }
}

async fn fetch(
    client: &HttpsClient,
    url: &str,
    path: &str,
    shown: Option<Secret>,
    folder: &Path,
) -> Result<String, CertsError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    let ask = serde_json::to_string(&Ask { shown, request }).unwrap_or_default();
    let unreachable = |cause: String| CertsError::Unreachable { url: url.to_owned(), cause };
    let request = Request::post(format!("{url}{path}"))
        .body(Full::new(Bytes::from(ask)))
        .map_err(|error| unreachable(error.to_string()))?;
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        Ok::<_, CertsError>((status, body.map_err(|error| unreachable(root_cause(&*error)))?.to_bytes()))
    };
    let answered = tokio::time::timeout(PATIENCE, exchange).await;
    let (status, body) =
        answered.map_err(|_| unreachable(format!("no answer within {} s", PATIENCE.as_secs())))??;
    if status != StatusCode::OK {
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        let reason = said.as_ref().and_then(|said| said.get("error")?.as_str());
        let reason = reason.map_or_else(|| status.to_string(), str::to_owned);
        return Err(CertsError::Refused { url: url.to_owned(), reason });
    }
    let given: Given = serde_json::from_slice(&body)
        .map_err(|_| unreachable("something answers that gives no certificates out".into()))?;
    files::write_member(folder, &given.authorities, &given.certificate, &key.serialize_pem(), None)?;
    Ok(format!("a certificate in {}, until {}\n", folder.display(), files::expiry(&given.certificate)))
}
