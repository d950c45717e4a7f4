//! Boundaries: set, resolved, watched.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{
    BoundaryValues, DeleteBoundaryRequest, GetBoundaryRequest, GetEffectiveBoundaryRequest,
    ListBoundariesRequest, ListBoundaryVersionsRequest, RegisterAgentRequest, SetBoundaryRequest,
    WatchBoundariesRequest, WatchBoundariesResponse,
};
use tonic::Code;

use crate::records::{T0, batch_of, registration, vm_id, vm_window};
use crate::server::{TestRegistry, database, next, wrong_fields};

fn set(scope: &str, floor_bytes: u64, etag: &str) -> SetBoundaryRequest {
    SetBoundaryRequest {
        scope: scope.to_owned(),
        values: Some(BoundaryValues { floor_bytes: Some(floor_bytes), ..BoundaryValues::default() }),
        etag: etag.to_owned(),
        author: "ann".to_owned(),
        reason: "a test".to_owned(),
    }
}

fn remove(scope: &str, etag: &str) -> DeleteBoundaryRequest {
    DeleteBoundaryRequest {
        scope: scope.to_owned(),
        etag: etag.to_owned(),
        author: "bob".to_owned(),
        reason: "done".to_owned(),
    }
}

#[tokio::test]
async fn boundaries_are_set_under_their_etag_and_listed() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    let first = client.set_boundary(set("host:h", 1, "")).await.unwrap().into_inner().boundary.unwrap();
    assert_eq!((first.version, first.author.as_str(), first.reason.as_str()), (1, "ann", "a test"));
    assert_eq!(client.set_boundary(set("host:h", 2, "")).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.set_boundary(set("host:h", 2, "\"9\"")).await.unwrap_err().code(), Code::Aborted);
    client.set_boundary(set("host:h", 2, &first.etag)).await.unwrap();
    client.set_boundary(set("group:rack=a1", 3, "")).await.unwrap();
    client.set_boundary(set("vm:0191F6A0-0000-7000-8000-000000000001", 3, "")).await.unwrap();

    let page = ListBoundariesRequest { page_size: 2, ..Default::default() };
    let page = client.list_boundaries(page).await.unwrap().into_inner();
    let rest = ListBoundariesRequest { page_token: page.next_page_token, ..Default::default() };
    let rest = client.list_boundaries(rest).await.unwrap().into_inner();
    let scopes: Vec<_> =
        page.boundaries.iter().chain(&rest.boundaries).map(|one| one.scope.as_str()).collect();
    assert_eq!(scopes, ["group:rack=a1", "host:h", "vm:0191f6a0-0000-7000-8000-000000000001"]);
    registry.stop().await;
}

#[tokio::test]
async fn a_boundary_that_is_removed_leaves_its_versions() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    client.set_boundary(set("host:h", 1, "")).await.unwrap();
    client.set_boundary(set("host:h", 2, "\"1\"")).await.unwrap();
    let refused = client.delete_boundary(remove("host:h", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let stale = client.delete_boundary(remove("host:h", "\"1\"")).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let removed =
        client.delete_boundary(remove("host:h", "\"2\"")).await.unwrap().into_inner().boundary.unwrap();
    assert_eq!((removed.version, removed.deleted), (3, true));
    let gone = client.get_boundary(GetBoundaryRequest { scope: "host:h".to_owned() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let versions =
        ListBoundaryVersionsRequest { scope: "host:h".to_owned(), page_size: 2, ..Default::default() };
    let versions = client.list_boundary_versions(versions).await.unwrap().into_inner();
    assert_eq!(versions.boundaries.iter().map(|one| one.version).collect::<Vec<_>>(), [3, 2]);
    assert_ne!(versions.next_page_token, "");
    registry.stop().await;
}

#[tokio::test]
async fn the_most_specific_boundary_holds_field_by_field() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let labels: BTreeMap<_, _> =
        [("rack".to_owned(), "a1".to_owned()), ("az".to_owned(), "x".to_owned())].into();
    let request = RegisterAgentRequest { labels, ..registration("h", "a") };
    registry.agents().register_agent(request).await.unwrap();
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0)])).await.unwrap();
    let mut client = registry.boundaries();
    for (scope, floor) in [("fleet", 1), ("group:rack=a1", 2), ("group:az=x", 3)] {
        client.set_boundary(set(scope, floor, "")).await.unwrap();
    }
    let mut effective = async |scope: &str, host_id: &str| {
        let request = GetEffectiveBoundaryRequest { scope: scope.to_owned(), host_id: host_id.to_owned() };
        let answer = client.get_effective_boundary(request).await.unwrap().into_inner();
        let source = answer.sources.iter().find(|one| one.field == "floor_bytes").cloned().unwrap();
        (answer.values.unwrap().floor_bytes, source.scope)
    };
    let vm = format!("vm:{}", vm_id(1));
    assert_eq!(effective("fleet", "").await, (Some(1), "fleet".to_owned()));
    assert_eq!(effective("group:rack=a1", "").await, (Some(2), "group:rack=a1".to_owned()));
    assert_eq!(effective("host:h", "").await, (Some(3), "group:az=x".to_owned()), "the first label wins");
    assert_eq!(effective(&vm, "").await, (Some(3), "group:az=x".to_owned()), "its host as last recorded");
    assert_eq!(effective(&vm, "elsewhere").await, (Some(1), "fleet".to_owned()));
    assert_eq!(effective(&format!("vm:{}", vm_id(9)), "h").await, (Some(3), "group:az=x".to_owned()));
    registry.boundaries().set_boundary(set(&vm, 7, "")).await.unwrap();
    assert_eq!(effective(&vm, "").await, (Some(7), vm.clone()));
    registry.stop().await;
}

