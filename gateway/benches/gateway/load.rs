//! Clients of the REST interface.

use std::time::{Duration, Instant};

use anyhow::ensure;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn connect(base: &str) -> anyhow::Result<(SendRequest<Empty<Bytes>>, String)> {
    let address = base.trim_start_matches("http://").to_owned();
    let socket = TcpStream::connect(&address).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(socket)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
    tokio::spawn(connection);
    Ok((sender, address))
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, host: &str, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let request = Request::get(path).header("host", host).body(Empty::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
}

/// One page over a connection of its own.
pub(crate) async fn get(base: &str, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let (mut sender, host) = connect(base).await?;
    ask(&mut sender, &host, path).await
}

/// Fetches pages of 100 machines, each from where the last one ended, on several connections. How long each took.
pub(crate) async fn pages(base: &str, connections: usize, lasts: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut asking: JoinSet<anyhow::Result<Vec<Duration>>> = JoinSet::new();
    for _ in 0..connections {
        let base = base.to_owned();
        asking.spawn(async move {
            let (mut sender, host) = connect(&base).await?;
            let (mut took, mut token) = (Vec::new(), String::new());
            let end = Instant::now() + lasts;
            while Instant::now() < end {
                let started = Instant::now();
                let path = format!("/api/v1/vms?page_size=100&page_token={token}");
                let (status, body) = ask(&mut sender, &host, &path).await?;
                took.push(started.elapsed());
                ensure!(status == 200, "{path}: {status}");
                token = next_token(&body);
            }
            Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = asking.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

/// The last field of a page, without reading the rest as JSON: the client is not what is measured.
fn next_token(body: &[u8]) -> String {
    let tail = String::from_utf8_lossy(&body[body.len().saturating_sub(160)..]).into_owned();
    tail.split("\"next_page_token\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
        .to_owned()
}
