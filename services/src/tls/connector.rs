//! Connections to other services: the certificate of the other side must name the host that is called, and the role that is looked
//! for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tower::Service;

use super::MeshTls;
use super::identity::{Identity, Role};

/// Port of a URL without one.
const HTTPS: u16 = 443;

/// Opens connections with the certificates that hold at that moment.
#[derive(Clone, Debug)]
pub(crate) struct MeshConnector {
    pub(crate) tls: MeshTls,
    /// What the other side must be; `None`: any member of the mesh.
    pub(crate) expects: Option<Role>,
}

impl Service<Uri> for MeshConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await.map(TokioIo::new) })
    }
}

impl MeshConnector {
    async fn connect(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = self.tls.client().ok_or_else(|| io::Error::other("no certificate to show"))?;
        let socket = TcpStream::connect((host, uri.port_u16().unwrap_or(HTTPS))).await?;
        socket.set_nodelay(true)?;
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let found = shown.map(Identity::of).transpose().map_err(io::Error::other)?;
        match (self.expects, found) {
            (None, _) => Ok(stream),
            (Some(expected), Some(found)) if found.role() == expected => Ok(stream),
            (Some(expected), Some(found)) => {
                Err(io::Error::other(format!("{found} answers, which is no {expected}")))
            }
            (Some(_), None) => Err(io::Error::other("nobody has shown a certificate")),
        }
    }
}
