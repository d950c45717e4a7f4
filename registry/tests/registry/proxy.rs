//! A network between two programs that a test can break and mend.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// They arrive.
    Whole,
    /// Connections break, and new ones are broken at once.
    Cut,
    /// They are swallowed up, and nobody is told.
    Silent,
}

/// Passes connections on to a server. It ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    network: watch::Sender<Network>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy on loopback in front of a port.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (network, state) = watch::channel(Network::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], port)), state));
        Self { port: own, network, _tasks: tasks }
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(pass(client, server, network.clone()));
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn pass(client: TcpStream, server: SocketAddr, mut network: watch::Receiver<Network>) {
    let mut cut = network.clone();
    let passing = async {
        whole(&mut network).await;
        let Ok(server) = TcpStream::connect(server).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = copy(from_client, to_server, network.clone()) => {}
            () = copy(from_server, to_client, network) => {}
        }
    };
    tokio::select! {
        () = passing => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}

async fn whole(network: &mut watch::Receiver<Network>) {
    let _ = network.wait_for(|network| *network == Network::Whole).await;
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        whole(&mut network).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
