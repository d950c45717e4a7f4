//! Every RPC of the registry once, in an order in which each succeeds; called through the contract's descriptors, so that requests can be
//! changed field by field, and an RPC that is new and has no request here fails the test.

use std::collections::BTreeSet;

use jiff::Timestamp;
use memharvest_proto::collector::v1::{Finding, Severity};
use memharvest_proto::registry::v1;
use memharvest_registry::snapshot::checksum;
use prost::Message;
use prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::records::{
    at, batch_of, coverage, harvest, host_window, lasting, registration, violation, vm_id, vm_window,
};

const GIB: u64 = 1 << 30;

/// The registry's services as they are now.
pub(crate) fn contract() -> DescriptorPool {
    DescriptorPool::decode(memharvest_proto::DESCRIPTORS).unwrap()
}

/// All their RPCs, as `AgentService.Heartbeat`.
fn rpcs(contract: &DescriptorPool) -> BTreeSet<String> {
    let of_registry =
        |service: &prost_reflect::ServiceDescriptor| service.package_name() == "memharvest.registry.v1";
    let name = |method: MethodDescriptor| format!("{}.{}", method.parent_service().name(), method.name());
    contract
        .services()
        .filter(of_registry)
        .flat_map(|service| service.methods().map(name).collect::<Vec<_>>())
        .collect()
}

/// Bytes as they are.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let size = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(size).to_vec()))
    }
}

/// Calls an RPC with a request as bytes; of a stream, its first message, or none where it has none.
pub(crate) async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    request: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap();
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    client.ready().await.unwrap();
    if method.is_server_streaming() {
        let mut stream = client.server_streaming(Request::new(request), path, Raw).await?.into_inner();
        Ok(stream.message().await?.unwrap_or_default())
    } else {
        Ok(client.unary(Request::new(request), path, Raw).await?.into_inner())
    }
}

/// What a test does around each call.
pub(crate) trait Visit {
    /// Before it, with the request that will succeed.
    async fn before(&mut self, _method: &MethodDescriptor, _good: &DynamicMessage) {}

    /// The request as it is sent.
    fn sent(&self, good: DynamicMessage) -> Vec<u8> {
        good.encode_to_vec()
    }

    /// The answer.
    fn after(&mut self, _method: &MethodDescriptor, _answer: &[u8]) {}
}

/// Only that each succeeds.
pub(crate) struct Nothing;

impl Visit for Nothing {}

struct Round<'a, V> {
    channel: &'a Channel,
    contract: DescriptorPool,
    visit: &'a mut V,
    called: BTreeSet<String>,
}

impl<V: Visit> Round<'_, V> {
    async fn call<A: Message + Default>(&mut self, rpc: &str, request: impl Message) -> A {
        let (service, name) = rpc.split_once('.').unwrap();
        let service =
            self.contract.get_service_by_name(&format!("memharvest.registry.v1.{service}")).unwrap();
        let method = service.methods().find(|method| method.name() == name).unwrap();
        let mut good = DynamicMessage::new(method.input());
        good.merge(request.encode_to_vec().as_slice()).unwrap();
        self.visit.before(&method, &good).await;
        let sent = self.visit.sent(good);
        let answer =
            call(self.channel, &method, sent).await.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
        self.visit.after(&method, &answer);
        self.called.insert(rpc.to_owned());
        A::decode(answer.as_slice()).unwrap()
    }
}

/// Every RPC once. Rounds with other numbers are of other hosts, machines and scopes.
pub(crate) async fn round(channel: &Channel, number: u8, visit: &mut impl Visit) {
    let contract = contract();
    let all = rpcs(&contract);
    let mut round = Round { channel, contract, visit, called: BTreeSet::new() };
    let now = Timestamp::now().as_second();
    let host = format!("host-{number}");
    let vm = u128::from(number) + 1;
    agents(&mut round, &host).await;
    history(&mut round, &host, vm, now).await;
    boundaries(&mut round, &host, vm).await;
    violations(&mut round, &host, vm, now).await;
    leases(&mut round, &host, vm).await;
    models(&mut round, &host, vm, now).await;
    tokens(&mut round).await;
    let request = v1::ListAuditEventsRequest {
        page_size: 5,
        author: "ann".into(),
        action: "boundary".into(),
        subject: format!("host:{host}"),
        since: at(now - 3600),
        until: at(now + 3600),
        ..Default::default()
    };
    let events: v1::ListAuditEventsResponse = round.call("AuditService.ListAuditEvents", request).await;
    assert!(!events.events.is_empty());
    let request =
        v1::DecommissionAgentRequest { agent_id: host, author: "ann".into(), reason: "sold".into() };
    let _: v1::DecommissionAgentResponse = round.call("AgentService.DecommissionAgent", request).await;
    assert_eq!(round.called, all, "an RPC without a request in this round");
}

