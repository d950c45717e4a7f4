//! A process's place in the mesh: registered with the registry, and heard by heartbeats.

use std::time::Duration;

use memharvest_proto::collector::v1::Finding;
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::{HeartbeatRequest, HeartbeatResponse, RegisterAgentRequest};
use rand::rngs::StdRng;
use tonic::{Code, Status};

use crate::proto_time;
use crate::rpc_client::{Backoff, RpcChannel};
use crate::shutdown::Stop;

/// Beats are this far apart where the registry does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Registers `registration` and sends heartbeats until told to stop; a registry that is away or has forgotten is
/// tried again, with pauses. `findings` is asked at every beat, `answered` hears what the control plane wants.
pub async fn keep(
    registry: RpcChannel,
    registration: RegisterAgentRequest,
    findings: impl Fn() -> Vec<Finding> + Send,
    answered: impl Fn(&HeartbeatResponse) + Send,
    stop: Stop,
) {
    let mut client = AgentServiceClient::new(registry);
    let mut pauses = Backoff::new(Duration::from_millis(250), DEFAULT_INTERVAL, rand::make_rng::<StdRng>());
    let mut interval = None;
    let mut heard = true;
    loop {
        let beat = async {
            if interval.is_none() {
                register(&mut client, &registration).await
            } else {
                let request = HeartbeatRequest {
                    agent_id: registration.agent_id.clone(),
                    instance_id: registration.instance_id.clone(),
                    findings: findings(),
                };
                let answer = client.heartbeat(request).await?.into_inner();
                answered(&answer);
                Ok(spacing(answer.heartbeat_interval.as_ref()))
            }
        };
        let outcome = tokio::select! { outcome = beat => outcome, () = stop.requested() => return };
        let pause = match outcome {
            Ok(wanted) => {
                if !heard || interval.is_none() {
                    tracing::info!(agent = registration.agent_id, "registered as {}", registration.agent_id);
                }
                // The first beat follows at once: it brings the findings.
                let first = interval.is_none();
                (heard, interval) = (true, Some(wanted));
                pauses.reset();
                if first { Duration::ZERO } else { wanted }
            }
            Err(status) => {
                if heard {
                    tracing::warn!(code = ?status.code(), error = status.message(), "the registry does not hear {}", registration.agent_id);
                }
                heard = false;
                if status.code() == Code::NotFound {
                    interval = None;
                }
                pauses.next().unwrap_or(DEFAULT_INTERVAL)
            }
        };
        tokio::select! { () = tokio::time::sleep(pause) => {} () = stop.requested() => return }
    }
}

async fn register(
    client: &mut AgentServiceClient<RpcChannel>,
    registration: &RegisterAgentRequest,
) -> Result<Duration, Status> {
    let answer = client.register_agent(registration.clone()).await?.into_inner();
    Ok(spacing(answer.heartbeat_interval.as_ref()))
}

fn spacing(wanted: Option<&prost_types::Duration>) -> Duration {
    wanted
        .and_then(|wanted| proto_time::duration_from_proto(wanted).ok())
        .filter(|wanted| !wanted.is_zero())
        .unwrap_or(DEFAULT_INTERVAL)
}
