//! A thousand hosts that come back at once, as after an outage: each registers, sends a heartbeat and asks for its boundaries.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::{GetEffectiveBoundaryRequest, HeartbeatRequest};
use memharvest_registry::settings::RegistrySettings;
use memharvest_services::shutdown::Stop;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::records::registration;
use crate::{AGENTS, Error};

/// Seconds until the last host is served. Every host has a connection of its own.
pub(crate) async fn measure(database: &Path) -> Result<f64, Error> {
    let fixed = ["registry", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--database"];
    let settings =
        RegistrySettings::try_parse_from(fixed.iter().map(OsStr::new).chain([database.as_os_str()]))?;
    let stop = Stop::new();
    let running = memharvest_registry::start(settings, stop.clone()).await?;
    let url = format!("http://{}", running.grpc_address);
    let mut served = JoinSet::new();
    served.spawn(running.serve());
    let begin = Instant::now();
    let mut hosts: JoinSet<Result<(), Error>> = JoinSet::new();
    for i in 0..AGENTS {
        let url = url.clone();
        hosts.spawn(async move {
            let channel = Channel::from_shared(url)?.connect().await?;
            let host = format!("host-{i:04}");
            let mut agents = AgentServiceClient::new(channel.clone());
            agents.register_agent(registration(&host, "b")).await?;
            let beat = HeartbeatRequest {
                agent_id: host.clone(),
                instance_id: "b".to_owned(),
                ..HeartbeatRequest::default()
            };
            agents.heartbeat(beat).await?;
            let scope = format!("host:{host}");
            let request = GetEffectiveBoundaryRequest { scope, ..GetEffectiveBoundaryRequest::default() };
            BoundaryServiceClient::new(channel).get_effective_boundary(request).await?;
            Ok(())
        });
    }
    while let Some(host) = hosts.join_next().await {
        host??;
    }
    let took = begin.elapsed().as_secs_f64();
    stop.request();
    served.join_next().await.ok_or("the registry is gone")???;
    Ok(took)
}