fn told(event: &WatchBoundariesResponse) -> (String, u64, u64) {
    let boundary = event.boundary.clone().unwrap_or_default();
    (boundary.scope, boundary.version, event.revision)
}

#[tokio::test]
async fn a_watch_begins_with_everything_and_goes_on_with_every_change() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    client.set_boundary(set("fleet", 1, "")).await.unwrap();
    client.set_boundary(set("host:h", 1, "")).await.unwrap();
    let mut watch = client.watch_boundaries(WatchBoundariesRequest::default()).await.unwrap().into_inner();
    assert_eq!(told(&next(&mut watch).await), ("fleet".to_owned(), 1, 0));
    assert_eq!(told(&next(&mut watch).await), ("host:h".to_owned(), 1, 0));
    let mark = next(&mut watch).await;
    assert_eq!((mark.boundary, mark.revision, mark.snapshot_complete), (None, 2, true));

    client.set_boundary(set("fleet", 2, "\"1\"")).await.unwrap();
    client.delete_boundary(remove("host:h", "\"1\"")).await.unwrap();
    client.set_boundary(set("fleet", 3, "\"2\"")).await.unwrap();
    let mut live = Vec::new();
    for _ in 0..3 {
        live.push(next(&mut watch).await);
    }
    let expected = [("fleet".to_owned(), 2, 3), ("host:h".to_owned(), 2, 4), ("fleet".to_owned(), 3, 5)];
    assert_eq!(live.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(live[1].boundary.as_ref().unwrap().deleted);
    drop(watch);
    registry.stop().await;
}

#[tokio::test]
async fn a_watch_resumes_after_any_revision_even_over_a_restart() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    client.set_boundary(set("fleet", 1, "")).await.unwrap();
    client.set_boundary(set("fleet", 2, "\"1\"")).await.unwrap();
    client.set_boundary(set("host:h", 1, "")).await.unwrap();
    registry.stop().await;

    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    let mut watch =
        client.watch_boundaries(WatchBoundariesRequest { after_revision: 1 }).await.unwrap().into_inner();
    assert_eq!(told(&next(&mut watch).await), ("fleet".to_owned(), 2, 2));
    assert_eq!(told(&next(&mut watch).await), ("host:h".to_owned(), 1, 3));
    let mark = next(&mut watch).await;
    assert_eq!((mark.revision, mark.snapshot_complete), (3, true));
    client.set_boundary(set("fleet", 3, "\"2\"")).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, 4);
    let ahead = client.watch_boundaries(WatchBoundariesRequest { after_revision: 99 }).await.unwrap_err();
    assert_eq!(wrong_fields(&ahead), ["after_revision"]);
    drop(watch);
    registry.stop().await;
}
