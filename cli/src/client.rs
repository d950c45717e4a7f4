//! The gateway's REST API as the verbs use it.

mod error;
mod problem;

use std::path::Path;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

pub(crate) use error::ClientError;
pub(crate) use problem::Problem;

use crate::https::{self, HttpsClient};

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER_BYTES: usize = 256 * 1024 * 1024;
const AUTHOR: &str = "x-memharvest-author";
const PAGE_SIZE: &str = "1000";

/// What may stand unescaped in a path segment or a query value.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the gateway is, checked: `http://HOST[:PORT]` or `https://`, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayUrl(String);

impl std::str::FromStr for GatewayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write it as http://127.0.0.1:8080";
        let uri: Uri = text.parse().map_err(|error| format!("not a URL ({error}); {example}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(format!("has no http:// or https:// in front; {example}")),
        };
        let authority =
            uri.authority().filter(|found| !found.host().is_empty() && !found.as_str().contains('@'));
        let Some(authority) = authority else { return Err(format!("names no host; {example}")) };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("is more than the address of a gateway; {example}"));
        }
        Ok(Self(format!("{scheme}://{authority}")))
    }
}

impl std::fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    url: GatewayUrl,
    bearer: Option<HeaderValue>,
    http: HttpsClient,
}

/// A change that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    /// PUT, POST or DELETE.
    pub(crate) method: Method,
    /// What is changed, such as `/boundaries/fleet`.
    pub(crate) path: &'a str,
    /// Parameters.
    pub(crate) query: Vec<(&'static str, String)>,
    /// The entity tag that the change rests on.
    pub(crate) if_match: Option<&'a str>,
    /// Who asks for it.
    pub(crate) author: Option<&'a str>,
    /// What it becomes.
    pub(crate) body: Option<Value>,
}

/// An answer that is no error.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its JSON; null where it had no body.
    pub(crate) body: Value,
}

/// The pieces of a path, each escaped.
pub(crate) fn path(segments: &[&str]) -> String {
    segments
        .iter()
        .flat_map(|segment| ["/".to_owned(), utf8_percent_encode(segment, ESCAPED).to_string()])
        .collect()
}

impl Gateway {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the token cannot be sent in a header, or the authorities of `ca` cannot be used.
    pub(crate) fn new(url: GatewayUrl, token: Option<&str>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let http = https::client(url.0.starts_with("https://"), ca).map_err(ClientError::Authorities)?;
        let bearer = token
            .map(|token| {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Self { url, bearer, http })
    }

    /// Where this gateway is.
    pub(crate) fn url(&self) -> &GatewayUrl {
        &self.url
    }

    /// Reads one resource of the API, such as `/fleet`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Reply, ClientError> {
        self.send(Change { path, query: query.to_vec(), ..Change::default() }).await
    }

    /// Reads all pages of a list and gives its items.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list(
        &self,
        path: &str,
        plural: &'static str,
        query: &[(&'static str, String)],
    ) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = query.to_vec();
            query.push(("page_size", PAGE_SIZE.to_owned()));
            if !token.is_empty() {
                query.push(("page_token", token.clone()));
            }
            let mut page = self.get(path, &query).await?.body;
            match page.get_mut(plural).map(Value::take) {
                Some(Value::Array(found)) => items.extend(found),
                _ => return Err(self.unexpected(path, format!("an answer without {plural}"))),
            }
            let next = page.get("next_page_token").and_then(Value::as_str).unwrap_or_default();
            if next.is_empty() {
                return Ok(items);
            }
            if next == token {
                return Err(self.unexpected(path, "the same page again".to_owned()));
            }
            next.clone_into(&mut token);
        }
    }

    fn unexpected(&self, path: &str, what: String) -> ClientError {
        ClientError::Unexpected { url: format!("{}/api/v1{path}", self.url), what }
    }

    /// Sends a change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn send(&self, change: Change<'_>) -> Result<Reply, ClientError> {
        let Change { method, path, query, if_match, author, body } = change;
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}{mark}{}", self.url, query.join("&")))
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(etag) = if_match {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(author) = author {
            request = request.header(AUTHOR, HeaderValue::from_str(author).map_err(|_| ClientError::Author)?);
        }
        let bytes = match body {
            Some(json) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(json.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| self.unexpected(path, format!("a request that cannot be sent: {error}")))?;
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request));
        let (status, headers, bytes) = answer
            .await
            .map_err(|_| ClientError::TimedOut { url: self.url.to_string(), after: PATIENCE })??;
        self.understand(path, status, headers, &bytes)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        let unreachable = |cause| ClientError::Unreachable { url: self.url.to_string(), cause };
        let answer = self.http.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(root_cause(&*error)))?;
        Ok((head.status, head.headers, body.to_bytes()))
    }

    fn understand(
        &self,
        path: &str,
        status: StatusCode,
        headers: HeaderMap,
        bytes: &Bytes,
    ) -> Result<Reply, ClientError> {
        let kind =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if !status.is_success() {
            if kind.starts_with("application/problem+json")
                && let Ok(mut problem) = serde_json::from_slice::<Problem>(bytes)
            {
                problem.status = status.as_u16();
                return Err(ClientError::Refused(problem));
            }
            return Err(
                self.unexpected(path, format!("{status}, which is not how a memharvest gateway refuses"))
            );
        }
        if bytes.is_empty() {
            return Ok(Reply { headers, body: Value::Null });
        }
        let body = serde_json::from_slice(bytes).map_err(|_| {
            let kind = if kind.is_empty() { "no content type" } else { &kind };
            self.unexpected(path, format!("{status} with {kind} instead of JSON"))
        })?;
        Ok(Reply { headers, body })
    }
}

/// The innermost cause of an error: "connection refused" rather than "client error (Connect)".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_and_anything_else_is_refused_with_an_example() {
        let url = |text: &str| text.parse::<GatewayUrl>();
        assert_eq!(url("http://127.0.0.1:8080/").unwrap().to_string(), "http://127.0.0.1:8080");
        assert_eq!(url("http://gateway").unwrap().to_string(), "http://gateway");
        assert_eq!(url("http://[::1]:80").unwrap().to_string(), "http://[::1]:80");
        for wrong in
            ["", "127.0.0.1:8080", "ftp://a", "http://", "http://a/api/v1", "http://u:p@a", "http://a b"]
        {
            let said = url(wrong).unwrap_err();
            assert!(said.contains("http://127.0.0.1:8080"), "{wrong}: {said}");
        }
        assert_eq!(url("https://a:8443/").unwrap().to_string(), "https://a:8443");
    }

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(path(&["boundaries", "group:rack=a/b 1"]), "/boundaries/group%3Arack%3Da%2Fb%201");
    }
}
