//! The ledger: recorded, annotated, watched.

use memharvest_proto::registry::v1::{
    AcknowledgeViolationRequest, BoundaryValues, ExplainViolationRequest, GetViolationRequest,
    ListErrorBudgetsRequest, ListViolationsRequest, RecordHarvestRequest, RecordViolationsRequest,
    SetBoundaryRequest, Violation, ViolationState, WatchViolationsRequest,
};
use tonic::Code;

use crate::records::{T0, batch_of, closed, host_window, violation, vm_id, vm_window};
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

#[tokio::test]
async fn error_budgets_are_worked_out_from_the_ledger() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let now = jiff::Timestamp::now().as_second();
    let budgets = async || {
        let all = registry.violations().list_error_budgets(ListErrorBudgetsRequest {}).await.unwrap();
        all.into_inner().error_budgets
    };
    assert!(budgets().await.is_empty(), "no boundary sets one");
    for (scope, per_1000) in [("fleet", 1000.0), (&format!("vm:{}", vm_id(7)), 1.0)] {
        let values =
            BoundaryValues { error_budget_per_1000_vm_days: Some(per_1000), ..BoundaryValues::default() };
        let set = SetBoundaryRequest { scope: scope.to_owned(), values: Some(values), ..Default::default() };
        registry.boundaries().set_boundary(set).await.unwrap();
    }
    // Three machines for an hour: ninety machine-days in thirty days, and as many violations allowed.
    let hour = (now / 3600 - 1) * 3600;
    let hosts = (0..12).map(|i| host_window("h", hour + i * 300)).collect();
    let batch = RecordHarvestRequest { hosts, ..batch_of(vec![vm_window(7, hour)]) };
    registry.harvest().record_harvest(batch).await.unwrap();
    let violations = vec![
        violation("a", 1, now - 60, 1),
        violation("b", 7, now - 60, 1),
        violation("old", 1, now - 31 * 86_400, 1),
    ];
    let request = RecordViolationsRequest { predictor_id: "p".to_owned(), violations };
    registry.violations().record_violations(request).await.unwrap();
    let [fleet, own] = &budgets().await[..] else { panic!("two budgets") };
    assert_eq!((fleet.scope.as_str(), fleet.version, fleet.violations), ("fleet", 1, 1));
    let hours = fleet.vm_days * 24.0;
    assert!(
        (hours - (3.0 - 1.0 / 12.0)).abs() < 1e-9,
        "without the machine that has a budget of its own: {fleet:?}"
    );
    assert!(fleet.allowed > 40.0 && fleet.remaining_ratio > 0.9 && fleet.remaining_ratio < 1.0, "{fleet:?}");
    assert_eq!((own.scope.as_str(), own.violations), (format!("vm:{}", vm_id(7)).as_str(), 1));
    assert!(own.remaining_ratio < 1e-9, "{own:?}");
    registry.stop().await;
}
