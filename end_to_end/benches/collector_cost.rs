//! What the collector costs on a host with many real guests, beside a bare loop of its one call to libvirt.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::real_host::RealHost;
use memharvest_end_to_end::tools;
use memharvest_end_to_end::wait::wait_for;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::report::{Row, table};
use crate::spread::Spread;
use crate::{say, usage};

const GUESTS: u32 = 100;
const ROUNDS: usize = 3;
const INTERVAL: Duration = Duration::from_secs(2);
const TICKS: u32 = 40;
/// Before a window begins: connections are made, definitions read, caches warm.
const WARM_UP: Duration = Duration::from_secs(10);

const LOOP_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bulk_loop.c");

/// Processor time a tick, in milliseconds.
struct Cost {
    own: f64,
    libvirtd: f64,
}

/// A round of the collector.
struct Round {
    cost: Cost,
    resident: f64,
    peak: f64,
}

/// Measures, and hands out its part of the report.
///
/// # Errors
/// When the host does not come up, or one of the programs fails or passes over a tick.
pub(crate) async fn run() -> anyhow::Result<String> {
    say(&format!("starting {GUESTS} paused guests"));
    let host = RealHost::start().await?;
    let versions = versions(&host).await?;
    for number in 0..GUESTS {
        host.guest(&format!("paused-{number}")).paused().start().await?;
    }
    let libvirtd = daemon(&host)?;
    let folder = tempfile::tempdir()?;
    let program = compile(folder.path())?;
    let (mut bare, mut collector) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let cost = bulk_loop(&program, &host.uri(), libvirtd).await?;
        say(&format!(
            "round {round}: the bare loop {:.2} ms, libvirtd {:.2} ms a tick",
            cost.own, cost.libvirtd
        ));
        bare.push(cost);
        let found = one_collector(&host.uri(), libvirtd).await?;
        let cost = &found.cost;
        say(&format!(
            "round {round}: the collector {:.2} ms, libvirtd {:.2} ms a tick",
            cost.own, cost.libvirtd
        ));
        collector.push(found);
    }
    Ok(report(&bare, &collector, &versions))
}

