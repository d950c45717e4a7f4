//! The builders that every test on real guests stands on.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use memharvest_end_to_end::real_host::{RealHost, Virsh, test_driver_xml};
use memharvest_end_to_end::wait::wait_for;

const BOOT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn guests_live_move_stop_and_leave_nothing() {
    let mut host = RealHost::start().await.unwrap();
    let steady = host.guest("steady").start().await.unwrap();
    let moving = host.guest("moving").start().await.unwrap();
    let silent = host.guest("silent").stats_period(None).start().await.unwrap();
    tokio::try_join!(
        steady.wait_until_balloon_alive(BOOT),
        moving.wait_until_balloon_alive(BOOT),
        silent.wait_until_booted(BOOT)
    )
    .unwrap();

    // A guest that fills its memory says so, and so does its process.
    let at_boot = silent.memory_stats().await.unwrap();
    let before = moving.memory_stats().await.unwrap();
    moving.hold(300).await.unwrap();
    let full = wait_for(SOON, "300 MiB to show", async || {
        let now = moving.memory_stats().await?;
        ensure!(
            now["usable"] + 290 * 1024 < before["usable"],
            "usable was {} and is {}",
            before["usable"],
            now["usable"]
        );
        Ok(now)
    })
    .await
    .unwrap();
    assert!(full["rss"] > before["rss"] + 200 * 1024, "rss was {} and is {}", before["rss"], full["rss"]);
    assert!(full["rss"] < full["actual"], "something is left to harvest: {full:?}");

    // Freed pages are handed back, so that RSS falls.
    moving.release().await.unwrap();
    wait_for(SOON, "the pages to come back", async || {
        let now = moving.memory_stats().await?;
        ensure!(
            now["usable"] > full["usable"] + 250 * 1024 && now["rss"] + 100 * 1024 < full["rss"],
            "{now:?}"
        );
        Ok(())
    })
    .await
    .unwrap();

    // Without a statistics period, the driver reports once, as it starts, and never again.
    silent.hold(100).await.unwrap();
    let after = silent.memory_stats().await.unwrap();
    assert_eq!(after["last_update"], at_boot["last_update"]);
    assert_eq!(after["usable"], at_boot["usable"]);

    // The balloon follows.
    steady.set_memory(700).await.unwrap();
    wait_for(SOON, "the balloon", async || {
        let actual = steady.memory_stats().await?["actual"];
        ensure!(actual == 700 * 1024, "{actual} KiB");
        Ok(())
    })
    .await
    .unwrap();

    // libvirtd comes back and finds the same guests; the collector's connection may not change them.
    let pid = steady.pid().unwrap();
    host.restart_daemon().await.unwrap();
    assert_eq!(steady.pid().unwrap(), pid);
    assert_eq!(
        host.virsh(&["list", "--name"]).await.unwrap().lines().filter(|name| !name.is_empty()).count(),
        3
    );
    moving.memory_stats().await.unwrap();

    // A stopped QEMU does not answer; it goes on when it is told to.
    moving.stop_process().unwrap();
    let stuck = tokio::time::timeout(Duration::from_secs(3), moving.memory_stats()).await;
    assert!(stuck.is_err(), "a stopped guest answered: {stuck:?}");
    moving.continue_process().unwrap();
    wait_for(SOON, "the guest to answer again", || moving.memory_stats()).await.unwrap();

    let pids = [&steady, &moving, &silent].map(|guest| guest.pid().unwrap());
    let folder = host.folder().to_owned();
    drop(host);
    assert!(!folder.exists());
    for pid in pids {
        assert!(rustix::process::test_kill_process(pid).is_err(), "QEMU {pid:?} outlived its host");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_connection_cannot_change_a_guest() {
    let host = RealHost::start().await.unwrap();
    let guest = host.guest("idle").paused().start().await.unwrap();
    let reader = Virsh::new(host.uri()).unwrap();
    assert!(reader.run(&["--readonly", "dommemstat", "idle"]).await.unwrap().contains("rss"));
    let refused = reader.run(&["--readonly", "setmem", "idle", "512M", "--live"]).await.unwrap_err();
    assert!(refused.to_string().contains("read only"), "{refused}");
    guest.destroy().await.unwrap();
    assert_eq!(host.virsh(&["list", "--all", "--name"]).await.unwrap().trim(), "");
}

#[tokio::test]
async fn the_test_driver_serves_as_many_domains_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = test_driver_xml(folder.path(), 1000).unwrap();
    let virsh = Virsh::new(format!("test://{}", file.display())).unwrap();
    let names = virsh.run(&["list", "--name"]).await.unwrap();
    assert_eq!(names.lines().filter(|name| name.starts_with("test-")).count(), 1000);
    assert!(virsh.run(&["dommemstat", "test-7"]).await.unwrap().contains("actual 1048576"));
}

#[tokio::test]
async fn a_test_that_is_killed_leaves_nothing() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().strip_prefix("holding ").map(str::to_owned)).unwrap();
    let (folder, pid) = line.split_once(' ').unwrap();
    let process = format!("/proc/{pid}");
    assert!(Path::new(folder).exists() && Path::new(&process).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_for(SOON, "the guest and the folder to go", async || {
        ensure!(!Path::new(&process).exists(), "QEMU {pid} lives");
        ensure!(!Path::new(folder).exists(), "{folder} is there");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "killed by a_test_that_is_killed_leaves_nothing, which starts it"]
async fn victim() {
    let host = RealHost::start().await.unwrap();
    let guest = host.guest("orphan").paused().start().await.unwrap();
    println!("\nholding {} {}", host.folder().display(), guest.pid().unwrap().as_raw_nonzero());
    std::future::pending::<()>().await;
}
