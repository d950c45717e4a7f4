//! Snapshots of models.

use memharvest_proto::registry::v1::{GetSnapshotsRequest, ModelSnapshot, PutSnapshotsRequest};
use memharvest_registry::snapshot::checksum;

use crate::records::{at, vm_id};
use crate::server::{TestRegistry, database, wrong_fields};

fn snapshot(number: u128, taken_at: i64, size: usize) -> ModelSnapshot {
    let state = vec![u8::try_from(number % 251).unwrap(); size];
    ModelSnapshot {
        vm_id: vm_id(number),
        host_id: "h".to_owned(),
        model_version: "cqd@1".to_owned(),
        taken_at: at(taken_at),
        checksum: checksum(&state).to_vec(),
        state,
    }
}

async fn read(registry: &TestRegistry, request: GetSnapshotsRequest) -> Vec<ModelSnapshot> {
    let mut stream = registry.models().get_snapshots(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(part.snapshots);
    }
    all
}

#[tokio::test]
async fn snapshots_are_stored_in_bulk_and_streamed_back() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let now = jiff::Timestamp::now().as_second();
    let snapshots: Vec<_> = (0..500).map(|number| snapshot(number, now, 4096)).collect();
    let put = PutSnapshotsRequest { snapshots: snapshots.clone() };
    let stored = registry.models().put_snapshots(put).await.unwrap().into_inner();
    assert_eq!((stored.stored, stored.passed_over_vm_ids.len()), (500, 0));
    let put = PutSnapshotsRequest { snapshots: vec![snapshot(1, now - 1, 1), snapshot(2, now + 1, 2)] };
    let stored = registry.models().put_snapshots(put).await.unwrap().into_inner();
    assert_eq!((stored.stored, stored.passed_over_vm_ids), (1, vec![vm_id(1)]));

    let of_host = GetSnapshotsRequest { host_id: "h".to_owned(), vm_ids: vec![] };
    let mut expected = snapshots;
    expected[2] = snapshot(2, now + 1, 2);
    assert!(read(&registry, of_host).await == expected, "all of them, in order, byte for byte");
    let named =
        GetSnapshotsRequest { vm_ids: (0..100).map(|n| vm_id(n * 10)).collect(), ..Default::default() };
    assert_eq!(read(&registry, named).await.len(), 50, "half of them are not there");
    let elsewhere = GetSnapshotsRequest { host_id: "i".to_owned(), vm_ids: vec![] };
    assert!(read(&registry, elsewhere).await.is_empty());
    registry.stop().await;
}

#[tokio::test]
async fn one_damaged_snapshot_refuses_the_batch() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.models();
    let good = || snapshot(1, 1, 10);
    for (bad, field) in [
        (ModelSnapshot { vm_id: "web".to_owned(), ..good() }, "vm_id"),
        (ModelSnapshot { host_id: String::new(), ..good() }, "host_id"),
        (ModelSnapshot { model_version: String::new(), ..good() }, "model_version"),
        (ModelSnapshot { taken_at: None, ..good() }, "taken_at"),
        (ModelSnapshot { state: vec![9; 10], ..good() }, "checksum"),
        (ModelSnapshot { checksum: vec![], ..good() }, "checksum"),
        (snapshot(1, 1, 0), "state"),
        (snapshot(1, 1, (1 << 20) + 1), "state"),
    ] {
        let put = PutSnapshotsRequest { snapshots: vec![snapshot(2, 1, 10), bad] };
        let refused = client.put_snapshots(put).await.unwrap_err();
        assert_eq!(wrong_fields(&refused), [format!("snapshots[1].{field}")]);
    }
    let both = GetSnapshotsRequest { host_id: "h".to_owned(), vm_ids: vec![vm_id(1)] };
    assert_eq!(wrong_fields(&client.get_snapshots(both).await.unwrap_err()), ["vm_ids"]);
    let neither = GetSnapshotsRequest::default();
    assert_eq!(wrong_fields(&client.get_snapshots(neither).await.unwrap_err()), ["host_id"]);
    let no_vm = GetSnapshotsRequest { vm_ids: vec![vm_id(1), "web".to_owned()], ..Default::default() };
    assert_eq!(wrong_fields(&client.get_snapshots(no_vm).await.unwrap_err()), ["vm_ids[1]"]);
    let of_host = GetSnapshotsRequest { host_id: "h".to_owned(), vm_ids: vec![] };
    assert!(read(&registry, of_host).await.is_empty(), "nothing was written");
    drop(client);
    registry.stop().await;
}
