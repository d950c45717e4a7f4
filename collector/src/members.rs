//! The hosts of this collector as members of the mesh: one registration and one heartbeat each.

use std::collections::BTreeSet;
use std::time::Duration;

use memharvest_proto::registry::v1::{AgentKind, HeartbeatResponse, RegisterAgentRequest};
use memharvest_services::membership;
use memharvest_services::proto_time::{duration_from_proto, duration_to_proto};
use memharvest_services::rpc_client::RpcChannel;
use memharvest_services::shutdown::Stop;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use uuid::Uuid;

use crate::SERVICE;
use crate::doctor::Doctor;
use crate::latest::Latest;
use crate::reading::Host;

/// Makes every host known that readings speak of.
#[derive(Debug)]
pub(crate) struct Members {
    /// The registry.
    pub(crate) registry: RpcChannel,
    /// Where gRPC is, as others reach it.
    pub(crate) address: String,
    /// Where metrics are, as others reach them.
    pub(crate) admin_address: String,
    /// What the readings come from.
    pub(crate) source: &'static str,
    /// The interval of the settings.
    pub(crate) configured: Duration,
    /// The interval that is sampled at.
    pub(crate) interval: watch::Sender<Duration>,
    /// Readings: they tell which hosts there are.
    pub(crate) latest: Latest,
    /// Findings: they ride in the heartbeats.
    pub(crate) doctor: Doctor,
}

impl Members {
    /// Registers hosts as they come up, until told to stop. Where the source is a real host it is known at once, so that a
    /// host whose libvirt is away is registered too, with the finding that says so.
    pub(crate) async fn run(self, stop: Stop) {
        let instance = Uuid::new_v4().to_string();
        let (readings, mut news) = self.latest.watch();
        let mut known = BTreeSet::new();
        let first = self.doctor.host().clone();
        if !first.id.is_empty() {
            self.join(&first, &instance, &stop);
            known.insert(first.id);
        }
        let mut hosts: Vec<Host> = readings.iter().map(|reading| reading.host.clone()).collect();
        loop {
            for host in hosts.drain(..) {
                if known.insert(host.id.clone()) {
                    self.join(&host, &instance, &stop);
                }
            }
            tokio::select! {
                () = stop.requested() => return,
                reading = news.recv() => match reading {
                    Ok(reading) if !known.contains(&reading.host.id) => hosts.push(reading.host.clone()),
                    Ok(_) => {}
                    // Fell behind: look at all of them.
                    Err(RecvError::Lagged(_)) => {
                        hosts.extend(self.latest.all().iter().map(|reading| reading.host.clone()));
                    }
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn join(&self, host: &Host, instance: &str, stop: &Stop) {
        let registration = RegisterAgentRequest {
            agent_id: host.id.clone(),
            kind: AgentKind::Collector.into(),
            name: host.name.clone(),
            labels: host.labels.clone(),
            version: SERVICE.version.to_owned(),
            instance_id: instance.to_owned(),
            address: self.address.clone(),
            admin_address: self.admin_address.clone(),
            interval: Some(duration_to_proto(self.configured)),
            capabilities: vec![self.source.to_owned()],
        };
        let (doctor, host_id) = (self.doctor.clone(), host.id.clone());
        let findings = move || doctor.findings(&host_id);
        let (interval, configured) = (self.interval.clone(), self.configured);
        let answered = move |answer: &HeartbeatResponse| {
            let asked = answer.interval.as_ref().and_then(|asked| duration_from_proto(asked).ok());
            let wanted = asked.filter(|asked| !asked.is_zero()).unwrap_or(configured);
            interval.send_if_modified(|current| std::mem::replace(current, wanted) != wanted);
        };
        let member = membership::keep(self.registry.clone(), registration, findings, answered, stop.clone());
        stop.spawn(&format!("member {}", host.id), member);
    }
}
