//! Signing in from a browser, by the authorization code flow with PKCE (RFC 7636). The browser keeps the verifier, so that the gateway
//! remembers nothing; the gateway redeems the code, so that the page asks nobody but the gateway and never sees the client's secret.

use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::Full;
use hyper::body::Bytes;
use memharvest_proto::gateway::v1::OpenIdProvider;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::keys::{discovered, fetch};

/// How long a page waits for the provider's discovery document before it is shown without this way to sign in.
const PATIENCE: Duration = Duration::from_secs(2);

/// What this gateway is to the provider.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its name there.
    pub(crate) id: String,
    /// Its secret; `None`: it is a public client.
    pub(crate) secret: Option<String>,
    /// What is asked for, separated by spaces.
    pub(crate) scope: String,
}

/// What a browser brings back from the provider.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redemption {
    /// The provider's code.
    code: String,
    /// What the browser's challenge was made of.
    code_verifier: String,
    /// The page that the provider sent the browser back to.
    redirect_uri: String,
}

/// Signs browsers in.
#[derive(Debug)]
pub(super) struct SignIn {
    client: Client,
    endpoints: OnceCell<Endpoints>,
}

#[derive(Debug)]
struct Endpoints {
    authorization: String,
    token: String,
}

impl SignIn {
    pub(super) fn new(client: Client) -> Self {
        Self { client, endpoints: OnceCell::new() }
    }

    /// Where to send a browser; `None` while the provider does not answer.
    pub(super) async fn provider(&self, issuer: &str) -> Option<OpenIdProvider> {
        match tokio::time::timeout(PATIENCE, self.endpoints(issuer)).await {
            Ok(Ok(endpoints)) => Some(OpenIdProvider {
                authorization_endpoint: endpoints.authorization.clone(),
                client_id: self.client.id.clone(),
                scope: self.client.scope.clone(),
            }),
            Ok(Err(error)) => {
                tracing::warn!("nobody can sign in by the identity provider: {error}");
                None
            }
            Err(_) => None,
        }
    }

    /// The tokens that the provider gives for a code, those first that are meant for asking others.
    ///
    /// # Errors
    /// The provider cannot be reached, or does not take the code.
    pub(super) async fn redeem(&self, issuer: &str, redemption: &Redemption) -> Result<Vec<String>, String> {
        let endpoints = self.endpoints(issuer).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &self.client.id),
            ("code", &redemption.code),
            ("code_verifier", &redemption.code_verifier),
            ("redirect_uri", &redemption.redirect_uri),
        ];
        if let Some(secret) = &self.client.secret {
            form.push(("client_secret", secret));
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request = Request::post(&endpoints.token)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(pairs.join("&"))))
            .map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&fetch(request).await?)
            .map_err(|error| format!("{}: {error}", endpoints.token))?;
        let tokens = ["access_token", "id_token"].iter().filter_map(|name| answer[name].as_str());
        Ok(tokens.map(str::to_owned).collect())
    }

    async fn endpoints(&self, issuer: &str) -> Result<&Endpoints, String> {
        let find = async || {
            let found = discovered(issuer).await?;
            let endpoint = |name: &str| {
                let url = found[name].as_str().filter(|url| url.starts_with("http"));
                url.map(str::to_owned)
                    .ok_or_else(|| format!("the discovery document of {issuer} names no {name}"))
            };
            Ok(Endpoints {
                authorization: endpoint("authorization_endpoint")?,
                token: endpoint("token_endpoint")?,
            })
        };
        self.endpoints.get_or_try_init(find).await
    }
}
