//! Who does not mean well: thousands of idle connections, requests that never end, bodies without an end. They are
//! closed, and whoever asks properly notices nothing.

use std::time::Duration;

use anyhow::ensure;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::wait::wait_for;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Strangers who connect and say nothing.
const IDLE: usize = 10_000;
/// Strangers who send their request a byte at a time.
const SLOW: usize = 200;
/// A minute is more than any of them gets.
const CLOSED_BY: Duration = Duration::from_secs(90);

/// What a stranger was told before the connection was closed.
async fn last_words(mut socket: TcpStream) -> String {
    let mut said = Vec::new();
    // A reset ends it as well as a farewell.
    let _ = socket.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_closed_and_the_healthy_notice_nothing() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mesh = Mesh::up(&["--simulate", "1x3", "--seed", "1"]).await.unwrap();
    let (address, admin) = (mesh.address("gateway").unwrap(), mesh.admin_url("gateway").unwrap());
    let open_before = metric(&admin, "process_open_fds").await.unwrap();

    let mut idle = Vec::with_capacity(IDLE);
    while idle.len() < IDLE {
        idle.push(TcpStream::connect(&address).await.unwrap());
        if idle.len().is_multiple_of(1000) {
            mesh.get("/fleet").await.unwrap();
        }
    }
    let mut strangers = JoinSet::new();
    for _ in 0..SLOW {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        strangers.spawn(async move {
            socket.write_all(b"GET /api/v1/fleet HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
            // Until the other side has had enough.
            let (mut reads, mut writes) = socket.into_split();
            let mut said = String::new();
            tokio::select! {
                _ = reads.read_to_string(&mut said) => {}
                () = async {
                    while writes.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                } => {}
            }
            said
        });
    }
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(
        b"PUT /api/v1/boundaries/fleet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
          content-length: 100\r\n\r\n{",
    )
    .await
    .unwrap();
    let mut long = TcpStream::connect(&address).await.unwrap();
    long.write_all(
        b"PUT /api/v1/boundaries/fleet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
          content-length: 900000000\r\nconnection: close\r\n\r\n{",
    )
    .await
    .unwrap();
    let mut endless = TcpStream::connect(&address).await.unwrap();
    endless
        .write_all(
            &[b"GET /".as_slice(), &vec![b'a'; 1 << 20], b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat(),
        )
        .await
        .ok();

    // Meanwhile everybody else is served.
    for _ in 0..50 {
        assert_eq!(mesh.get("/fleet").await.unwrap()["hosts"], 1);
        assert_eq!(mesh.get("/vms").await.unwrap()["vms"].as_array().unwrap().len(), 3);
    }
    let all = async {
        assert!(last_words(long).await.starts_with("HTTP/1.1 413 "));
        let refused = last_words(endless).await;
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 4"), "{refused}");
        assert!(last_words(half).await.contains("408 Request Timeout"));
        while let Some(said) = strangers.join_next().await {
            assert!(!said.unwrap().starts_with("HTTP/1.1 200"));
        }
        for socket in idle {
            assert_eq!(last_words(socket).await, "");
        }
    };
    tokio::time::timeout(CLOSED_BY, all).await.expect("every stranger is closed");
    wait_for(CLOSED_BY, "nothing of them to be left", async || {
        let open = metric(&admin, "process_open_fds").await?;
        ensure!(open < open_before + 100.0, "{open} open files, {open_before} before");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(mesh.get("/fleet").await.unwrap()["hosts"], 1);
}
