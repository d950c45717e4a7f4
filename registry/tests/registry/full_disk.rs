//! A disk without room, SQLite's own: writers are told clearly, readers notice nothing, and all goes on when there is room again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use memharvest_proto::registry::v1::QueryHistoryRequest;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::query_history_request::Subject;
use tokio::process::Command;
use tonic::Code;
use tonic::transport::Channel;

use crate::process::{program, start};
use crate::records::{T0, at, batch_of, vm_id, vm_window};
use crate::server::{database, eventually};

/// Room on the disk, in MiB.
const ROOM: usize = 6;

/// The same program on a small file system of its own, which nobody else sees and which goes with it. Making one takes the rights of root, or a
/// kernel that lets users make name spaces.
fn on_a_small_disk(program: &Command, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !is_root {
        command.arg("--map-root-user");
    }
    let mount = format!("mount -t tmpfs -o size={ROOM}m tmpfs \"$0\" && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &mount]).arg(folder);
    command.arg(program.as_std().get_program()).args(program.as_std().get_args());
    command.kill_on_drop(true).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Records windows of a machine one after the other until a call fails; returns how many passed, and the failure.
async fn write_until_refused(channel: &Channel, mut window: i64) -> (i64, tonic::Status) {
    let mut client = HarvestServiceClient::new(channel.clone());
    loop {
        // So many machines at once that a batch needs new pages.
        let vms = (0..100).map(|vm| vm_window(vm, T0 + window * 300)).collect();
        match client.record_harvest(batch_of(vms)).await {
            Ok(_) => window += 1,
            Err(status) => return (window, status),
        }
    }
}

async fn recorded(channel: &Channel) -> usize {
    let request = QueryHistoryRequest {
        subject: Some(Subject::VmId(vm_id(7))),
        from: at(T0),
        to: at(T0 + 100_000 * 300),
        step: None,
    };
    HarvestServiceClient::new(channel.clone()).query_history(request).await.unwrap().into_inner().vms.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_leaves_readers_alone_and_is_no_matter_later() {
    let (folder, path) = database();
    let (child, channel) = start(on_a_small_disk(&program(&path), folder.path())).await;
    let pid = child.id().unwrap();
    // The disk as the program sees it.
    let ballast = PathBuf::from(format!("/proc/{pid}/root{}", folder.path().join("ballast").display()));
    std::fs::write(&ballast, vec![1; ROOM / 2 * (1 << 20)]).unwrap();

    let (stored, status) = write_until_refused(&channel, 0).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("disk is full; free some space"), "{status:?}");
    assert!(stored > 10, "{stored}");
    for _ in 0..3 {
        assert_eq!(
            i64::try_from(recorded(&channel).await).unwrap(),
            stored,
            "what was acknowledged, and no more"
        );
        let (_, again) = write_until_refused(&channel, stored).await;
        assert_eq!(again.code(), Code::ResourceExhausted, "{again:?}");
    }

    std::fs::remove_file(&ballast).unwrap();
    let more = eventually("room again", async || {
        let (more, _) = write_until_refused(&channel, stored).await;
        (more > stored).then_some(more)
    })
    .await;
    assert_eq!(i64::try_from(recorded(&channel).await).unwrap(), more);
    let check = Command::new("nsenter")
        .arg(format!("--mount=/proc/{pid}/ns/mnt"))
        .arg(env!("CARGO_BIN_EXE_memharvest-registry"))
        .arg("check")
        .arg("--database")
        .arg(&path)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&check.stdout);
    assert!(told.ends_with("no faults found\n"), "{told} {}", String::from_utf8_lossy(&check.stderr));
}
