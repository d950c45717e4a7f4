//! `AgentService`: who is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memharvest_proto::collector::v1::{Finding, Severity};
use memharvest_proto::registry::v1::agent_service_server::AgentService;
use memharvest_proto::registry::v1::{
    Agent, AgentKind, AgentState, DecommissionAgentRequest, DecommissionAgentResponse, GetAgentRequest,
    GetAgentResponse, HeartbeatRequest, HeartbeatResponse, ListAgentsRequest, ListAgentsResponse,
    RegisterAgentRequest, RegisterAgentResponse, UpdateAgentRequest, UpdateAgentResponse,
};
use memharvest_services::caller::{Caller, check_agent, check_role};
use memharvest_services::proto_time::duration_to_proto;
use memharvest_services::rpc_error::ErrorCode;
use memharvest_services::tls::identity::Role;
use tonic::{Request, Response, Status};

use super::now_ns;
use crate::check::{Check, MAX_NOTE, MAX_TEXT};
use crate::page::Page;
use crate::presence::{Heartbeat, Presence};
use crate::store::{Store, StoreError, StoredAgent};
use crate::time::duration_from_ns;

/// Most findings that one heartbeat may carry.
const MAX_FINDINGS: usize = 10_000;

/// Most words for what an agent can do.
const MAX_CAPABILITIES: usize = 64;

/// Sampling intervals that make sense, in seconds: at least one, at most an hour. Shorter ones are for replays.
const LONGEST_INTERVAL_S: i64 = 3600;

/// Serves agents from a store and from what is heard.
#[derive(Debug)]
pub struct AgentRpc<S> {
    store: Arc<S>,
    presence: Arc<Mutex<Presence>>,
}

impl<S: Store> AgentRpc<S> {
    /// `presence` is shared with whoever writes it down.
    pub fn new(store: Arc<S>, presence: Arc<Mutex<Presence>>) -> Self {
        Self { store, presence }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, stored: StoredAgent) -> Agent {
        self.presence().complete(stored, now_ns())
    }

    fn heartbeat_interval(&self) -> prost_types::Duration {
        duration_to_proto(self.presence().timing().heartbeat_interval)
    }

    /// Makes an agent known, the registry itself included.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn register(&self, request: &RegisterAgentRequest) -> Result<Agent, StoreError> {
        let at_ns = now_ns();
        let stored = self.store.register_agent(request, at_ns).await?;
        self.presence().register(&stored, at_ns);
        Ok(self.complete(stored))
    }
}

/// What a certificate calls an agent of this kind.
fn role_of(kind: AgentKind) -> Option<Role> {
    match kind {
        AgentKind::Unspecified => None,
        AgentKind::Collector => Some(Role::Collector),
        AgentKind::Predictor => Some(Role::Predictor),
        AgentKind::Gateway => Some(Role::Gateway),
        AgentKind::Registry => Some(Role::Registry),
    }
}

fn check_finding(check: &mut Check, finding: &Finding) {
    check.id_or_empty("host_id", &finding.host_id);
    if !finding.vm_id.is_empty() {
        check.vm("vm_id", &finding.vm_id);
    }
    check.text("vm_name", &finding.vm_name, MAX_TEXT);
    check.that(!finding.code.is_empty(), "code", "must be given");
    check.text("code", &finding.code, MAX_TEXT);
    check.that(Severity::try_from(finding.severity).is_ok(), "severity", "must be a known one");
    check.text("cause", &finding.cause, MAX_NOTE);
    check.text("cure", &finding.cure, MAX_NOTE);
    check.instant_or_none("since", finding.since.as_ref());
}

fn check_interval(check: &mut Check, field: &str, interval: Option<&prost_types::Duration>) -> Option<i64> {
    let ns = check.duration_or_none(field, interval, 0, LONGEST_INTERVAL_S)?;
    check.that(ns > 0, field, "must be above zero");
    Some(ns)
}

