//! A collector as its package runs it, a user of its own in no group and without a capability, on a libvirt that really runs a guest:
//! it reads, and whatever it tries to change is refused. The whole of it, under systemd: `make test-packages`.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::ensure;
use memharvest_end_to_end::mesh::binary;
use memharvest_end_to_end::real_host::RealHost;
use memharvest_end_to_end::tools;
use memharvest_end_to_end::wait::{free_port, wait_for};
use memharvest_end_to_end::web;
use tokio::process::Command;

const SOON: Duration = Duration::from_mins(1);

/// The user `nobody`: libvirt's client wants one that has a name.
const UID: &str = "65534";
const WITHOUT_RIGHTS: [&str; 9] = [
    "setpriv",
    "--reuid",
    UID,
    "--regid",
    UID,
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
];

/// What somebody who owns a host would do to its guests.
const CHANGES: [&[&str]; 8] = [
    &["setmem", "idle", "256M", "--live"],
    &["setmaxmem", "idle", "2G", "--config"],
    &["dommemstat", "idle", "--period", "7", "--live"],
    &["resume", "idle"],
    &["reset", "idle"],
    &["destroy", "idle"],
    &["undefine", "idle"],
    &["qemu-monitor-command", "idle", "--hmp", "info status"],
];

/// virsh under that user. The tools may lie where he cannot go: he sees them at another place.
async fn virsh(host: &RealHost, uri: &str, args: &[&str]) -> Output {
    let here = host.folder().join("tools");
    std::fs::create_dir_all(&here).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg("mount --bind \"$TOOLS\" \"$HERE\"; exec \"$@\"").arg("bash").args(WITHOUT_RIGHTS);
    command.arg(here.join("usr/bin/virsh")).args(["--connect", uri]).args(args);
    command.env("TOOLS", tools::host_root().unwrap()).env("HERE", &here).env("LC_ALL", "C");
    command.env("LD_LIBRARY_PATH", tools::library_path(&here)).env("HOME", "/nonexistent");
    tokio::time::timeout(SOON, command.kill_on_drop(true).output()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_rights_reads_and_changes_nothing() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user's libvirt is a session daemon, which knows one user only: there is nobody to keep out.
        return;
    }
    let host = RealHost::start().await.unwrap();
    let guest = host.guest("idle").paused().start().await.unwrap();
    std::fs::set_permissions(host.folder(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let before = host.virsh(&["dumpxml", "idle"]).await.unwrap();

    // The program may lie where that user cannot go, too.
    let program = host.folder().join("collector");
    std::fs::copy(binary("memharvest-collector").unwrap(), &program).unwrap();
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    let collector = Command::new(WITHOUT_RIGHTS[0])
        .args(&WITHOUT_RIGHTS[1..])
        .arg(&program)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", &admin, "--interval", "1s", "--host-id", "host"])
        .args(["--libvirt-uri", &host.uri()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for(SOON, "a reading of the guest", async || {
        let page = web::get(&format!("http://{admin}/metrics")).await?.text;
        let read = page.lines().any(|line| line.starts_with("memharvest_vm_memory_rss_bytes{"));
        ensure!(read, "no resident set of a machine among {} lines", page.lines().count());
        Ok(())
    })
    .await
    .unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.id().unwrap())).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("Uid:"), format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}"));
    assert_eq!(line("Groups:").trim(), "Groups:");
    for capabilities in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert!(line(capabilities).ends_with("0000000000000000"), "{}", line(capabilities));
    }

    // On the socket that it uses, libvirt refuses; the other one it cannot even open.
    let reads = virsh(&host, &host.uri(), &["dommemstat", "idle"]).await;
    assert!(reads.status.success(), "{}", String::from_utf8_lossy(&reads.stderr));
    for change in CHANGES {
        for (uri, because) in [(host.uri(), "read only"), (host.admin_uri(), "Permission denied")] {
            let output = virsh(&host, &uri, change).await;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{change:?} on {uri} was done");
            assert!(told.contains(because), "{change:?} on {uri}: {told}");
        }
    }
    assert_eq!(host.virsh(&["dumpxml", "idle"]).await.unwrap(), before);
    assert_eq!(host.virsh(&["domstate", "idle"]).await.unwrap().trim(), "paused");
    guest.destroy().await.unwrap();
}
