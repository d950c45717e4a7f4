//! gRPC on the port: `FleetService`, and what is handed on.

use std::time::Duration;

use memharvest_proto::gateway::v1 as fleet;
use memharvest_proto::gateway::v1::fleet_service_client::FleetServiceClient;
use memharvest_proto::predictor::v1 as predictor;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_proto::registry::v1 as registry;
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::lease_service_client::LeaseServiceClient;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_services::rpc_error::FieldViolations;
use registry::{ViolationKind, ViolationState};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::mesh::Mesh;
use crate::predictor::{host, vm_id};
use crate::violations::violation;

async fn channel(mesh: &Mesh) -> Channel {
    Channel::from_shared(mesh.url("")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn the_fleet_is_served_from_memory() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 3));
    mesh.predictors[0].update(host("b", 1));
    mesh.hosts(2).await;
    let mut client = FleetServiceClient::new(channel(&mesh).await);
    let sums = client.get_fleet(fleet::GetFleetRequest {}).await.unwrap().into_inner().fleet.unwrap();
    assert_eq!((sums.hosts, sums.vms, sums.rss_bytes), (2, 4, Some(8 << 30)));

    let request = fleet::ListVmsRequest { page_size: 3, ..Default::default() };
    let first = client.list_vms(request.clone()).await.unwrap().into_inner();
    let request = fleet::ListVmsRequest { page_token: first.next_page_token, ..request };
    let second = client.list_vms(request).await.unwrap().into_inner();
    assert_eq!((first.vms.len(), second.vms.len(), second.next_page_token.as_str()), (3, 1, ""));

    let labels = [("rack".to_owned(), "r/b".to_owned())].into();
    let request = fleet::ListHostsRequest { labels, ..Default::default() };
    assert_eq!(client.list_hosts(request).await.unwrap().into_inner().hosts[0].host_id, "b");

    let request = fleet::ExplainVmRequest { vm_id: vm_id("a", 0), signal: 0 };
    let waterfall = client.explain_vm(request).await.unwrap().into_inner().waterfall.unwrap();
    assert_eq!(waterfall.start_bytes, 4096);

    let status = client.get_vm(fleet::GetVmRequest { vm_id: "x".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let request = fleet::ListVmsRequest { page_size: -1, ..Default::default() };
    let status = client.list_vms(request).await.unwrap_err();
    assert_eq!(FieldViolations::of(&status).as_slice()[0].field, "page_size");
}

async fn next(events: &mut Streaming<fleet::WatchFleetResponse>) -> fleet::WatchFleetResponse {
    tokio::time::timeout(Duration::from_secs(10), events.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn changes_reach_a_watcher_within_a_second() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host("a", 1));
    mesh.hosts(1).await;
    let mut client = FleetServiceClient::new(channel(&mesh).await);
    let request = fleet::WatchFleetRequest { include_hosts: true, ..Default::default() };
    let mut events = client.watch_fleet(request).await.unwrap().into_inner();
    let first = next(&mut events).await;
    assert_eq!((first.updates.len(), first.fleet.unwrap().vms), (1, 1));

    let changed = std::time::Instant::now();
    mesh.predictors[0].update(host("b", 2));
    mesh.predictors[0].gone("a");
    let mut event = next(&mut events).await;
    while event.fleet.as_ref().unwrap().vms != 2 {
        event = next(&mut events).await;
    }
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
    assert_eq!(event.gone_host_ids, ["a"]);
    assert_eq!(event.updates[0].vms.len(), 2);
}

#[tokio::test]
async fn calls_are_handed_on_with_their_answers_and_errors() {
    let mesh = Mesh::start().await;
    let mut boundaries = BoundaryServiceClient::new(channel(&mesh).await);
    let request = registry::SetBoundaryRequest {
        scope: "fleet".into(),
        values: Some(registry::BoundaryValues { headroom_ratio: Some(11.0), ..Default::default() }),
        author: "ann".into(),
        ..Default::default()
    };
    let status = boundaries.set_boundary(request.clone()).await.unwrap_err();
    assert_eq!(FieldViolations::of(&status).as_slice()[0].field, "values.headroom_ratio");
    let request =
        registry::SetBoundaryRequest { values: Some(registry::BoundaryValues::default()), ..request };
    let set = boundaries.set_boundary(request.clone()).await.unwrap().into_inner().boundary.unwrap();
    assert_eq!((set.etag.as_str(), set.author.as_str()), ("\"1\"", "ann"));
    assert_eq!(boundaries.set_boundary(request).await.unwrap_err().code(), Code::FailedPrecondition);

    let one = violation("one", ViolationKind::Promise, ViolationState::Open);
    mesh.registry.0.lock().unwrap().violations.insert("one".into(), one);
    let mut violations = ViolationServiceClient::new(channel(&mesh).await);
    let request = registry::WatchViolationsRequest { include_open: true };
    let mut events = violations.watch_violations(request).await.unwrap().into_inner();
    let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.unwrap();
    assert_eq!(event.unwrap().unwrap().violation.unwrap().violation_id, "one");

    let mut leases = LeaseServiceClient::new(channel(&mesh).await);
    let status = leases.list_leases(registry::ListLeasesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let mut predictors = PredictorServiceClient::new(channel(&mesh).await);
    let request = predictor::SimulateBoundaryRequest {
        scope: "fleet".into(),
        ..predictor::SimulateBoundaryRequest::default()
    };
    let simulated = predictors.simulate_boundary(request).await.unwrap().into_inner();
    assert_eq!(simulated.total.unwrap().harvest_before_bytes, 7);
}

#[tokio::test]
async fn nothing_can_be_recorded_through_the_gateway() {
    let mesh = Mesh::start().await;
    let mut violations = ViolationServiceClient::new(channel(&mesh).await);
    let status =
        violations.record_violations(registry::RecordViolationsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut harvest = HarvestServiceClient::new(channel(&mesh).await);
    let status = harvest.record_harvest(registry::RecordHarvestRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut agents = AgentServiceClient::new(channel(&mesh).await);
    let status = agents.register_agent(registry::RegisterAgentRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("on the registry itself"), "{}", status.message());
    let mut predictors = PredictorServiceClient::new(channel(&mesh).await);
    let status = predictors.watch_forecasts(predictor::WatchForecastsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_caller_that_names_a_foreign_host_is_refused() {
    let mesh = Mesh::start().await;
    let channel = Channel::from_shared(mesh.url(""))
        .unwrap()
        .origin("http://evil.example".parse().unwrap())
        .connect()
        .await
        .unwrap();
    let status = FleetServiceClient::new(channel).get_fleet(fleet::GetFleetRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_session_tells_who_asks_and_what_time_it_is() {
    let mesh = Mesh::start().await;
    let mut client = FleetServiceClient::new(channel(&mesh).await);
    let told = client.get_session(fleet::GetSessionRequest {}).await.unwrap().into_inner();
    assert!(!told.authentication_required);
    assert_eq!((told.role(), told.name.as_str()), (registry::Role::Admin, ""));
    assert!(told.mesh_time.is_some() && told.open_id.is_none());
    assert!((told.mesh_speed - 1.0).abs() < f64::EPSILON);

    let guarded = Mesh::with(1, &["--auth-tokens"]).await;
    guarded.registry.issue("mh_ann", "ann", registry::Role::Viewer);
    let mut client = FleetServiceClient::new(channel(&guarded).await);
    let mut ask = async |secret: &str| {
        let mut request = tonic::Request::new(fleet::GetSessionRequest {});
        if !secret.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        }
        client.get_session(request).await.unwrap().into_inner()
    };
    let nobody = ask("").await;
    assert_eq!((nobody.role(), nobody.denied_reason.as_str()), (registry::Role::Unspecified, ""));
    assert!(nobody.authentication_required && nobody.takes_tokens);
    let ann = ask("mh_ann").await;
    assert_eq!((ann.role(), ann.name.as_str()), (registry::Role::Viewer, "ann"));
    assert_ne!(ask("mh_wrong").await.denied_reason, "");
}
