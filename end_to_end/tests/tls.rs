//! A mesh under mutual TLS with certificates of `memharvest certs`: who is no member, or speaks for another, is refused and
//! audited; the healthy mesh goes on, through new certificates and a new authority.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use memharvest_end_to_end::apart::Apart;
use memharvest_end_to_end::mesh::binary;
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web;
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_mins(1);
const ROLES: [&str; 4] = ["registry", "predictor", "gateway", "collector"];
const EXPIRY: &str = "memharvest_certificate_expiry_timestamp_seconds{purpose=\"mesh\"}";

/// `memharvest certs`, and what it said.
fn certs(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary("memharvest")?).arg("certs").args(args).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// An authority in a folder of its own, and the folders of its members.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        certs(&["init", "--ca-dir", &made.path("ca")]).unwrap();
        made
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.folder(name).display().to_string()
    }

    /// The certificate of a member in the folder `out`.
    fn issue(&self, role: &str, name: &str, out: &str, more: &[&str]) {
        let (ca, out) = (self.path("ca"), self.path(out));
        let args = ["issue", role, name, "--san", "127.0.0.1", "--ca-dir", &ca, "--out", &out];
        certs(&[&args[..], more].concat()).unwrap();
    }

    /// Those of the four processes.
    fn issue_all(&self) {
        for role in ROLES {
            let name = if role == "collector" { "sim-1" } else { role };
            self.issue(role, name, role, &[]);
        }
    }
}

/// A collector that does not belong to the mesh as it says. It ends when this is dropped.
struct Rogue {
    child: Child,
    log: PathBuf,
    _folder: TempDir,
}

impl Rogue {
    /// A collector of `sim-1` at the registry and the predictor of the mesh, with the certificate in this folder.
    fn start(mesh: &Apart, shown: &Path) -> Self {
        Self::start_at(&mesh.url("registry"), &mesh.url("predictor"), shown)
    }

