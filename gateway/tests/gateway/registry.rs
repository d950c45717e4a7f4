//! A registry in memory: agents, boundaries with etags, violations, roll-ups, and tokens to verify. It keeps no leases.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use memharvest_proto::registry::v1::agent_service_server::AgentService;
use memharvest_proto::registry::v1::audit_service_server::AuditService;
use memharvest_proto::registry::v1::boundary_service_server::BoundaryService;
use memharvest_proto::registry::v1::harvest_service_server::HarvestService;
use memharvest_proto::registry::v1::token_service_server::TokenService;
use memharvest_proto::registry::v1::violation_service_server::ViolationService;
use memharvest_proto::registry::v1::*;
use memharvest_services::rpc_error::invalid_field;
use tonic::{Request, Response, Status};

/// The registry.
#[derive(Clone, Default)]
pub(crate) struct Registry(pub(crate) Arc<Mutex<State>>);

impl Registry {
    /// Makes secrets known that open what a role may do.
    pub(crate) fn issue(&self, secret: &str, name: &str, role: Role) {
        let token = Token { token_id: name.into(), name: name.into(), role: role.into(), ..Token::default() };
        self.0.lock().unwrap().tokens.insert(secret.into(), token);
    }
}

/// What it keeps.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) boundaries: BTreeMap<String, Boundary>,
    pub(crate) violations: BTreeMap<String, Violation>,
    pub(crate) hosts: Vec<HostRollup>,
    pub(crate) vms: Vec<VmRollup>,
    pub(crate) decommissioned_by: Vec<String>,
    pub(crate) history_asked: Vec<QueryHistoryRequest>,
    /// Tokens by their secrets.
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) verified: usize,
}

type Answer<T> = Result<Response<T>, Status>;
type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Registry {
    async fn register_agent(&self, request: Request<RegisterAgentRequest>) -> Answer<RegisterAgentResponse> {
        let request = request.into_inner();
        let agent = Agent {
            agent_id: request.agent_id.clone(),
            kind: request.kind,
            admin_address: request.admin_address,
            state: AgentState::Live.into(),
            ..Agent::default()
        };
        self.0.lock().unwrap().agents.insert(request.agent_id, agent.clone());
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        Ok(Response::new(RegisterAgentResponse { agent: Some(agent), heartbeat_interval }))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        Ok(Response::new(HeartbeatResponse::default()))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Answer<GetAgentResponse> {
        let agent = self.0.lock().unwrap().agents.get(&request.into_inner().agent_id).cloned();
        Ok(Response::new(GetAgentResponse {
            agent: Some(agent.ok_or_else(|| Status::not_found("no agent"))?),
        }))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        let request = request.into_inner();
        let state = self.0.lock().unwrap();
        let agents = state.agents.values().filter(|agent| {
            let hidden = request.states.is_empty() && agent.state == i32::from(AgentState::Decommissioned);
            !hidden && (request.kinds.is_empty() || request.kinds.contains(&agent.kind))
        });
        Ok(Response::new(ListAgentsResponse { agents: agents.cloned().collect(), ..Default::default() }))
    }

    async fn update_agent(&self, _: Request<UpdateAgentRequest>) -> Answer<UpdateAgentResponse> {
        Err(Status::internal("the gateway must not hand this on"))
    }

    async fn decommission_agent(
        &self,
        request: Request<DecommissionAgentRequest>,
    ) -> Answer<DecommissionAgentResponse> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let agent =
            state.agents.get_mut(&request.agent_id).ok_or_else(|| Status::not_found("no such agent"))?;
        agent.state = AgentState::Decommissioned.into();
        let agent = Some(agent.clone());
        state.decommissioned_by.push(format!("{}: {}", request.author, request.reason));
        Ok(Response::new(DecommissionAgentResponse { agent }))
    }
}

#[tonic::async_trait]
impl BoundaryService for Registry {
    type WatchBoundariesStream = Stream_<WatchBoundariesResponse>;

    async fn get_boundary(&self, request: Request<GetBoundaryRequest>) -> Answer<GetBoundaryResponse> {
        let scope = request.into_inner().scope;
        let found = self.0.lock().unwrap().boundaries.get(&scope).cloned();
        let boundary = found.ok_or_else(|| Status::not_found(format!("no boundary of {scope}")))?;
        Ok(Response::new(GetBoundaryResponse { boundary: Some(boundary) }))
    }

    async fn list_boundaries(&self, _: Request<ListBoundariesRequest>) -> Answer<ListBoundariesResponse> {
        let boundaries = self.0.lock().unwrap().boundaries.values().cloned().collect();
        Ok(Response::new(ListBoundariesResponse { boundaries, ..Default::default() }))
    }

