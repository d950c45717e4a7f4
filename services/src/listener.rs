//! Listening sockets, bound before anything is spawned.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted; the kernel takes its own limit (`net.core.somaxconn`) where that is lower. A fleet whose
/// thousand hosts come back at once finds room: those beyond it are reset.
const BACKLOG: u32 = 4096;

/// A socket that already listens; with port 0 the address tells which port it got.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

/// Nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}; {cure}")]
pub struct BindError {
    address: SocketAddr,
    cause: String,
    cure: String,
}

/// Binds `address`; `flag` is the setting that it came from, named in the error.
///
/// # Errors
/// The address is in use, is not this machine's, or needs more rights.
pub fn bind(flag: &str, address: SocketAddr) -> Result<Bound, BindError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As a program that starts anew finds its port with old connections on it.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, address })
    };
    bound().map_err(|source: std::io::Error| {
        let (cause, cure) = match source.kind() {
            ErrorKind::AddrInUse => {
                ("address in use".into(), format!("stop the other process or pass {flag}"))
            }
            ErrorKind::AddrNotAvailable => (
                "no such address on this machine".into(),
                format!("pass {flag} with an address of this machine"),
            ),
            ErrorKind::PermissionDenied => {
                ("permission denied".into(), format!("pass {flag} with a port from 1024 on"))
            }
            _ => (source.to_string(), format!("check {flag}")),
        };
        BindError { address, cause, cure }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_a_cure() {
        let first = bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let error = bind("--listen", first.address).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {}: address in use; stop the other process or pass --listen",
                first.address
            )
        );
    }

    #[tokio::test]
    async fn hundreds_that_come_at_once_find_room() {
        let bound = bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let connect = |_| tokio::net::TcpStream::connect(bound.address);
        // Nobody accepts them; those that find no room would wait for it in vain.
        let all = futures::future::join_all((0..500).map(connect));
        let connected = tokio::time::timeout(std::time::Duration::from_secs(20), all).await.unwrap();
        assert!(connected.iter().all(Result::is_ok));
    }
}
