//! History: recorded and read back.

use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_proto::registry::v1::{
    ListLatestRequest, QueryHistoryRequest, RecordHarvestRequest, StreamHistoryRequest,
};
use tonic::Code;

use crate::records::{T0, at, batch_of, coverage, harvest, host_window, lasting, vm_id, vm_window};
use crate::server::{TestRegistry, database, eventually, wrong_fields};

#[tokio::test]
async fn history_is_merged_to_the_step_that_is_asked_for() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.harvest();
    let batch = RecordHarvestRequest {
        hosts: vec![host_window("h", T0)],
        harvests: vec![harvest("h", T0, 5)],
        ..batch_of((0..24).map(|i| vm_window(1, T0 + i * 300)).collect())
    };
    assert_eq!(client.record_harvest(batch).await.unwrap().into_inner().stored, 26);
    let query =
        |subject, step| QueryHistoryRequest { subject: Some(subject), from: at(T0), to: at(T0 + 7200), step };
    let vm = || Subject::VmId(vm_id(1));
    let plain = client.query_history(query(vm(), None)).await.unwrap().into_inner();
    assert_eq!(plain.vms.len(), 24);
    let hours = client.query_history(query(vm(), lasting(3600))).await.unwrap().into_inner();
    assert_eq!(hours.vms.iter().map(|one| one.readings).collect::<Vec<_>>(), [720, 720]);
    assert_eq!(hours.vms[0].rss_max_bytes, vm_window(1, T0 + 3300).rss_max_bytes);
    let host = query(Subject::HostId("h".to_owned()), lasting(3600));
    let host = client.query_history(host).await.unwrap().into_inner();
    assert_eq!((host.hosts.len(), host.vms.len()), (1, 0));
    let fleet = client.query_history(query(Subject::Fleet(true), None)).await.unwrap().into_inner();
    assert_eq!((fleet.hosts.len(), fleet.hosts[0].host_id.as_str()), (1, ""));

    let unknown = client.query_history(query(Subject::VmId(vm_id(2)), None)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let fine = QueryHistoryRequest { from: at(0), step: lasting(1), ..query(vm(), None) };
    assert_eq!(wrong_fields(&client.query_history(fine).await.unwrap_err()), ["step"]);
    let nothing = QueryHistoryRequest { subject: None, ..query(vm(), None) };
    assert_eq!(wrong_fields(&client.query_history(nothing).await.unwrap_err()), ["vm_id"]);
    let nobody = query(Subject::Fleet(false), None);
    assert_eq!(wrong_fields(&client.query_history(nobody).await.unwrap_err()), ["vm_id"]);
    registry.stop().await;
}

#[tokio::test]
async fn whole_histories_come_machine_by_machine() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.harvest();
    let batch = batch_of((0..3).flat_map(|vm| (0..24).map(move |i| vm_window(vm, T0 + i * 300))).collect());
    client.record_harvest(batch).await.unwrap();
    let asked = StreamHistoryRequest {
        vm_ids: vec![vm_id(2), vm_id(7), vm_id(0)],
        from: at(T0 + 300),
        to: at(T0 + 1200),
    };
    let mut answers = client.stream_history(asked.clone()).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let starts: Vec<i64> =
            answer.windows.iter().map(|window| window.window_start.as_ref().unwrap().seconds - T0).collect();
        assert_eq!(starts, [300, 600, 900]);
        assert_eq!(answer.host_id, vm_window(0, T0).host_id);
        assert!(answer.windows.iter().all(|window| window.vm_id.is_empty() && window.readings > 0));
        found.push(answer.vm_id);
    }
    assert_eq!(found, [vm_id(2), vm_id(0)], "what was never recorded is left out");

    let wrong =
        |request| async { wrong_fields(&registry.harvest().stream_history(request).await.unwrap_err()) };
    assert_eq!(wrong(StreamHistoryRequest::default()).await, ["vm_ids"]);
    let nobody = StreamHistoryRequest { vm_ids: vec![vm_id(1), "no uuid".to_owned()], ..asked.clone() };
    assert_eq!(wrong(nobody).await, ["vm_ids[1]"]);
    assert_eq!(
        wrong(StreamHistoryRequest { vm_ids: vec![vm_id(1); 1001], ..asked.clone() }).await,
        ["vm_ids"]
    );
    assert_eq!(wrong(StreamHistoryRequest { from: at(T0 + 5000), ..asked }).await, ["from"]);
    registry.stop().await;
}

#[tokio::test]
async fn the_latest_windows_come_in_pages_with_the_coverage_of_a_day() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.harvest();
    let now = jiff::Timestamp::now().as_second();
    let (old, new) = (now - 2 * 86_400, now - 600);
    let batch = RecordHarvestRequest {
        hosts: vec![host_window("h", new)],
        coverage: vec![
            coverage("h", old, 1000, 0),
            coverage("h", new, 100, 99),
            coverage("h", new - 300, 100, 100),
        ],
        ..batch_of((0..5).flat_map(|vm| [vm_window(vm, old), vm_window(vm, new)]).collect())
    };
    client.record_harvest(batch).await.unwrap();
    let first = ListLatestRequest { page_size: 3, ..Default::default() };
    let first = client.list_latest(first).await.unwrap().into_inner();
    assert_eq!(first.vms, (0..3).map(|vm| vm_window(vm, new)).collect::<Vec<_>>());
    assert_eq!(first.hosts, [host_window("h", new)]);
    assert_eq!(first.coverage.iter().map(|one| (one.judged, one.held)).collect::<Vec<_>>(), [(200, 199)]);
    let second = ListLatestRequest { page_token: first.next_page_token, ..Default::default() };
    let second = client.list_latest(second).await.unwrap().into_inner();
    assert_eq!((second.vms.len(), second.hosts.len(), second.coverage.len()), (2, 0, 0));
    assert_eq!(second.next_page_token, "");
    registry.stop().await;
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let now = jiff::Timestamp::now().as_second();
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0), vm_window(1, now)])).await.unwrap();
    registry.stop().await;
    let registry = TestRegistry::start(&path, &["--retention", "2h"]).await;
    let left = eventually("the old window is gone", async || {
        let request = QueryHistoryRequest {
            subject: Some(Subject::VmId(vm_id(1))),
            from: at(T0),
            to: None,
            step: None,
        };
        let found = registry.harvest().query_history(request).await.unwrap().into_inner().vms;
        (found.len() == 1).then_some(found)
    })
    .await;
    assert_eq!(left, [vm_window(1, now)]);
    registry.stop().await;
}
