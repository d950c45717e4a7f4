//! The ledger: recorded, annotated, watched.

use memharvest_proto::registry::v1::{
    AcknowledgeViolationRequest, ExplainViolationRequest, GetViolationRequest, ListViolationsRequest,
    RecordViolationsRequest, Violation, ViolationState, WatchViolationsRequest,
};
use tonic::Code;

use crate::records::{T0, closed, violation};
use crate::server::{PATIENCE, TestRegistry, database, next};

fn record(violations: Vec<Violation>) -> RecordViolationsRequest {
    RecordViolationsRequest { predictor_id: "p".to_owned(), violations }
}

fn acknowledge(violation_id: &str) -> AcknowledgeViolationRequest {
    AcknowledgeViolationRequest {
        violation_id: violation_id.to_owned(),
        author: "ann".to_owned(),
        note: "seen".to_owned(),
    }
}

#[tokio::test]
async fn every_change_is_watched() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.violations();
    client
        .record_violations(record(vec![violation("a", 1, T0, 1), violation("b", 2, T0 + 5, 1)]))
        .await
        .unwrap();
    let mut all =
        client.watch_violations(WatchViolationsRequest { include_open: true }).await.unwrap().into_inner();
    let mut new = client.watch_violations(WatchViolationsRequest::default()).await.unwrap().into_inner();
    for id in ["a", "b"] {
        assert_eq!(next(&mut all).await.violation.unwrap().violation_id, id);
    }
    let over = closed(violation("a", 1, T0, 2), T0 + 60);
    assert_eq!(client.record_violations(record(vec![over.clone()])).await.unwrap().into_inner().stored, 1);
    assert_eq!(client.record_violations(record(vec![over])).await.unwrap().into_inner().stored, 0);
    client.acknowledge_violation(acknowledge("b")).await.unwrap();
    for watch in [&mut all, &mut new] {
        let first = next(watch).await.violation.unwrap();
        assert_eq!(
            (first.violation_id.as_str(), first.state(), first.series.len()),
            ("a", ViolationState::Closed, 0)
        );
        let second = next(watch).await.violation.unwrap();
        assert_eq!((second.violation_id.as_str(), second.acknowledged_by.as_str()), ("b", "ann"));
    }
    drop((all, new));
    registry.stop().await;
}

#[tokio::test]
async fn people_say_their_word_and_find_it_again() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.violations();
    client
        .record_violations(record(vec![violation("a", 1, T0, 1), violation("b", 2, T0 + 5, 1)]))
        .await
        .unwrap();
    client.acknowledge_violation(acknowledge("b")).await.unwrap();
    let request = ExplainViolationRequest {
        violation_id: "b".to_owned(),
        author: "bob".to_owned(),
        explanation: "cron".to_owned(),
    };
    let explained = client.explain_violation(request).await.unwrap().into_inner().violation.unwrap();
    assert_eq!((explained.explained_by.as_str(), explained.note.as_str()), ("bob", "seen"));
    let one = client
        .get_violation(GetViolationRequest { violation_id: "b".to_owned() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(one.violation.unwrap(), explained);
    assert_eq!(explained.series.len(), 1);

    let first = ListViolationsRequest { page_size: 1, ..Default::default() };
    let first = client.list_violations(first).await.unwrap().into_inner();
    assert_eq!(first.violations[0].violation_id, "b");
    assert_eq!(first.counts.iter().map(|one| one.count).sum::<u64>(), 2);
    let rest =
        ListViolationsRequest { page_size: 1, page_token: first.next_page_token, ..Default::default() };
    let rest = client.list_violations(rest).await.unwrap().into_inner();
    assert_eq!((rest.violations[0].violation_id.as_str(), rest.counts.len()), ("a", 0));
    assert_eq!(rest.next_page_token, "");
    registry.stop().await;
}

#[tokio::test]
async fn a_watch_ends_when_the_registry_stops() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let watch = registry.violations().watch_violations(WatchViolationsRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    registry.stop().await;
    let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time").unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
}
