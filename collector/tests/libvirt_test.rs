//! The libvirt source on libvirt's own test driver: the real library, no daemon.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_collector::hypervisor::libvirt::LibvirtHypervisor;
use memharvest_collector::hypervisor::{Hypervisor, SampleError, Tick};
use memharvest_collector::reading::{Host, HostReading, Quality, VmState};

const KIB: u64 = 1024;

fn tick(second: i64) -> Tick {
    Tick {
        at: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        interval: Duration::from_secs(5),
        budget: Duration::from_secs(5),
    }
}

fn source(uri: &str) -> LibvirtHypervisor {
    let host = Host { id: "h1".into(), name: "one".into(), ..Host::default() };
    LibvirtHypervisor::new(uri, host, Path::new("/proc"))
}

fn sample(source: &mut LibvirtHypervisor, second: i64) -> HostReading {
    let mut readings = source.sample(tick(second)).unwrap();
    assert_eq!(readings.len(), 1);
    readings.remove(0)
}

/// A file for the test driver with this many running domains, and its URI.
fn file_of_domains(count: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut xml = String::from("<node>\n");
    for number in 0..count {
        writeln!(
            xml,
            "<domain type='test'><name>vm-{number}</name>\
             <uuid>00000000-0000-4000-8000-{number:012x}</uuid>\
             <memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>\
             <os><type>hvm</type></os><devices><memballoon model='virtio'><stats period='10'/></memballoon></devices>\
             </domain>"
        )
        .unwrap();
    }
    xml.push_str("</node>\n");
    let path = folder.path().join("node.xml");
    std::fs::write(&path, xml).unwrap();
    let uri = format!("test://{}", path.display());
    (folder, uri)
}

#[test]
fn the_default_test_domain_is_read_one_by_one() {
    let mut source = source("test:///default");
    let reading = sample(&mut source, 0);
    assert_eq!(reading.host.id, "h1");
    assert!(reading.memory.total.is_some());
    let [vm] = reading.vms.as_slice() else { panic!("{reading:?}") };
    assert_eq!(vm.name, "test");
    assert_eq!(vm.id.to_string(), "6695eb01-f6a4-8304-79aa-97f2502e193f");
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.allocated, Some(2_097_152 * KIB));
    assert_eq!(vm.maximum, Some(8_388_608 * KIB));
    assert_eq!(vm.rss, Some(1_048_576 * KIB));
    assert_eq!(vm.guest.available, Some(1_048_576 * KIB));
    assert_eq!(vm.guest.last_update, Some(Timestamp::from_second(627_319_920).unwrap()));
    assert_eq!(vm.quality, Quality::NoPeriod);
    assert!(vm.stats_age(reading.read_at).unwrap() > Duration::from_hours(37 * 365 * 24));
}

#[test]
fn a_thousand_domains_are_read_within_one_tick() {
    let (_folder, uri) = file_of_domains(1000);
    let mut source = source(&uri);
    let first = sample(&mut source, 0);
    assert_eq!(first.vms.len(), 1000);
    for vm in &first.vms {
        assert_eq!(vm.quality, Quality::Live, "{}", vm.name);
        assert_eq!(vm.allocated, Some(1_048_576 * KIB), "{}", vm.name);
        assert_eq!(vm.stats_period(), Some(Duration::from_secs(10)), "{}", vm.name);
    }
    let second = sample(&mut source, 5);
    let generations =
        |reading: &HostReading| reading.vms.iter().map(|vm| (vm.id, vm.generation)).collect::<Vec<_>>();
    assert_eq!(generations(&first), generations(&second));
}

#[test]
fn a_uri_that_no_driver_serves_is_unusable() {
    for uri in ["nonsense", "test:///no/such/file.xml"] {
        let error = source(uri).sample(tick(0)).unwrap_err();
        assert!(matches!(error, SampleError::Unusable(_)), "{uri}: {error:?}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn a_daemon_that_is_not_there_may_come() {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("qemu+unix:///system?socket={}/none", folder.path().display());
    let mut source = source(&uri);
    let error = source.sample(tick(0)).unwrap_err();
    assert!(matches!(error, SampleError::Unreachable(_)), "{error:?}");
    assert_eq!(source.hung_calls(), 0);
}

#[test]
fn a_daemon_that_never_answers_costs_a_bounded_number_of_calls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deaf");
    // Accepts connections into its backlog and says nothing, like a daemon that was stopped.
    let deaf = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut source = source(&format!("qemu+unix:///system?socket={}", path.display()));
    let mut short = tick(0);
    short.budget = Duration::from_millis(100);
    for _ in 0..12 {
        let error = source.sample(short).unwrap_err();
        assert!(matches!(error, SampleError::Overrun { .. }), "{error:?}");
    }
    let hung = source.hung_calls();
    assert_eq!(hung, 16);
    drop(deaf);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while source.hung_calls() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} calls still hang", source.hung_calls());
        std::thread::yield_now();
    }
}
