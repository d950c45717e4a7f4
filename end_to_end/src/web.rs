//! What a script does with curl: plain HTTP requests, answered by status, headers and text.

use anyhow::Context;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none; the body is part of the message.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text)
            .with_context(|| format!("{} with a body that is no JSON: {}", self.status, self.text))
    }
}

/// Sends a request with these headers and this body.
///
/// # Errors
/// When nobody answers.
pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<Answer> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.with_context(|| format!("no answer from {url}"))?;
    let (head, body) = answer.into_parts();
    let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    Ok(Answer { status: head.status, headers: head.headers, text })
}

/// `GET` of a page that must be there.
///
/// # Errors
/// When nobody answers, or with anything but 200.
pub async fn get(url: &str) -> anyhow::Result<Answer> {
    let answer = send(Method::GET, url, &[], "").await?;
    anyhow::ensure!(answer.status == StatusCode::OK, "{url}: {} {}", answer.status, answer.text);
    Ok(answer)
}
