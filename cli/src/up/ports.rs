//! Which addresses the four processes listen on, settled before anything is started.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt;

/// The two addresses of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// gRPC; the gateway's REST, gRPC and grpc-web.
    pub(crate) listen: SocketAddr,
    /// Probes and metrics.
    pub(crate) admin: SocketAddr,
}

/// The addresses of all four processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The store.
    pub(crate) registry: Endpoint,
    /// The forecasts.
    pub(crate) predictor: Endpoint,
    /// The readings.
    pub(crate) collector: Endpoint,
    /// For people and scripts.
    pub(crate) gateway: Endpoint,
}

/// Why the addresses cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// Somebody else listens there.
    #[error(
        "port {port} on {ip} (for the {process}) is in use by another program; find it with \
         `ss -ltnp 'sport = :{port}'` and stop it, or start with --ephemeral-ports{more}"
    )]
    InUse {
        /// The port.
        port: u16,
        /// The address.
        ip: IpAddr,
        /// Which process wants it.
        process: &'static str,
        /// A further cure, where there is one.
        more: &'static str,
    },
    /// The address itself is refused.
    #[error("cannot listen on {address} for the {process}: {source}; choose an address of this machine")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Which process wants it.
        process: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// No free ports were found.
    #[error("found no {wanted} free ports on {ip}; stop some programs that listen")]
    NoneFree {
        /// How many are needed.
        wanted: usize,
        /// The address.
        ip: IpAddr,
    },
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Two for each process.
const COUNT: usize = 8;

impl Ports {
    /// The documented ports on the loopback address, with the gateway where the user wants it.
    pub(crate) fn documented(gateway: SocketAddr) -> Self {
        let pair = |listen: u16, admin: u16| Endpoint {
            listen: SocketAddr::new(LOOPBACK, listen),
            admin: SocketAddr::new(LOOPBACK, admin),
        };
        Self {
            registry: pair(7401, 9401),
            predictor: pair(7402, 9402),
            collector: pair(7403, 9403),
            gateway: Endpoint { listen: gateway, ..pair(0, 9404) },
        }
    }

    /// Free ports, the gateway's on `gateway_ip`, everything else on the loopback address.
    ///
    /// They are drawn from below the range that the kernel takes for outgoing connections: a port from within it can
    /// be lost to a client's socket while the process that listens there is being restarted.
    ///
    /// # Errors
    /// When too few ports are free.
    pub(crate) fn free(gateway_ip: IpAddr, rng: &mut impl rand::Rng) -> Result<Self, PortError> {
        let top = outgoing_range_start().max(11_000);
        let mut taken = HashSet::new();
        let mut held = Vec::new();
        let mut draw = |ip: IpAddr| {
            for _ in 0..1_000 {
                let port = rng.random_range(10_000..top);
                if let Ok(listener) = TcpListener::bind((ip, port))
                    && taken.insert(port)
                {
                    held.push(listener);
                    return Ok(SocketAddr::new(ip, port));
                }
            }
            Err(PortError::NoneFree { wanted: COUNT, ip })
        };
        let mut pair = |ip: IpAddr| Ok(Endpoint { listen: draw(ip)?, admin: draw(LOOPBACK)? });
        Ok(Self {
            registry: pair(LOOPBACK)?,
            predictor: pair(LOOPBACK)?,
            collector: pair(LOOPBACK)?,
            gateway: pair(gateway_ip)?,
        })
    }

    /// Every process with its addresses, in the order of starting.
    pub(crate) fn each(&self) -> [(&'static str, Endpoint); 4] {
        [
            ("registry", self.registry),
            ("predictor", self.predictor),
            ("gateway", self.gateway),
            ("collector", self.collector),
        ]
    }

    /// Whether all of them can be listened on right now.
    ///
    /// # Errors
    /// Names the first that cannot, and the cure.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        for (process, endpoint) in self.each() {
            for address in [endpoint.listen, endpoint.admin] {
                let Err(source) = TcpListener::bind(address) else { continue };
                let (port, ip) = (address.port(), address.ip());
                return Err(if source.kind() == std::io::ErrorKind::AddrInUse {
                    let ours = process == "gateway" && address == endpoint.listen;
                    let more = if ours { ", or choose another by --listen" } else { "" };
                    PortError::InUse { port, ip, process, more }
                } else {
                    PortError::Refused { address, process, source }
                });
            }
        }
        Ok(())
    }
}

fn outgoing_range_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let ports = Ports::free(LOOPBACK, &mut rand::rng()).unwrap();
        let all: HashSet<_> = ports.each().iter().flat_map(|(_, e)| [e.listen, e.admin]).collect();
        assert_eq!(all.len(), COUNT);
    }

    #[test]
    fn a_port_in_use_is_named_with_its_process_and_a_cure() {
        let mut ports = Ports::free(LOOPBACK, &mut rand::rng()).unwrap();
        let other = TcpListener::bind((LOOPBACK, 0)).unwrap();
        ports.predictor.admin = other.local_addr().unwrap();
        let said = ports.check().unwrap_err().to_string();
        let port = ports.predictor.admin.port();
        assert!(said.contains(&format!("port {port}")) && said.contains("predictor"), "{said}");
        assert!(said.contains("--ephemeral-ports"), "{said}");
    }
}