    async fn set_boundary(&self, request: Request<SetBoundaryRequest>) -> Answer<SetBoundaryResponse> {
        let request = request.into_inner();
        if request.values.is_some_and(|values| values.headroom_ratio.is_some_and(|ratio| ratio > 10.0)) {
            return Err(invalid_field("values.headroom_ratio", "must be within 0 and 10"));
        }
        let mut state = self.0.lock().unwrap();
        let version = check(state.boundaries.get(&request.scope), &request.etag)? + 1;
        let boundary = Boundary {
            scope: request.scope.clone(),
            values: request.values,
            version,
            etag: format!("\"{version}\""),
            author: request.author,
            reason: request.reason,
            ..Boundary::default()
        };
        state.boundaries.insert(request.scope, boundary.clone());
        Ok(Response::new(SetBoundaryResponse { boundary: Some(boundary) }))
    }

    async fn delete_boundary(
        &self,
        request: Request<DeleteBoundaryRequest>,
    ) -> Answer<DeleteBoundaryResponse> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let standing = state.boundaries.get(&request.scope);
        check(Some(standing.ok_or_else(|| Status::not_found("no boundary"))?), &request.etag)?;
        let boundary = state.boundaries.remove(&request.scope);
        Ok(Response::new(DeleteBoundaryResponse { boundary }))
    }

    async fn get_effective_boundary(
        &self,
        request: Request<GetEffectiveBoundaryRequest>,
    ) -> Answer<GetEffectiveBoundaryResponse> {
        let request = request.into_inner();
        let values = BoundaryValues { floor_bytes: Some(1 << 20), ..BoundaryValues::default() };
        let source = |field: &str, scope: &str, version| BoundarySource {
            field: field.into(),
            scope: scope.into(),
            version,
        };
        let sources =
            vec![source("floor_bytes", &format!("host:{}", request.host_id), 3), source("horizon", "", 0)];
        Ok(Response::new(GetEffectiveBoundaryResponse {
            scope: request.scope,
            values: Some(values),
            sources,
        }))
    }

    async fn list_boundary_versions(
        &self,
        request: Request<ListBoundaryVersionsRequest>,
    ) -> Answer<ListBoundaryVersionsResponse> {
        let scope = request.into_inner().scope;
        let boundaries = self.0.lock().unwrap().boundaries.get(&scope).cloned().into_iter().collect();
        Ok(Response::new(ListBoundaryVersionsResponse { boundaries, ..Default::default() }))
    }

    async fn watch_boundaries(
        &self,
        _: Request<WatchBoundariesRequest>,
    ) -> Answer<Self::WatchBoundariesStream> {
        Err(Status::unimplemented("not in these tests"))
    }
}

/// The version that a change rests on.
fn check(standing: Option<&Boundary>, etag: &str) -> Result<u64, Status> {
    match standing {
        None if etag.is_empty() => Ok(0),
        None => Err(Status::aborted("nothing is set")),
        Some(_) if etag.is_empty() => Err(Status::failed_precondition("a change must carry the etag")),
        Some(standing) if standing.etag == etag => Ok(standing.version),
        Some(standing) => Err(Status::aborted(format!("the etag is {}, not {etag}", standing.etag))),
    }
}

#[tonic::async_trait]
impl ViolationService for Registry {
    async fn list_error_budgets(
        &self,
        _: Request<ListErrorBudgetsRequest>,
    ) -> Answer<ListErrorBudgetsResponse> {
        Ok(Response::new(ListErrorBudgetsResponse::default()))
    }

    type WatchViolationsStream = Stream_<WatchViolationsResponse>;

    async fn record_violations(
        &self,
        _: Request<RecordViolationsRequest>,
    ) -> Answer<RecordViolationsResponse> {
        Err(Status::internal("the gateway must not hand this on"))
    }

    async fn list_violations(
        &self,
        request: Request<ListViolationsRequest>,
    ) -> Answer<ListViolationsResponse> {
        let request = request.into_inner();
        let state = self.0.lock().unwrap();
        let fits = |violation: &&Violation| {
            (request.state == 0 || violation.state == request.state)
                && (request.kind == 0 || violation.kind == request.kind)
                && (request.host_id.is_empty() || violation.host_id == request.host_id)
        };
        let mut counts: BTreeMap<(i32, i32), u64> = BTreeMap::new();
        for violation in state.violations.values() {
            *counts.entry((violation.kind, violation.state)).or_default() += 1;
        }
        Ok(Response::new(ListViolationsResponse {
            violations: state.violations.values().filter(fits).cloned().collect(),
            next_page_token: String::new(),
            counts: counts
                .into_iter()
                .map(|((kind, state), count)| ViolationCount { kind, state, count })
                .collect(),
        }))
    }