async fn bulk_loop(program: &Path, uri: &str, libvirtd: Pid) -> anyhow::Result<Cost> {
    let mut child = tokio::process::Command::new(program)
        .arg(uri)
        .arg(INTERVAL.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let domains = lines.next_line().await?.context("the bare loop failed")?;
    ensure!(domains == GUESTS.to_string(), "the bare loop sees {domains} domains instead of {GUESTS}");
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it has ended")?;
    tokio::time::sleep(WARM_UP).await;
    let cost = cost_of(pid, libvirtd).await?;
    child.kill().await?;
    Ok(cost)
}

async fn one_collector(uri: &str, libvirtd: Pid) -> anyhow::Result<Round> {
    let interval = format!("{}ms", INTERVAL.as_millis());
    let mut mesh = Mesh::up(&["--libvirt-uri", uri, "--interval", &interval]).await?;
    wait_for(Duration::from_mins(1), "all guests at the gateway", async || {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["vms"] == GUESTS, "{fleet}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(WARM_UP).await;
    let pid = mesh.pid("collector")?;
    let before = missed(&mesh).await?;
    let cost = cost_of(pid, libvirtd).await?;
    let missed = missed(&mesh).await? - before;
    ensure!(missed == 0.0, "the collector missed {missed} of {TICKS} ticks: is the machine too busy?");
    let round = Round {
        cost,
        resident: mebibytes(usage::memory(pid, "VmRSS")?),
        peak: mebibytes(usage::memory(pid, "VmHWM")?),
    };
    mesh.signal("up", Signal::TERM)?;
    mesh.wait_until_ended(Duration::from_secs(30)).await?;
    Ok(round)
}

/// Ticks since its start that gave no reading.
async fn missed(mesh: &Mesh) -> anyhow::Result<f64> {
    let url = mesh.admin_url("collector")?;
    ensure!(metric(&url, "memharvest_collector_predictor_up").await? > 0.0, "the predictor is away");
    Ok(metric(&url, "memharvest_collector_ticks_skipped_total").await?
        + metric(&url, "memharvest_collector_samples_total{outcome=\"failed\"}").await?)
}

async fn cost_of(pid: Pid, libvirtd: Pid) -> anyhow::Result<Cost> {
    let spent = usage::spent_within(INTERVAL * TICKS, &[pid, libvirtd]).await?;
    let [own, libvirtd] = [0, 1].map(|place: usize| spent[place].as_secs_f64() * 1000.0 / f64::from(TICKS));
    Ok(Cost { own, libvirtd })
}

/// What was measured on: libvirt, and the first line of QEMU's own words.
async fn versions(host: &RealHost) -> anyhow::Result<String> {
    let libvirt = host.virsh(&["--version"]).await?;
    let qemu = Command::new(tools::host_root()?.join("qemu")).arg("--version").output()?;
    let qemu = String::from_utf8(qemu.stdout)?;
    Ok(format!("libvirt {}, {}", libvirt.trim(), qemu.lines().next().context("QEMU tells no version")?))
}

fn daemon(host: &RealHost) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(host.folder().join("libvirtd.pid"))?;
    Pid::from_raw(text.trim().parse()?).context("process id 0")
}

/// Compiles the bare loop against the library that the collector is linked to.
fn compile(folder: &Path) -> anyhow::Result<PathBuf> {
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libvirt"]).output()?;
    ensure!(flags.status.success(), "pkg-config does not find libvirt: run `setup/install bench`");
    let flags = String::from_utf8(flags.stdout)?;
    let program = folder.join("bulk_loop");
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", LOOP_SOURCE, "-o"])
        .arg(&program)
        .args(flags.split_whitespace())
        .status()?;
    ensure!(compiled.success(), "cc does not compile {LOOP_SOURCE}");
    Ok(program)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of processes are far below 2^52 bytes")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn report(bare: &[Cost], collector: &[Round], versions: &str) -> String {
    let spread =
        |figure: fn(&Round) -> f64, digits, unit| Spread::new(collector.iter().map(figure), digits, unit);
    let against = |figure: fn(&Cost) -> f64| {
        Spread::new(collector.iter().zip(bare).map(|(round, bare)| figure(&round.cost) / figure(bare)), 2, "")
    };
    let (ratio, daemon_ratio) = (against(|cost| cost.own), against(|cost| cost.libvirtd));
    let peak = spread(|round| round.peak, 1, " MiB");
    let milliseconds = |figure: fn(&Cost) -> f64| Spread::new(bare.iter().map(figure), 2, " ms").to_string();
    let rows = [
        Row::plain("bare C loop, processor time a tick", milliseconds(|cost| cost.own)),
        Row::plain("collector, processor time a tick", spread(|round| round.cost.own, 2, " ms").to_string()),
        Row::aimed("collector ÷ bare C loop", ratio.to_string(), "at most 2.5", ratio.median() <= 2.5),
        Row::plain("libvirtd under the bare C loop, a tick", milliseconds(|cost| cost.libvirtd)),
        Row::plain(
            "libvirtd under the collector, a tick",
            spread(|round| round.cost.libvirtd, 2, " ms").to_string(),
        ),
        Row::aimed(
            "libvirtd under the collector ÷ under the loop",
            daemon_ratio.to_string(),
            "at most 1.05",
            daemon_ratio.median() <= 1.05,
        ),
        Row::plain("collector, resident memory", spread(|round| round.resident, 1, " MiB").to_string()),
        Row::aimed(
            "collector, peak of resident memory",
            peak.to_string(),
            "at most 30 MiB",
            peak.greatest() <= 30.0,
        ),
    ];
    let mut text = format!("## A collector on {GUESTS} real guests\n\n");
    let _ = writeln!(
        text,
        "{GUESTS} paused QEMU guests on a libvirtd of their own; the collector runs in a whole mesh and reports to its \
         predictor. It and the bare loop sample every {INTERVAL:?}, {TICKS} ticks a round, in turn, in {ROUNDS} rounds.\n"
    );
    text += &table(&rows);
    let _ = writeln!(text, "\nMeasured with {versions}.");
    text
}
