//! Where a provider's keys come from: a file, a URL, or its discovery document.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde_json::Value;

/// Longest document that is read.
const LONGEST: usize = 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the keys are read.
#[derive(Clone, Debug)]
pub(crate) enum KeySource {
    /// A file with a JSON Web Key Set.
    File(PathBuf),
    /// A URL of one.
    Url(Uri),
    /// The URL that the issuer's discovery document names.
    Discovery,
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let uri: Uri = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => Ok(Self::Url(uri)),
            _ => Err(format!("`{text}` is neither a file nor an http or https URL")),
        }
    }
}

impl KeySource {
    /// Reads the keys.
    ///
    /// # Errors
    /// They cannot be reached, or are no key set; the message tells which.
    pub(super) async fn read(&self, issuer: &str) -> Result<JwkSet, String> {
        let text = match self {
            Self::File(file) => {
                tokio::fs::read(file).await.map_err(|error| format!("{}: {error}", file.display()))?
            }
            Self::Url(uri) => get(uri.clone()).await?,
            Self::Discovery => {
                let found = discovered(issuer).await?;
                let uri = found["jwks_uri"].as_str().and_then(|uri| uri.parse().ok());
                get(uri.ok_or_else(|| format!("the discovery document of {issuer} names no jwks_uri"))?)
                    .await?
            }
        };
        keys_of(&text)
    }
}

/// The keys of a set. One of a kind that is not known here is passed over, as the standard asks.
fn keys_of(text: &[u8]) -> Result<JwkSet, String> {
    let set: Value =
        serde_json::from_slice(text).map_err(|error| format!("the key set is no JSON: {error}"))?;
    let keys = set["keys"].as_array().ok_or("the key set has no list `keys`")?;
    let keys = keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok());
    let keys: Vec<Jwk> = keys.filter(|key| DecodingKey::from_jwk(key).is_ok()).collect();
    if keys.is_empty() { Err("the key set has no key that can be used".into()) } else { Ok(JwkSet { keys }) }
}

/// An issuer's discovery document.
///
/// # Errors
/// It cannot be reached, or is no JSON.
pub(super) async fn discovered(issuer: &str) -> Result<Value, String> {
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found = get(document.parse().map_err(|_| format!("{document} is no URL"))?).await?;
    serde_json::from_slice(&found).map_err(|error| format!("{document}: {error}"))
}

async fn get(uri: Uri) -> Result<Vec<u8>, String> {
    fetch(Request::get(uri).body(Full::default()).map_err(|error| error.to_string())?).await
}

/// What a server answers. Errors name the address.
///
/// # Errors
/// It cannot be reached, or answers with another status than of success.
pub(super) async fn fetch(request: Request<Full<Bytes>>) -> Result<Vec<u8>, String> {
    let told = request.uri().to_string();
    let asking = async {
        let connector: HttpsConnector<HttpConnector> = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("no certificate authorities: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = client.request(request).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let body =
            Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        Ok(body.to_bytes().to_vec())
    };
    let answer = tokio::time::timeout(DEADLINE, asking).await;
    answer
        .unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
        .map_err(|error| format!("{told}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_unknown_kind_are_passed_over() {
        let set = br#"{"keys": [{"kty": "new", "kid": "a"}, {"kty": "EC", "kid": "b", "crv": "P-256", "x": "AA", "y": "AA"}]}"#;
        assert_eq!(keys_of(set).unwrap().keys.len(), 1);
        assert!(keys_of(br#"{"keys": []}"#).is_err());
        assert!(keys_of(b"<html>").unwrap_err().contains("no JSON"));
    }

    #[test]
    fn a_source_is_a_file_or_a_url() {
        assert!(matches!("keys.json".parse(), Ok(KeySource::File(_))));
        assert!(matches!("https://id.example.org/keys".parse(), Ok(KeySource::Url(_))));
        assert!("ftp://id.example.org".parse::<KeySource>().is_err());
    }
}