    async fn get_violation(&self, request: Request<GetViolationRequest>) -> Answer<GetViolationResponse> {
        let violation = self.0.lock().unwrap().violations.get(&request.into_inner().violation_id).cloned();
        let violation = violation.ok_or_else(|| Status::not_found("no such violation"))?;
        Ok(Response::new(GetViolationResponse { violation: Some(violation) }))
    }

    async fn acknowledge_violation(
        &self,
        request: Request<AcknowledgeViolationRequest>,
    ) -> Answer<AcknowledgeViolationResponse> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let violation = state.violations.get_mut(&request.violation_id);
        let violation = violation.ok_or_else(|| Status::not_found("no such violation"))?;
        violation.acknowledged_by = request.author;
        violation.note = request.note;
        Ok(Response::new(AcknowledgeViolationResponse { violation: Some(violation.clone()) }))
    }

    async fn explain_violation(
        &self,
        request: Request<ExplainViolationRequest>,
    ) -> Answer<ExplainViolationResponse> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let violation = state.violations.get_mut(&request.violation_id);
        let violation = violation.ok_or_else(|| Status::not_found("no such violation"))?;
        violation.explained_by = request.author;
        violation.explanation = request.explanation;
        Ok(Response::new(ExplainViolationResponse { violation: Some(violation.clone()) }))
    }

    async fn watch_violations(
        &self,
        _: Request<WatchViolationsRequest>,
    ) -> Answer<Self::WatchViolationsStream> {
        let open = self.0.lock().unwrap().violations.values().next().cloned();
        let event = Ok(WatchViolationsResponse { violation: open });
        Ok(Response::new(Box::pin(futures::StreamExt::chain(
            futures::stream::iter([event]),
            futures::stream::pending(),
        ))))
    }
}

#[tonic::async_trait]
impl HarvestService for Registry {
    async fn record_harvest(&self, _: Request<RecordHarvestRequest>) -> Answer<RecordHarvestResponse> {
        Err(Status::internal("the gateway must not hand this on"))
    }

    async fn query_history(&self, request: Request<QueryHistoryRequest>) -> Answer<QueryHistoryResponse> {
        let mut state = self.0.lock().unwrap();
        state.history_asked.push(request.into_inner());
        Ok(Response::new(QueryHistoryResponse { vms: state.vms.clone(), hosts: state.hosts.clone() }))
    }

    type StreamHistoryStream = Stream_<StreamHistoryResponse>;

    async fn stream_history(&self, _: Request<StreamHistoryRequest>) -> Answer<Self::StreamHistoryStream> {
        Err(Status::internal("the gateway must not hand this on"))
    }

    async fn list_latest(&self, _: Request<ListLatestRequest>) -> Answer<ListLatestResponse> {
        let state = self.0.lock().unwrap();
        let (hosts, vms) = (state.hosts.clone(), state.vms.clone());
        Ok(Response::new(ListLatestResponse { hosts, vms, ..ListLatestResponse::default() }))
    }
}

#[tonic::async_trait]
impl TokenService for Registry {
    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        let request = request.into_inner();
        let token =
            Token { token_id: "new".into(), name: request.author, role: request.role, ..Token::default() };
        Ok(Response::new(CreateTokenResponse { token: Some(token), secret: "mh_new".into() }))
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Answer<ListTokensResponse> {
        Ok(Response::new(ListTokensResponse::default()))
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Answer<RevokeTokenResponse> {
        Err(Status::not_found("no such token"))
    }

    async fn verify_token(&self, request: Request<VerifyTokenRequest>) -> Answer<VerifyTokenResponse> {
        let mut state = self.0.lock().unwrap();
        state.verified += 1;
        let token = state.tokens.get(&request.into_inner().secret).cloned();
        let token = token.ok_or_else(|| Status::unauthenticated("the token is not known"))?;
        Ok(Response::new(VerifyTokenResponse { token: Some(token) }))
    }
}

#[tonic::async_trait]
impl AuditService for Registry {
    async fn list_audit_events(&self, _: Request<ListAuditEventsRequest>) -> Answer<ListAuditEventsResponse> {
        let event = AuditEvent {
            event_id: 7,
            author: "ann".into(),
            action: "boundary.set".into(),
            subject: "fleet".into(),
            after_json: r#"{"floor_bytes": 5}"#.into(),
            ..AuditEvent::default()
        };
        Ok(Response::new(ListAuditEventsResponse { events: vec![event], ..Default::default() }))
    }
}