async fn agents(round: &mut Round<'_, impl Visit>, host: &str) {
    let _: v1::RegisterAgentResponse =
        round.call("AgentService.RegisterAgent", registration(host, "a")).await;
    let finding = Finding {
        host_id: host.into(),
        vm_id: vm_id(1),
        vm_name: "vm-1".into(),
        code: "no_period".into(),
        severity: Severity::Warning.into(),
        cause: "no statistics period is set".into(),
        cure: "virsh dommemstat vm-1 --period 10 --live".into(),
        since: at(1_760_000_000),
    };
    let request =
        v1::HeartbeatRequest { agent_id: host.into(), instance_id: "a".into(), findings: vec![finding] };
    let _: v1::HeartbeatResponse = round.call("AgentService.Heartbeat", request).await;
    let request = v1::GetAgentRequest { agent_id: host.into() };
    let got: v1::GetAgentResponse = round.call("AgentService.GetAgent", request).await;
    let request =
        v1::ListAgentsRequest { page_size: 5, kinds: vec![1], states: vec![1], ..Default::default() };
    let _: v1::ListAgentsResponse = round.call("AgentService.ListAgents", request).await;
    let agent = v1::Agent {
        agent_id: host.into(),
        labels: [("rack".to_owned(), "b2".to_owned())].into(),
        interval: lasting(10),
        etag: got.agent.unwrap().etag,
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".into(), "interval".into()] });
    let request = v1::UpdateAgentRequest { agent: Some(agent), update_mask };
    let _: v1::UpdateAgentResponse = round.call("AgentService.UpdateAgent", request).await;
}

async fn history(round: &mut Round<'_, impl Visit>, host: &str, vm: u128, now: i64) {
    let start = now.div_euclid(300) * 300 - 600;
    let mut window = v1::VmRollup { host_id: host.into(), ..vm_window(vm, start) };
    window.demand_max_bytes = window.rss_max_bytes;
    window.demand_mean_bytes = window.rss_mean_bytes;
    window.predicted_demand_bytes = window.predicted_rss_bytes;
    window.reclaimable_bytes = Some(GIB);
    let told = v1::HostHarvest { valid_until: at(now + 600), ..harvest(host, now, 20 * GIB) };
    let request = v1::RecordHarvestRequest {
        hosts: vec![v1::HostRollup {
            allocated_bytes: Some(GIB),
            rss_max_bytes: Some(GIB),
            pooled_harvestable_bytes: Some(GIB),
            reclaimable_bytes: Some(GIB),
            ..host_window(host, start)
        }],
        harvests: vec![told],
        coverage: vec![coverage(host, start, 3, 2)],
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..batch_of(vec![window])
    };
    let _: v1::RecordHarvestResponse = round.call("HarvestService.RecordHarvest", request).await;
    let subject = |subject| v1::QueryHistoryRequest {
        subject: Some(subject),
        from: at(now - 7200),
        to: at(now + 60),
        step: lasting(600),
    };
    for of in [
        v1::query_history_request::Subject::VmId(vm_id(vm)),
        v1::query_history_request::Subject::HostId(host.into()),
        v1::query_history_request::Subject::Fleet(true),
    ] {
        let found: v1::QueryHistoryResponse = round.call("HarvestService.QueryHistory", subject(of)).await;
        assert!(!found.vms.is_empty() || !found.hosts.is_empty());
    }
    let request = v1::ListLatestRequest { page_size: 5, host_id: host.into(), ..Default::default() };
    let found: v1::ListLatestResponse = round.call("HarvestService.ListLatest", request).await;
    assert_eq!(found.vms.len(), 1);
    let request =
        v1::StreamHistoryRequest { vm_ids: vec![vm_id(vm)], from: at(now - 7200), to: at(now + 60) };
    let found: v1::StreamHistoryResponse = round.call("HarvestService.StreamHistory", request).await;
    assert_eq!(found.windows.len(), 1);
}

async fn boundaries(round: &mut Round<'_, impl Visit>, host: &str, vm: u128) {
    let scope = format!("host:{host}");
    let values = v1::BoundaryValues {
        headroom_ratio: Some(0.1),
        headroom_bytes: Some(GIB),
        floor_bytes: Some(GIB),
        max_harvest_ratio: Some(0.5),
        upper_usage_bytes: Some(4 * GIB),
        lower_usage_bytes: Some(GIB),
        target_violation_rate: Some(0.01),
        fairness: Some(1),
        horizon: lasting(900),
        signal: Some(1),
        excluded: Some(false),
        host_basis: Some(1),
        error_budget_per_1000_vm_days: Some(2.0),
    };
    let request = v1::SetBoundaryRequest {
        scope: scope.clone(),
        values: Some(values),
        author: "ann".into(),
        reason: "it is needed".into(),
        ..Default::default()
    };
    let set: v1::SetBoundaryResponse = round.call("BoundaryService.SetBoundary", request).await;
    let request = v1::GetBoundaryRequest { scope: scope.clone() };
    let _: v1::GetBoundaryResponse = round.call("BoundaryService.GetBoundary", request).await;
    let request = v1::ListBoundariesRequest { page_size: 5, ..Default::default() };
    let _: v1::ListBoundariesResponse = round.call("BoundaryService.ListBoundaries", request).await;
    let request =
        v1::GetEffectiveBoundaryRequest { scope: format!("vm:{}", vm_id(vm)), host_id: host.into() };
    let _: v1::GetEffectiveBoundaryResponse =
        round.call("BoundaryService.GetEffectiveBoundary", request).await;
    let request =
        v1::ListBoundaryVersionsRequest { scope: scope.clone(), page_size: 5, ..Default::default() };
    let _: v1::ListBoundaryVersionsResponse =
        round.call("BoundaryService.ListBoundaryVersions", request).await;
    let request = v1::WatchBoundariesRequest { after_revision: 0 };
    let _: v1::WatchBoundariesResponse = round.call("BoundaryService.WatchBoundaries", request).await;
    let etag = set.boundary.unwrap().etag;
    let request = v1::DeleteBoundaryRequest { scope, etag, author: "ann".into(), reason: "no more".into() };
    let _: v1::DeleteBoundaryResponse = round.call("BoundaryService.DeleteBoundary", request).await;
}

async fn violations(round: &mut Round<'_, impl Visit>, host: &str, vm: u128, now: i64) {
    let id = format!("violation-of-{host}");
    let mut recorded = v1::Violation { host_id: host.into(), ..violation(&id, vm, now - 60, 1) };
    recorded.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
    recorded.series[0].predicted_bytes = Some(7);
    recorded.set_state(v1::ViolationState::Closed);
    recorded.closed_at = at(now);
    recorded.close_reason = "clean".into();
    let request = v1::RecordViolationsRequest { predictor_id: "p".into(), violations: vec![recorded] };
    let _: v1::RecordViolationsResponse = round.call("ViolationService.RecordViolations", request).await;
    let request = v1::ListViolationsRequest {
        page_size: 5,
        state: 2,
        kind: 2,
        host_id: host.into(),
        vm_id: vm_id(vm),
        since: at(now - 3600),
        acknowledged: Some(false),
        ..Default::default()
    };
    let found: v1::ListViolationsResponse = round.call("ViolationService.ListViolations", request).await;
    assert_eq!(found.violations.len(), 1);
    let request = v1::GetViolationRequest { violation_id: id.clone() };
    let _: v1::GetViolationResponse = round.call("ViolationService.GetViolation", request).await;
    let request = v1::AcknowledgeViolationRequest {
        violation_id: id.clone(),
        author: "ann".into(),
        note: "seen".into(),
    };
    let _: v1::AcknowledgeViolationResponse =
        round.call("ViolationService.AcknowledgeViolation", request).await;
    let request = v1::ExplainViolationRequest {
        violation_id: id,
        author: "ann".into(),
        explanation: "an import".into(),
    };
    let _: v1::ExplainViolationResponse = round.call("ViolationService.ExplainViolation", request).await;
    let request = v1::ListErrorBudgetsRequest {};
    let _: v1::ListErrorBudgetsResponse = round.call("ViolationService.ListErrorBudgets", request).await;
    // An open one, so that the watch has something to say at once.
    let open = v1::Violation { host_id: host.into(), ..violation(&format!("open-on-{host}"), vm, now, 1) };
    let request = v1::RecordViolationsRequest { predictor_id: "p".into(), violations: vec![open] };
    let _: v1::RecordViolationsResponse = round.call("ViolationService.RecordViolations", request).await;
    let request = v1::WatchViolationsRequest { include_open: true };
    let _: v1::WatchViolationsResponse = round.call("ViolationService.WatchViolations", request).await;
}

async fn leases(round: &mut Round<'_, impl Visit>, host: &str, vm: u128) {
    let request = v1::ReserveMemoryRequest {
        host_id: host.into(),
        bytes: GIB,
        ttl: lasting(600),
        holder: "scheduler".into(),
        idempotency_key: format!("key of {host}"),
        consumer_vm_id: vm_id(vm),
        author: "ann".into(),
    };
    let reserved: v1::ReserveMemoryResponse = round.call("LeaseService.ReserveMemory", request).await;
    let lease_id = reserved.lease.unwrap().lease_id;
    let request = v1::RenewLeaseRequest {
        lease_id: lease_id.clone(),
        ttl: lasting(600),
        holder: "scheduler".into(),
        consumer_vm_id: vm_id(vm),
        author: "ann".into(),
    };
    let _: v1::RenewLeaseResponse = round.call("LeaseService.RenewLease", request).await;
    let request =
        v1::ListLeasesRequest { page_size: 5, host_id: host.into(), state: 1, ..Default::default() };
    let found: v1::ListLeasesResponse = round.call("LeaseService.ListLeases", request).await;
    assert_eq!(found.leases.len(), 1);
    let request = v1::WatchLeasesRequest { host_id: host.into(), include_live: true, after_revision: 0 };
    let _: v1::WatchLeasesResponse = round.call("LeaseService.WatchLeases", request).await;
    let request = v1::ReleaseLeaseRequest {
        lease_id,
        holder: "scheduler".into(),
        author: "ann".into(),
        reason: "the job is done".into(),
    };
    let _: v1::ReleaseLeaseResponse = round.call("LeaseService.ReleaseLease", request).await;
}

async fn models(round: &mut Round<'_, impl Visit>, host: &str, vm: u128, now: i64) {
    let state = vec![7; 100];
    let snapshot = v1::ModelSnapshot {
        vm_id: vm_id(vm),
        host_id: host.into(),
        model_version: "cqd@1".into(),
        taken_at: at(now),
        checksum: checksum(&state).to_vec(),
        state,
    };
    let request = v1::PutSnapshotsRequest { snapshots: vec![snapshot] };
    let _: v1::PutSnapshotsResponse = round.call("ModelService.PutSnapshots", request).await;
    let request = v1::GetSnapshotsRequest { host_id: host.into(), vm_ids: vec![] };
    let found: v1::GetSnapshotsResponse = round.call("ModelService.GetSnapshots", request).await;
    assert_eq!(found.snapshots.len(), 1);
    let request = v1::GetSnapshotsRequest { host_id: String::new(), vm_ids: vec![vm_id(vm)] };
    let _: v1::GetSnapshotsResponse = round.call("ModelService.GetSnapshots", request).await;
}

async fn tokens(round: &mut Round<'_, impl Visit>) {
    let request = v1::CreateTokenRequest {
        name: "ci".into(),
        role: 1,
        ttl: lasting(3600),
        author: "ann".into(),
        reason: "for CI".into(),
    };
    let made: v1::CreateTokenResponse = round.call("TokenService.CreateToken", request).await;
    let request = v1::ListTokensRequest { page_size: 5, ..Default::default() };
    let _: v1::ListTokensResponse = round.call("TokenService.ListTokens", request).await;
    let request = v1::VerifyTokenRequest { secret: made.secret };
    let _: v1::VerifyTokenResponse = round.call("TokenService.VerifyToken", request).await;
    let token_id = made.token.unwrap().token_id;
    let request = v1::RevokeTokenRequest { token_id, author: "ann".into(), reason: "done".into() };
    let _: v1::RevokeTokenResponse = round.call("TokenService.RevokeToken", request).await;
}
