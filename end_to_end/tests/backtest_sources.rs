//! `memharvest backtest` on usage that others have recorded: it finds in a real Prometheus and in a real registry what
//! a trace file with the same readings says.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use memharvest_end_to_end::mesh::binary;
use memharvest_end_to_end::prometheus::Prometheus;
use memharvest_end_to_end::wait::{free_port, wait_for};
use memharvest_proto::collector::v1::Quality;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::{RecordHarvestRequest, VmRollup};
use serde_json::Value;
use tempfile::TempDir;

const GIB: u64 = 1 << 30;
const DAY: i64 = 86_400;
const WINDOW: i64 = 300;
/// Half way between two ticks of the grid, so that none of the samples lies on its edge.
const OFFSET: i64 = 30;
const SOON: Duration = Duration::from_secs(30);

/// Usage that wanders, and jumps now and then; the same for a machine and a time always.
fn usage(machine: u64, at: i64) -> u64 {
    let tick = at.unsigned_abs() / 60;
    let noise = (tick * 2_654_435_761 + machine * 40_503) % 1009;
    let wave = (tick / 90 + machine * 3) % 16;
    let jump = if (tick / 37 + machine).is_multiple_of(41) { 2 } else { 0 };
    (1 + jump) * GIB + wave * (GIB / 16) + noise * (1 << 16)
}

/// The `memharvest backtest` of a test, in a folder of its own.
struct Backtest(TempDir);

impl Backtest {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("memharvest").unwrap());
        command.arg("backtest").args(args).current_dir(self.0.path()).output().unwrap()
    }

    /// What it tells, without the times that it took.
    fn results(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json", "--target-violation-rate", "0.05,0.01"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        let mut told: Value = serde_json::from_slice(&output.stdout).unwrap();
        told["source"].take();
        for result in told["results"].as_array_mut().unwrap() {
            result["nanoseconds_per_reading"].take();
        }
        told
    }

    fn refusal(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} is taken");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        said
    }

    /// Writes a trace file.
    fn trace(&self, rows: impl Iterator<Item = Row>) {
        let mut csv = "vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes\n".to_owned();
        for Row { machine, at, used, rss } in rows {
            let used = used.map_or_else(String::new, |used| used.to_string());
            writeln!(csv, "{machine},{at},{},{used},{rss}", 8 * GIB).unwrap();
        }
        std::fs::write(self.0.path().join("trace.csv"), csv).unwrap();
    }
}

/// A row of a trace; every machine holds 8 GiB.
struct Row {
    machine: String,
    at: i64,
    used: Option<u64>,
    rss: u64,
}

const FROM: &str = "2026-01-10";
const TO: &str = "2026-01-12";

fn begin() -> i64 {
    "2026-01-10T00:00:00Z".parse::<Timestamp>().unwrap().as_second()
}

/// Samples of four machines, one in a minute for two days: two with all figures, of one name on two hosts; one whose
/// exporter writes zeros for what the guest does not tell; and one of which only the allocation is known.
fn samples() -> String {
    let stats = "libvirt_domain_memory_stats";
    let ticks = || (0..2 * DAY / 60).map(|tick| begin() + tick * 60 + OFFSET);
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: String, labels: &str, at: i64, bytes: u64| {
        writeln!(families.entry(name.clone()).or_default(), "{name}{{{labels}}} {bytes} {at}").unwrap();
    };
    let machines = [("web", "a", true), ("web", "b", true), ("old", "a", false)];
    for (number, (domain, instance, has_driver)) in (0u64..).zip(machines) {
        let labels = format!("domain=\"{domain}\",instance=\"{instance}\",job=\"kvm\"");
        for at in ticks() {
            let used = usage(number, at);
            add(format!("{stats}_actual_balloon_bytes"), &labels, at, 8 * GIB);
            add(format!("{stats}_available_bytes"), &labels, at, if has_driver { 8 * GIB } else { 0 });
            add(format!("{stats}_usable_bytes"), &labels, at, if has_driver { 8 * GIB - used } else { 0 });
            add(format!("{stats}_rss_bytes"), &labels, at, used + GIB);
        }
    }
    for at in ticks() {
        let labels = "domain=\"bare\",instance=\"c\",job=\"kumina\"";
        add("libvirt_domain_info_memory_usage_bytes".to_owned(), labels, at, 8 * GIB);
    }
    let told = families.into_iter().map(|(name, lines)| format!("# TYPE {name} gauge\n{lines}"));
    told.collect::<String>() + "# EOF\n"
}