#[tonic::async_trait]
impl<S: Store> AgentService for AgentRpc<S> {
    async fn register_agent(
        &self,
        request: Request<RegisterAgentRequest>,
    ) -> Result<Response<RegisterAgentResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let request = request.into_inner();
        check_role(caller.as_ref(), role_of(request.kind()))?;
        check_agent(caller.as_ref(), &request.agent_id)?;
        let mut check = Check::default();
        check.id("agent_id", &request.agent_id);
        check.that(
            request.kind() != AgentKind::Unspecified,
            "kind",
            "must be collector, predictor, gateway or registry",
        );
        check.that(!request.instance_id.is_empty(), "instance_id", "must be given");
        for (field, text) in [
            ("name", &request.name),
            ("version", &request.version),
            ("instance_id", &request.instance_id),
            ("address", &request.address),
            ("admin_address", &request.admin_address),
        ] {
            check.text(field, text, MAX_TEXT);
        }
        check.labels("labels", &request.labels);
        check_interval(&mut check, "interval", request.interval.as_ref());
        check.that(
            request.capabilities.len() <= MAX_CAPABILITIES,
            "capabilities",
            "must be at most 64 words",
        );
        for word in request.capabilities.iter().take(MAX_CAPABILITIES) {
            check.text("capabilities", word, MAX_TEXT);
        }
        check.done()?;
        let agent = self.register(&request).await?;
        if !agent.duplicate_instance_id.is_empty() {
            tracing::warn!(
                agent = agent.agent_id,
                instance = agent.instance_id,
                other = agent.duplicate_instance_id,
                "another process used the id {} a moment ago: a restart, or two hosts with one machine-id",
                agent.agent_id
            );
        }
        let heartbeat_interval = Some(self.heartbeat_interval());
        Ok(Response::new(RegisterAgentResponse { agent: Some(agent), heartbeat_interval }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        check_agent(request.extensions().get(), &request.get_ref().agent_id)?;
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("agent_id", &request.agent_id);
        check.text("instance_id", &request.instance_id, MAX_TEXT);
        check.that(request.findings.len() <= MAX_FINDINGS, "findings", "must be at most 10000");
        for (i, finding) in request.findings.iter().take(MAX_FINDINGS).enumerate() {
            check.nested(|| format!("findings[{i}]"), |check| check_finding(check, finding));
        }
        check.done()?;
        let (agent_id, instance_id) = (&request.agent_id, &request.instance_id);
        let mut taken = self.presence().heartbeat(agent_id, instance_id, request.findings.clone(), now_ns());
        if taken == Heartbeat::Unknown {
            // It may have registered with another registry on the same store.
            match self.store.agent(agent_id).await {
                Ok(stored) => {
                    let mut presence = self.presence();
                    presence.learn(std::slice::from_ref(&stored), now_ns());
                    taken = presence.heartbeat(agent_id, instance_id, request.findings, now_ns());
                }
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match taken {
            Heartbeat::Heard { ordered_interval_ns } => Ok(Response::new(HeartbeatResponse {
                heartbeat_interval: Some(self.heartbeat_interval()),
                interval: ordered_interval_ns.map(duration_from_ns),
            })),
            Heartbeat::Unknown => Err(ErrorCode::NotFound.status(format!(
                "agent {} with this instance is not known; register first",
                request.agent_id
            ))),
            Heartbeat::Decommissioned => Err(StoreError::Decommissioned(request.agent_id).into()),
        }
    }

    async fn get_agent(
        &self,
        request: Request<GetAgentRequest>,
    ) -> Result<Response<GetAgentResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("agent_id", &request.agent_id);
        check.done()?;
        let stored = self.store.agent(&request.agent_id).await?;
        Ok(Response::new(GetAgentResponse { agent: Some(self.complete(stored)) }))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        // What is not known the iterators of prost pass over.
        let known = |kind: &i32| AgentKind::try_from(*kind).is_ok_and(|kind| kind != AgentKind::Unspecified);
        check.that(request.kinds.iter().all(known), "kinds", "must be known kinds");
        let known =
            |state: &i32| AgentState::try_from(*state).is_ok_and(|state| state != AgentState::Unspecified);
        check.that(request.states.iter().all(known), "states", "must be known states");
        check.done()?;
        let kinds: Vec<AgentKind> = request.kinds().collect();
        let states: Vec<AgentState> = request.states().collect();
        let list = format!("agents {kinds:?} {states:?}");
        let page = Page::of(list, request.page_size, &request.page_token)?;
        let wanted = |agent: &Agent| {
            if states.is_empty() {
                agent.state() != AgentState::Decommissioned
            } else {
                states.contains(&agent.state())
            }
        };
        // States are not stored, so that a page may take several looks.
        let mut agents = Vec::new();
        let mut after = page.cursor.clone().unwrap_or_default();
        loop {
            let found = self.store.agents(&after, &kinds, page.limit()).await?;
            let at_the_end = found.len() < page.limit() as usize;
            if let Some(stored) = found.last() {
                after.clone_from(&stored.agent.agent_id);
            }
            agents
                .extend(found.into_iter().map(|stored| self.complete(stored)).filter(|agent| wanted(agent)));
            if at_the_end || agents.len() >= page.limit() as usize {
                break;
            }
        }
        let next_page_token = page.cut(&mut agents, |agent| agent.agent_id.clone());
        Ok(Response::new(ListAgentsResponse { agents, next_page_token }))
    }

    async fn update_agent(
        &self,
        request: Request<UpdateAgentRequest>,
    ) -> Result<Response<UpdateAgentResponse>, Status> {
        let request = request.into_inner();
        let agent = request.agent.unwrap_or_default();
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let mut check = Check::default();
        check.id("agent.agent_id", &agent.agent_id);
        check.text("agent.etag", &agent.etag, MAX_TEXT);
        check.that(!paths.is_empty(), "update_mask", "must name what changes: labels, interval");
        for path in &paths {
            let known = ["labels", "interval"].contains(&path.as_str());
            check.that(known, "update_mask", "must name labels or interval only");
        }
        let labels = paths.iter().any(|path| path == "labels").then_some(&agent.labels);
        if let Some(labels) = labels {
            check.labels("agent.labels", labels);
        }
        let mut interval_ns = None;
        if paths.iter().any(|path| path == "interval") {
            check.that(agent.interval.is_some(), "agent.interval", "must be given");
            interval_ns = check_interval(&mut check, "agent.interval", agent.interval.as_ref());
        }
        let change = check.change("", "", now_ns());
        check.done()?;
        let stored =
            self.store.update_agent(&agent.agent_id, &agent.etag, labels, interval_ns, &change).await?;
        self.presence().learn(std::slice::from_ref(&stored), now_ns());
        Ok(Response::new(UpdateAgentResponse { agent: Some(self.complete(stored)) }))
    }

    async fn decommission_agent(
        &self,
        request: Request<DecommissionAgentRequest>,
    ) -> Result<Response<DecommissionAgentResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("agent_id", &request.agent_id);
        let change = check.change(&request.author, &request.reason, now_ns());
        check.done()?;
        let stored = self.store.decommission_agent(&request.agent_id, &change).await?;
        self.presence().learn(std::slice::from_ref(&stored), now_ns());
        Ok(Response::new(DecommissionAgentResponse { agent: Some(self.complete(stored)) }))
    }
}
