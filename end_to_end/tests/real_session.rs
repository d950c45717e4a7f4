//! Real guests of an ordinary user: `qemu:///session`, without any right over the machine.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// Shows the repository at its own path to a user who may not enter a folder above it, in a mount namespace of its
/// own, and becomes that user.
const AS_NOBODY: &str = r#"
set -eu
repository=$1 home=$2
shift 2
become="setpriv --reuid=65534 --regid=65534 --clear-groups"
if ! $become test -x "$1"; then
    top=/$(echo "$repository" | cut -d/ -f2)
    mkdir "$home/repository" "$home/tmp"
    mount --bind "$repository" "$home/repository"
    mount --rbind "$home" /mnt
    mount -t tmpfs -o mode=1777 tmpfs "$top"
    mkdir -p "$repository" "$home"
    mount --bind /mnt/repository "$repository"
    mount --bind /mnt "$home"
fi
exec $become "$@"
"#;

#[test]
fn an_ordinary_users_guests_are_measured_and_a_stuck_one_harms_no_neighbour() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let own = std::env::current_exe().unwrap();
    let guests = std::fs::read_dir(own.parent().unwrap())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_none())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("real_guests-"))
        })
        .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).unwrap())
        .expect("the tests of real_guests are built beside this one");
    if !rustix::process::geteuid().is_root() {
        // Then real_guests itself has run as an ordinary user.
        return;
    }
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation=private", "bash", "-c", AS_NOBODY, "bash"])
        .args([tests, home.path(), &guests])
        .args(["--exact", "a_stuck_guest_harms_no_neighbour_and_a_lost_libvirtd_is_found_again"])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
