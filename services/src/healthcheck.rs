//! What a container's engine asks from inside, where there is neither a shell nor curl: is the process ready?

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step of the question may take; `/readyz` answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than `/readyz` ever says.
const LARGEST_ANSWER_BYTES: u64 = 64 * 1024;

/// The process is not ready, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// The settings do not tell where the admin server is.
    #[error("--admin-listen has port 0, which only the running process knows; give it a port")]
    NoPort,
    /// Nobody answers there.
    #[error(
        "no answer from http://{address}/readyz: {source}; is the process running, with the same --admin-listen?"
    )]
    Away {
        /// Where it was looked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It answers, and is not ready.
    #[error("not ready: {said}")]
    NotReady {
        /// What it said.
        said: String,
    },
}

/// Asks the admin server at `listen`, as the settings name it, whether its process is ready.
///
/// # Errors
/// It is not, or cannot be asked.
pub fn ask(listen: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(listen).ok_or(HealthcheckError::NoPort)?;
    let answer = readyz(address).map_err(|source| HealthcheckError::Away { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let said = if body.trim().is_empty() { status } else { body.trim() };
    Err(HealthcheckError::NotReady { said: said.to_owned() })
}

/// Listening on every address, it can be asked on loopback.
fn reachable(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (listen.port() != 0).then(|| SocketAddr::new(ip, listen.port()))
}

/// HTTP/1.0, so that the answer is plain and ends with the connection.
fn readyz(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(asked("0.0.0.0:9401").as_deref(), Some("127.0.0.1:9401"));
        assert_eq!(asked("[::]:9401").as_deref(), Some("[::1]:9401"));
        assert_eq!(asked("10.1.2.3:9401").as_deref(), Some("10.1.2.3:9401"));
        assert_eq!(asked("127.0.0.1:0"), None);
    }
}
