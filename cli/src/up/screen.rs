//! What a person who runs `up` sees.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::ports::Ports;
use crate::client::Gateway;
use crate::format::{bytes, count, span};

/// The status line never wraps on the smallest usual terminal.
const WIDTH: usize = 79;
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Standard output, with one line at the bottom that is written over.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    status_shown: bool,
}

impl Screen {
    /// The process's standard output.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), status_shown: false }
    }

    /// Whether a person watches.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes lines that stay.
    pub(crate) fn say(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.status_shown) { CLEAR_LINE } else { "" };
        write(&format!("{clear}{text}\n"));
    }

    /// Writes the line that is written over.
    pub(crate) fn status(&mut self, text: &str) {
        let text: String = text.chars().take(WIDTH).collect();
        write(&format!("{CLEAR_LINE}{text}"));
        self.status_shown = true;
    }
}

/// A terminal that is gone is no reason to stop the mesh.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Where everything is, and what to try.
pub(crate) fn welcome(ports: &Ports, program: &str) -> String {
    let gateway = reachable(&ports.gateway.listen);
    let documented = *ports == Ports::documented(ports.gateway.listen) && gateway == "127.0.0.1:8080";
    let at = if documented { String::new() } else { format!(" --url http://{gateway}") };
    let mut lines = vec![
        format!("  gateway    http://{gateway}  (dashboard, REST under /api/v1, /docs, gRPC, grpc-web)"),
        format!("  metrics    http://{gateway}/metrics"),
    ];
    lines.extend(ports.each().iter().map(|(process, endpoint)| {
        let note = if *process == "collector" { "  (every machine)" } else { "" };
        format!("             http://{}/metrics  {process}{note}", endpoint.admin)
    }));
    for (process, endpoint) in ports.each() {
        if process != "gateway" {
            let title = if process == "registry" { "gRPC" } else { "" };
            lines.push(format!("  {title:<9}  {}  {process}", endpoint.listen));
        }
    }
    lines.extend([
        String::new(),
        "try".to_owned(),
        format!("  {program} hosts{at}"),
        format!("  curl -s http://{gateway}/api/v1/fleet"),
        format!("  grpcurl -plaintext {gateway} list"),
        String::new(),
        "Ctrl-C stops everything".to_owned(),
    ]);
    lines.join("\n")
}

/// An address that a program on this machine can connect to.
pub(crate) fn reachable(listen: &std::net::SocketAddr) -> String {
    if listen.ip().is_unspecified() { format!("127.0.0.1:{}", listen.port()) } else { listen.to_string() }
}

/// The mesh clock, to tell mesh times in the time of the person who waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// When mesh time and wall time agree.
    pub(crate) origin: Timestamp,
    /// Mesh seconds in a wall second.
    pub(crate) factor: f64,
}

impl Clock {
    /// How long a person has to wait from `now` for a mesh time; zero when it is past.
    fn wait_for(&self, mesh: Timestamp, now: Timestamp) -> Duration {
        let mesh_seconds = mesh.duration_since(self.origin).as_secs_f64();
        let wall_now = now.duration_since(self.origin).as_secs_f64();
        Duration::try_from_secs_f64(mesh_seconds / self.factor - wall_now).unwrap_or_default()
    }
}

/// One line about the fleet as the gateway tells it.
pub(crate) async fn fleet_line(gateway: &Gateway, clock: Clock) -> String {
    match gateway.get("/fleet", &[]).await {
        Ok(reply) => describe(&reply.body, clock, Timestamp::now()),
        Err(error) => error.to_string(),
    }
}

fn describe(fleet: &Value, clock: Clock, now: Timestamp) -> String {
    let number = |name: &str| fleet.get(name).and_then(Value::as_u64);
    let mut parts = vec![
        number("vms").map_or("VMs not known".to_owned(), |vms| count(vms, "VM")),
        format!("{} allocated", bytes(number("allocated_bytes"))),
        format!("{} harvestable", bytes(number("harvestable_bytes"))),
    ];
    if let Some(open) = number("violations_open") {
        parts.push(count(open, "open violation"));
    }
    let warm_at = fleet.get("warm_at").and_then(Value::as_str).and_then(|text| text.parse().ok());
    if let Some(warm_at) = warm_at {
        let wait = SignedDuration::try_from(clock.wait_for(warm_at, now)).unwrap_or_default();
        parts.push(format!("warm in {}", span(wait)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_cold_fleet_says_when_it_will_be_warm_on_the_clock_of_the_one_who_waits() {
        let clock = Clock { origin: at("2026-01-01T00:00:00Z"), factor: 300.0 };
        let fleet = json!({"vms": 24, "allocated_bytes": 1024_u64.pow(3), "harvestable_bytes": 0,
            "violations_open": 1, "warm_at": "2026-01-01T01:00:00Z"});
        let line = describe(&fleet, clock, at("2026-01-01T00:00:02Z"));
        assert_eq!(line, "24 VMs, 1.0 GiB allocated, 0 B harvestable, 1 open violation, warm in 10 s");
    }

    #[test]
    fn what_is_not_known_is_not_told_as_zero() {
        let clock = Clock { origin: at("2026-01-01T00:00:00Z"), factor: 1.0 };
        let fleet = json!({"vms": 1, "allocated_bytes": null, "violations_open": null, "warm_at": null});
        let line = describe(&fleet, clock, at("2026-01-01T00:00:00Z"));
        assert_eq!(line, "1 VM, - allocated, - harvestable");
    }

    #[test]
    fn the_welcome_names_every_address_and_three_commands() {
        let documented = welcome(&Ports::documented("127.0.0.1:8080".parse().unwrap()), "memharvest");
        for wanted in
            ["http://127.0.0.1:8080", ":9401/metrics", "127.0.0.1:7403", "memharvest hosts\n", "list"]
        {
            assert!(documented.contains(wanted), "{wanted} in {documented}");
        }
        let other = welcome(&Ports::documented("0.0.0.0:81".parse().unwrap()), "memharvest");
        assert!(other.contains("memharvest hosts --url http://127.0.0.1:81"), "{other}");
    }
}