    fn start_at(registry: &str, predictor: &str, shown: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new(binary("memharvest-collector").unwrap())
            .args(["--simulate=1x2", "--interval=1s", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
            .arg(format!("--registry={registry}"))
            .arg(format!("--predictor={predictor}"))
            .args(Apart::mesh_flags(shown))
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log, _folder: folder }
    }

    async fn says(&self, words: &str) {
        wait_for(SOON, &format!("the collector to say `{words}`"), async || {
            let log = std::fs::read_to_string(&self.log)?;
            ensure!(log.contains(words), "{log}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `memharvest certs serve`. It ends when this is dropped.
struct Serving(Child);

impl Serving {
    /// With the authority in this folder; and where it is.
    async fn start(certificates: &Certificates, ca: &str) -> (Self, String) {
        let log = certificates.folder(&format!("{ca}.log"));
        let serve = Command::new(binary("memharvest").unwrap())
            .args(["certs", "serve", "--listen=127.0.0.1:0", "--ca-dir", &certificates.path(ca)])
            .stdout(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let url = wait_for(SOON, "the authority to listen", async || {
            let said = std::fs::read_to_string(&log)?;
            let url = said.split_whitespace().find(|word| word.starts_with("https://"));
            Ok(url.context("no URL")?.to_owned())
        });
        (Self(serve), url.await.unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mesh whose collector speaks for `sim-1`.
async fn start(certificates: &Certificates) -> Apart {
    certificates.issue_all();
    let mut mesh = Apart::new(1.0).unwrap();
    mesh.secure(certificates.0.path());
    mesh.start("registry", &["--heartbeat-interval=200ms"]).await.unwrap();
    mesh.start("predictor", &[]).await.unwrap();
    mesh.start("gateway", &[]).await.unwrap();
    mesh.start("collector", &["--simulate=1x2", "--interval=200ms"]).await.unwrap();
    mesh
}

async fn api(mesh: &Apart, path: &str) -> anyhow::Result<Value> {
    web::get(&format!("{}/api/v1{path}", mesh.url("gateway"))).await?.json()
}

/// Waits until the fleet shows a reading of the healthy host that was taken after now.
async fn goes_on(mesh: &Apart) {
    let now = Timestamp::now();
    wait_for(SOON, "the healthy mesh to go on", async || {
        let hosts = api(mesh, "/hosts").await?;
        let host = &hosts["hosts"][0];
        let read_at: Timestamp = host["read_at"].as_str().with_context(|| hosts.to_string())?.parse()?;
        ensure!(host["host"] == "sim-1" && host["state"] == "live" && read_at > now, "{hosts}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until the audit log tells of a refusal: who, and what is said of it.
async fn audited(mesh: &Apart, who: &str, what: &str, why: &str) {
    wait_for(SOON, &format!("the audit log to tell that {who} was refused"), async || {
        let audit = api(mesh, "/audit?action=access.refuse").await?;
        let told = audit["events"].as_array().context("events")?.iter().any(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            text("author") == who && text("subject").ends_with(what) && text("reason").contains(why)
        });
        ensure!(told, "{audit}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_or_speaks_for_another_is_refused_and_audited() {
    let certificates = Certificates::new();
    let mesh = start(&certificates).await;
    goes_on(&mesh).await;
    let agents = api(&mesh, "/agents").await.unwrap();
    let kinds: Vec<&str> =
        agents["agents"].as_array().unwrap().iter().filter_map(|agent| agent["kind"].as_str()).collect();
    assert!(ROLES.iter().all(|role| kinds.contains(role)), "{agents}");

    // A stranger: certified by somebody else, for the very same host.
    let elsewhere = Certificates::new();
    elsewhere.issue("collector", "sim-1", "stranger", &[]);
    let shown = elsewhere.folder("stranger");
    std::fs::copy(certificates.folder("ca/ca.crt"), shown.join("ca.crt")).unwrap();
    let stranger = Rogue::start(&mesh, &shown);
    audited(&mesh, "a stranger at 127.0.0.1", "handshake", "invalid peer certificate").await;
    stranger.says("the registry does not hear").await;
    // And one who has no certificate at all: a plain request to the mesh's port.
    let plain = mesh.url("registry").replace("https", "http");
    assert!(web::get(&plain).await.is_err());
    audited(&mesh, "a stranger at 127.0.0.1", "handshake", "corrupt message").await;

    // One who was a member until his certificate expired.
    certificates.issue("collector", "sim-1", "late", &["--valid", "1s"]);
    let late = certificates.folder("late");
    wait_for(SOON, "the certificate to expire", async || {
        let written = std::fs::metadata(late.join("tls.crt"))?.modified()?;
        ensure!(written.elapsed()? > Duration::from_millis(2500));
        Ok(())
    })
    .await
    .unwrap();
    let late = Rogue::start(&mesh, &late);
    audited(&mesh, "a stranger at 127.0.0.1", "handshake", "expired").await;

    // A collector that speaks for another host: its own certificate is of `sim-2`, its readings of `sim-1`.
    certificates.issue("collector", "sim-2", "thief", &[]);
    let thief = Rogue::start(&mesh, &certificates.folder("thief"));
    let who = "memharvest://collector/sim-2";
    audited(&mesh, who, "AgentService/RegisterAgent", "does not speak for `sim-1`").await;
    thief.says("no stream to the predictor").await;
    let refused = "memharvest_refused_callers_total{stage=\"call\"}";
    assert!(metric(&mesh.admin_url("predictor"), refused).await.unwrap() >= 1.0);
    // One that calls itself a collector, with the key of a predictor.
    let shown = certificates.folder("predictor");
    let disguised = Rogue::start(&mesh, &shown);
    audited(&mesh, "memharvest://predictor/predictor", "RegisterAgent", "is no collector").await;

    // A server under another name than its certificate's, and one of another role.
    let localhost = mesh.url("registry").replace("127.0.0.1", "localhost");
    let misled = Rogue::start_at(&localhost, &mesh.url("registry"), &certificates.folder("collector"));
    misled.says("not valid for name").await;
    misled.says("memharvest://registry/registry answers, which is no predictor").await;

    // All of them try again and again.
    goes_on(&mesh).await;
    let hosts = api(&mesh, "/hosts").await.unwrap();
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1, "{hosts}");
    assert_eq!(mesh.log("collector").matches("no stream to the predictor").count(), 0);
    drop((stranger, late, thief, disguised, misled));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_are_renewed_under_way() {
    let certificates = Certificates::new();
    let mesh = start(&certificates).await;
    goes_on(&mesh).await;
    let expiry = async |process: &str| metric(&mesh.admin_url(process), EXPIRY).await.unwrap();
    let mut before = Vec::new();
    for role in ROLES {
        before.push(expiry(role).await);
    }
    for role in ROLES {
        let name = if role == "collector" { "sim-1" } else { role };
        certificates.issue(role, name, role, &["--valid", "200days"]);
    }
    for (role, before) in ROLES.into_iter().zip(before) {
        wait_for(SOON, &format!("the {role} to show its new certificate"), async || {
            let now = expiry(role).await;
            ensure!(now > before + 86_400.0, "{now}");
            Ok(())
        })
        .await
        .unwrap();
    }
    goes_on(&mesh).await;
    assert_eq!(mesh.log("collector").matches("no stream to the predictor").count(), 0);

    // What an old authority has certified opens nothing once another has taken its place.
    certificates.issue("collector", "sim-1", "of_old", &[]);
    std::fs::rename(certificates.folder("ca"), certificates.folder("old_ca")).unwrap();
    certs(&["init", "--ca-dir", &certificates.path("ca")]).unwrap();
    certificates.issue_all();
    let of_old = certificates.folder("of_old");
    std::fs::copy(certificates.folder("ca/ca.crt"), of_old.join("ca.crt")).unwrap();
    wait_for(SOON, "the registry to believe the new authority", async || {
        ensure!(mesh.log("registry").matches("was renewed").count() >= 2);
        Ok(())
    })
    .await
    .unwrap();
    let rogue = Rogue::start(&mesh, &of_old);
    rogue.says("the registry does not hear").await;
    audited(&mesh, "a stranger at 127.0.0.1", "handshake", "invalid peer certificate").await;
    goes_on(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_is_shut_out_and_the_host_comes_back() {
    let certificates = Certificates::new();
    let mut mesh = start(&certificates).await;
    goes_on(&mesh).await;

    certs(&["revoke", "collector", "sim-1", "--ca-dir", &certificates.path("ca")]).unwrap();
    for role in ["registry", "predictor"] {
        std::fs::copy(certificates.folder("ca/ca.crt"), certificates.folder(role).join("ca.crt")).unwrap();
    }
    // Its stream ends, although nobody has restarted anything, and it does not come in again.
    wait_for(SOON, "the collector's stream to end", async || {
        ensure!(mesh.log("collector").contains("no stream to the predictor"));
        Ok(())
    })
    .await
    .unwrap();
    audited(&mesh, "a stranger at 127.0.0.1", "handshake", "evoked").await;

    // Certified anew, the host is let in under the same name.
    mesh.kill("collector").unwrap();
    certificates.issue("collector", "sim-1", "collector", &[]);
    mesh.start("collector", &["--simulate=1x2", "--interval=200ms"]).await.unwrap();
    goes_on(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_joins_with_a_ticket_and_renews_by_itself() {
    let certificates = Certificates::new();
    let ca = certificates.path("ca");
    let (serving, url) = Serving::start(&certificates, "ca").await;

    let ticket = certs(&["ticket", "--ca-dir", &ca, "--host", "sim-1", "--ca-url", &url]).unwrap();
    std::fs::write(certificates.folder("ticket"), ticket).unwrap();
    let (ticket, out) = (certificates.path("ticket"), certificates.path("host"));
    certs(&["join", &ticket, "--out", &out]).unwrap();
    let key = std::fs::metadata(certificates.folder("host/tls.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    let again = certs(&["join", &ticket, "--out", &certificates.path("other")]).unwrap_err();
    assert!(again.to_string().contains("used already"), "{again}");
    let first = std::fs::read_to_string(certificates.folder("host/tls.crt")).unwrap();
    // Where it renews, the folder knows.
    certs(&["renew", "--out", &out]).unwrap();
    assert_ne!(first, std::fs::read_to_string(certificates.folder("host/tls.crt")).unwrap());
    // A member that was certified with the authority's URL renews in the same way.
    certificates.issue("gateway", "gateway", "gateway", &["--ca-url", &url]);
    certs(&["renew", "--out", &certificates.path("gateway")]).unwrap();

    // What was revoked cannot be renewed, and says so; another ticket opens again.
    let said = certs(&["revoke", "collector", "sim-1", "--ca-dir", &ca]).unwrap();
    assert!(said.starts_with("revoked 2 certificates"), "the first one and the fresh one: {said}");
    let revoked = certs(&["renew", "--out", &out]).unwrap_err();
    assert!(revoked.to_string().contains("was revoked"), "{revoked}");
    let another = certs(&["ticket", "--ca-dir", &ca, "--host", "sim-1", "--ca-url", &url]).unwrap();
    std::fs::write(certificates.folder("ticket"), another).unwrap();
    certs(&["join", &ticket, "--out", &out]).unwrap();
    let believed = std::fs::read_to_string(certificates.folder("host/ca.crt")).unwrap();
    assert!(believed.contains("X509 CRL"), "the list comes along: {believed}");

    // Whoever shows the certificate of another authority gets nothing.
    let elsewhere = Certificates::new();
    elsewhere.issue("collector", "sim-1", "stranger", &[]);
    std::fs::copy(certificates.folder("ca/ca.crt"), elsewhere.folder("stranger/ca.crt")).unwrap();
    assert!(certs(&["renew", "--ca-url", &url, "--out", &elsewhere.path("stranger")]).is_err());
    drop(serving);

    // The certificate is one of the mesh.
    let mesh = start(&certificates).await;
    goes_on(&mesh).await;
    let mut mesh = mesh;
    mesh.kill("collector").unwrap();
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        std::fs::copy(certificates.folder("host").join(file), certificates.folder("collector").join(file))
            .unwrap();
    }
    mesh.start("collector", &["--simulate=1x2", "--interval=200ms"]).await.unwrap();
    goes_on(&mesh).await;
}

/// As docs/tls.md tells it: members that are renewed learn of the next authority first, then go over to it.
#[tokio::test(flavor = "multi_thread")]
async fn members_go_over_to_another_authority_by_renewal() {
    let certificates = Certificates::new();
    let mesh = start(&certificates).await;
    certs(&["init", "--ca-dir", &certificates.path("next"), "--name", "the next"]).unwrap();
    let file = |name: &str| certificates.folder(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let (old, next) = (read("ca/ca.crt"), read("next/ca.crt"));
    std::fs::write(file("next/ca.crt"), format!("{next}{old}")).unwrap();
    std::fs::write(file("ca/ca.crt"), format!("{old}{next}")).unwrap();
    // A list comes behind both.
    certs(&["revoke", "collector", "gone", "--ca-dir", &certificates.path("ca")]).unwrap();
    assert_eq!(read("ca/ca.crt").matches("BEGIN CERTIFICATE").count(), 2);
    for ca in ["ca", "next"] {
        let (_serving, url) = Serving::start(&certificates, ca).await;
        for role in ROLES {
            certs(&["renew", "--ca-url", &url, "--out", &certificates.path(role)]).unwrap();
        }
        for role in ROLES {
            wait_for(SOON, &format!("the {role} to take it"), async || {
                let taken = mesh.log(role).matches("was renewed").count();
                ensure!(taken >= if ca == "ca" { 1 } else { 2 }, "{taken}");
                Ok(())
            })
            .await
            .unwrap();
        }
        goes_on(&mesh).await;
        std::fs::copy(file("ca/ledger.json"), file("next/ledger.json")).unwrap();
    }
    assert_eq!(mesh.log("collector").matches("no stream to the predictor").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_tls_with_a_gateway() {
    let certificates = Certificates::new();
    let mut mesh = start(&certificates).await;
    mesh.kill("gateway").unwrap();
    let file = |name: &str| certificates.folder("gateway").join(name).display().to_string();
    let (cert, key) = (format!("--tls-cert={}", file("tls.crt")), format!("--tls-key={}", file("tls.key")));
    mesh.start("gateway", &[&cert, &key]).await.unwrap();
    let url = mesh.url("gateway").replace("http", "https");
    let hosts = |more: &[&str]| {
        let mut command = Command::new(binary("memharvest").unwrap());
        command.args(["hosts", "--json", "--url", &url]).args(more).output().unwrap()
    };
    let ca = certificates.path("ca/ca.crt");
    wait_for(SOON, "the host to be told over TLS", async || {
        let output = hosts(&["--ca", &ca]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains("sim-1"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
    .await
    .unwrap();
    let elsewhere = Certificates::new();
    let refused = hosts(&["--ca", &elsewhere.path("ca/ca.crt")]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    // A backtest asks the registry itself, which tells its history to gateways and predictors.
    let backtest = |shown: &str| {
        let mut command = Command::new(binary("memharvest").unwrap());
        command.args(["backtest", "--registry", &mesh.url("registry")]);
        let output = command.args(Apart::mesh_flags(&certificates.folder(shown))).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let young = backtest("gateway");
    assert!(young.contains("has no reading in this range"), "a window takes five minutes: {young}");
    let collector = backtest("collector");
    assert!(collector.contains("a collector may not call"), "{collector}");
}