/// The peaks of those samples, one row at the end of each `step`.
fn peaks(step: i64) -> impl Iterator<Item = Row> {
    // In the order of their names, as they are read: figures that draw machines at random depend on it.
    let machines = [(2, "old", false), (0, "web@a", true), (1, "web@b", true)];
    machines.into_iter().flat_map(move |(number, machine, has_driver)| {
        (1..=2 * DAY / step).filter_map(move |window| {
            let at = begin() + window * step;
            let within = (at - step..at).filter(|at| (at - begin()) % 60 == OFFSET);
            let used = within.map(|at| usage(number, at)).max()?;
            let machine = machine.to_owned();
            Some(Row { machine, at, used: has_driver.then_some(used), rss: used + GIB })
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_gives_what_a_trace_of_its_peaks_gives() {
    let prometheus = Prometheus::with_samples(&samples()).await.unwrap();
    let backtest = Backtest::new();
    let both = ["--signal", "used,rss"];
    let range = ["--prometheus", prometheus.url(), "--from", FROM, "--to", TO];
    backtest.trace(peaks(WINDOW));
    let wanted = backtest.results(&[&["--trace", "trace.csv"], &both[..]].concat());
    assert_eq!(wanted["readings"], 2 * 2 * DAY / WINDOW, "of `used`, two machines");
    assert_eq!(backtest.results(&[&range[..], &both].concat()), wanted);

    // Steps of 10 s are more than the 11,000 that a server answers at once; most of them are empty.
    backtest.trace(peaks(10));
    let fine = backtest.results(&[&range[..], &["--step", "10s", "--exporter", "tinkoff"]].concat());
    assert_eq!(fine, backtest.results(&["--trace", "trace.csv"]));
    assert_eq!(fine["interval_seconds"], 60.0);

    let chosen = backtest.results(&[&range[..], &["--select", "instance=\"b\""]].concat());
    assert_eq!((&chosen["vms"], &chosen["readings"]), (&1.into(), &(2 * DAY / WINDOW).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prometheus_does_not_have_is_told_in_one_line() {
    let prometheus = Prometheus::with_samples(&samples()).await.unwrap();
    let (backtest, url) = (Backtest::new(), prometheus.url());
    let ask = |args: &[&str]| backtest.refusal(&[&["--prometheus", url], args].concat());
    let bare = ask(&["--from", FROM, "--to", TO, "--select", "job=\"kumina\""]);
    assert!(bare.contains("libvirt_domain_info_memory_usage_bytes) but not what they used"), "{bare}");
    let nothing = ask(&["--from", "2020-01-01", "--to", "2020-01-03"]);
    assert!(nothing.contains("no memory metrics") && nothing.contains("--from"), "{nothing}");
    let wrong = ask(&["--from", FROM, "--to", TO, "--select", "job=kvm"]);
    assert!(wrong.contains("refuses: ") && wrong.contains("parse error"), "{wrong}");
    assert!(ask(&["--from", TO, "--to", FROM]).contains("not at least one step before --to"));
    let bare = backtest.refusal(&["--registry", "https://127.0.0.1:7401"]);
    assert!(bare.contains("needs --mesh-ca, --mesh-cert and --mesh-key"), "{bare}");
    let elsewhere = backtest.refusal(&["--prometheus", &format!("{url}/elsewhere")]);
    assert!(elsewhere.contains("does not answer as a prometheus does"), "{elsewhere}");
    let silent = format!("http://127.0.0.1:{}", free_port().unwrap());
    for source in ["--prometheus", "--registry"] {
        let nobody = backtest.refusal(&[source, &silent]);
        assert!(
            nobody.contains("no answer from") && nobody.to_lowercase().contains("connection refused"),
            "{nobody}"
        );
    }
}

/// A registry of its own. It ends when it is dropped.
struct Registry(Child);

impl Registry {
    async fn start(folder: &TempDir) -> (Self, String) {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let child = Command::new(binary("memharvest-registry").unwrap())
            .args(["--listen", &address, "--admin-listen", "127.0.0.1:0", "--database"])
            .arg(folder.path().join("registry.db"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        let registry = Self(child);
        wait_for(SOON, "the registry to listen", || async {
            Ok(HarvestServiceClient::connect(url.clone()).await.map(drop)?)
        })
        .await
        .unwrap();
        (registry, url)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_gives_what_a_trace_of_its_windows_gives() {
    let backtest = Backtest::new();
    let (_registry, url) = Registry::start(&backtest.0).await;
    let empty = backtest.refusal(&["--registry", &url]);
    assert!(empty.contains("no reading in this range"), "{empty}");

    let to = Timestamp::now().as_second().div_euclid(WINDOW) * WINDOW;
    // More than 11,000 windows, which one answer cannot hold.
    let from = to - 40 * DAY;
    let ids = ["0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e01", "0a3c1a66-9f4e-4c3e-8a34-5b1d2c7f9e02"];
    let windows = |number: u64| {
        let vm_id = ids[usize::try_from(number).unwrap()].to_owned();
        (0..(to - from) / WINDOW).map(move |window| {
            let start = from + window * WINDOW;
            let used = usage(number, start);
            VmRollup {
                vm_id: vm_id.clone(),
                vm_name: "any".to_owned(),
                host_id: "host".to_owned(),
                window_start: Some(prost_types::Timestamp { seconds: start, nanos: 0 }),
                window: Some(prost_types::Duration { seconds: WINDOW, nanos: 0 }),
                readings: 60,
                quality: Quality::Live.into(),
                allocated_bytes: Some(8 * GIB),
                rss_max_bytes: Some(used + GIB),
                rss_mean_bytes: Some(used),
                // The second one has no driver.
                demand_max_bytes: (number == 0).then_some(used),
                maximum_bytes: Some(8 * GIB),
                ..VmRollup::default()
            }
        })
    };
    let mut client = HarvestServiceClient::connect(url.clone()).await.unwrap();
    let all: Vec<VmRollup> = (0..2).flat_map(windows).collect();
    for vms in all.chunks(5000) {
        let request = RecordHarvestRequest {
            predictor_id: "test".to_owned(),
            vms: vms.to_vec(),
            ..RecordHarvestRequest::default()
        };
        client.record_harvest(request).await.unwrap();
    }

    backtest.trace(all.iter().map(|window| Row {
        machine: window.vm_id.clone(),
        at: window.window_start.unwrap().seconds + WINDOW,
        used: window.demand_max_bytes,
        rss: window.rss_max_bytes.unwrap(),
    }));
    let wanted = backtest.results(&["--trace", "trace.csv", "--signal", "used,rss"]);
    assert_eq!(wanted["readings"], 40 * DAY / WINDOW);
    let told = backtest.results(&["--registry", &url, "--signal", "used,rss", "--from", "41d"]);
    assert_eq!(told, wanted);
    let short = backtest.results(&["--registry", &url, "--from", "2d"]);
    assert!(short["readings"].as_i64().unwrap() <= 2 * DAY / WINDOW + 1);
}
