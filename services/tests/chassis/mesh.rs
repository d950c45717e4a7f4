//! Who is let into the mesh: certificates on both sides, roles, and files that change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use memharvest_proto::DESCRIPTORS;
use memharvest_proto::collector::v1::WatchReadingsRequest;
use memharvest_proto::collector::v1::collector_service_client::CollectorServiceClient;
use memharvest_services::caller::Refusal;
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, EndpointError, RpcChannel, connect_lazy};
use memharvest_services::rpc_server::Limits;
use memharvest_services::tls::identity::Role;
use memharvest_services::tls::{MeshSettings, MeshTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::support::{PATIENCE, SERVICE, TestServer, ask, eventually};

/// An authority of a test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes what a member needs; `names` are its names, URIs included. It expired in 1980 where `holds` is not.
    fn certify(&self, folder: &Path, names: &[&str], holds: bool) {
        let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if !holds {
            params.not_after = rcgen::date_time_ymd(1980, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("ca.crt"), &self.pem).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    }

    fn member(&self, folder: &Path, names: &[&str]) -> MeshTls {
        self.certify(folder, names, true);
        load(folder)
    }

    /// Itself, and a list that revokes this certificate.
    fn revoking(&self, pem: &[u8]) -> String {
        let own = CertificateDer::from_pem_slice(pem).unwrap();
        let (_, own) = X509Certificate::from_der(&own).unwrap();
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            // Past: a list is believed for as long as it is the newest.
            next_update: rcgen::date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(own.raw_serial()),
                revocation_time: rcgen::date_time_ymd(2026, 1, 1),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.pem.clone() + &list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn load(folder: &Path) -> MeshTls {
    settings(folder).read().unwrap().unwrap()
}

fn settings(folder: &Path) -> MeshSettings {
    let file = |name: &str| -> Option<PathBuf> { Some(folder.join(name)) };
    MeshSettings { mesh_ca: file("ca.crt"), mesh_cert: file("tls.crt"), mesh_key: file("tls.key") }
}

/// A collector's server, and what it tells of callers that it refuses.
struct Secured {
    authority: Authority,
    folder: TempDir,
    server: TestServer,
    refused: mpsc::Receiver<Refusal>,
}

const SERVER: [&str; 2] = ["127.0.0.1", "memharvest://collector/h1"];
const GATEWAY: [&str; 1] = ["memharvest://gateway/g"];

impl Secured {
    fn start() -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let tls = authority.member(&folder.path().join("server"), &SERVER);
        let (tell, refused) = mpsc::channel(16);
        let server = TestServer::start_with(Limits::default(), PATIENCE, |server| {
            server.mesh(Some(&tls)).tell_refusals(tell)
        });
        tls.server().keep_fresh(&server.metrics, &server.stop);
        Self { authority, folder, server, refused }
    }

    fn client(&self, tls: &MeshTls) -> CollectorServiceClient<RpcChannel> {
        self.client_of(tls, "127.0.0.1", Role::Collector)
    }

    fn client_of(&self, tls: &MeshTls, host: &str, role: Role) -> CollectorServiceClient<RpcChannel> {
        let options = ClientOptions::new(&self.server.metrics, DESCRIPTORS).unwrap().mesh(Some(tls)).to(role);
        let url = format!("https://{host}:{}", self.server.address.port());
        CollectorServiceClient::new(connect_lazy(&url, &options).unwrap())
    }

    fn member(&self, names: &[&str]) -> MeshTls {
        self.authority.member(&self.folder.path().join("client"), names)
    }

    async fn next_refusal(&mut self) -> Refusal {
        tokio::time::timeout(PATIENCE, self.refused.recv()).await.expect("somebody is refused").unwrap()
    }
}

#[tokio::test]
async fn a_member_makes_the_calls_of_its_role_and_no_others() {
    let mut mesh = Secured::start();
    let gateway = mesh.member(&GATEWAY);
    let reading = mesh.client(&gateway).get_reading(ask("h1")).await.unwrap().into_inner().reading.unwrap();
    assert_eq!(reading.host_id, "h1");

    let collector = mesh.member(&["memharvest://collector/h2"]);
    let status = mesh.client(&collector).get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{}", status.message());
    let told = mesh.next_refusal().await;
    assert_eq!(told.who, "memharvest://collector/h2");
    assert_eq!(told.what, "/memharvest.collector.v1.CollectorService/GetReading");
    assert!(mesh.server.page().contains("memharvest_refused_callers_total{stage=\"call\"} 1"));
    // Health is for every member.
    let options = ClientOptions::new(&mesh.server.metrics, DESCRIPTORS).unwrap().mesh(Some(&collector));
    let channel = connect_lazy(&format!("https://{}", mesh.server.address), &options).unwrap();
    assert!(HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok());

    // A certificate of the right authority that says nobody's name.
    mesh.authority.certify(&mesh.folder.path().join("nobody"), &["somewhere.example"], true);
    let error = settings(&mesh.folder.path().join("nobody")).read().unwrap_err().to_string();
    assert!(error.contains("has no memharvest://ROLE/NAME"), "{error}");
}

#[tokio::test]
async fn strangers_and_the_expired_are_refused_before_they_can_call() {
    let mut mesh = Secured::start();
    let stranger = Authority::new();
    let foreign = mesh.folder.path().join("foreign");
    stranger.certify(&foreign, &GATEWAY, true);
    // It would believe the server.
    std::fs::write(foreign.join("ca.crt"), &mesh.authority.pem).unwrap();
    let status = mesh.client(&load(&foreign)).get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    let told = mesh.next_refusal().await;
    assert_eq!((told.who.as_str(), told.what.as_str()), ("a stranger at 127.0.0.1", "handshake"));
    assert!(told.why.contains("invalid peer certificate"), "{}", told.why);

    let late = mesh.folder.path().join("late");
    mesh.authority.certify(&late, &GATEWAY, false);
    let status = mesh.client(&load(&late)).get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    let told = mesh.next_refusal().await;
    assert!(told.why.contains("expired"), "{}", told.why);

    // Somebody who speaks no TLS at all.
    let plain = ClientOptions::new(&mesh.server.metrics, DESCRIPTORS).unwrap();
    let channel = connect_lazy(&format!("http://{}", mesh.server.address), &plain).unwrap();
    assert!(CollectorServiceClient::new(channel).get_reading(ask("h1")).await.is_err());
    assert_eq!(mesh.next_refusal().await.what, "handshake");
    assert!(mesh.server.page().contains("memharvest_refused_callers_total{stage=\"handshake\"}"));
}

#[tokio::test]
async fn a_client_believes_the_right_name_and_the_right_role_alone() {
    let mesh = Secured::start();
    let gateway = mesh.member(&GATEWAY);
    let status =
        mesh.client_of(&gateway, "localhost", Role::Collector).get_reading(ask("h1")).await.unwrap_err();
    assert!(status.message().contains("not valid for name"), "{}", status.message());
    let status =
        mesh.client_of(&gateway, "127.0.0.1", Role::Registry).get_reading(ask("h1")).await.unwrap_err();
    assert!(
        status.message().contains("memharvest://collector/h1 answers, which is no registry"),
        "{}",
        status.message()
    );
    let other = Authority::new().member(&mesh.folder.path().join("other"), &GATEWAY);
    let status = mesh.client(&other).get_reading(ask("h1")).await.unwrap_err();
    assert!(status.message().contains("invalid peer certificate"), "{}", status.message());
}

#[tokio::test]
async fn new_files_serve_new_connections_and_old_ones_stay() {
    let mesh = Secured::start();
    let gateway = mesh.member(&GATEWAY);
    let mut stream =
        mesh.client(&gateway).watch_readings(WatchReadingsRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());

    // Another authority takes over: whom the old one has certified comes in no more.
    let next = Authority::new();
    next.certify(&mesh.folder.path().join("server"), &SERVER, true);
    let heir = next.member(&mesh.folder.path().join("heir"), &GATEWAY);
    let (deadline, pause) = (tokio::time::Instant::now() + PATIENCE, Duration::from_millis(50));
    while mesh.client(&heir).get_reading(ask("h1")).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate is never shown");
        tokio::time::sleep(pause).await;
    }
    assert!(mesh.client(&gateway).get_reading(ask("h1")).await.is_err());
    let unended = tokio::time::timeout(pause, stream.message()).await;
    assert!(unended.is_err(), "the stream goes on: {unended:?}");

    // Files that do not fit each other are passed over.
    std::fs::write(mesh.folder.path().join("server/tls.key"), "nonsense").unwrap();
    let expiry = "memharvest_certificate_expiry_timestamp_seconds{purpose=\"mesh\"}";
    eventually(expiry, || mesh.server.page().contains(expiry)).await;
    assert!(mesh.client(&heir).get_reading(ask("h1")).await.is_ok());
}

/// A stream may be of years, the certificate that opened it is not.
#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_opened_it() {
    let mesh = Secured::start();
    let folder = mesh.folder.path().join("brief");
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(GATEWAY[0].try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3);
    let key = KeyPair::generate().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), &mesh.authority.pem).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), params.signed_by(&key, &mesh.authority.issuer).unwrap().pem())
        .unwrap();
    let mut client = mesh.client(&load(&folder));
    let mut stream = client.watch_readings(WatchReadingsRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ended = tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream ends");
    assert!(ended.is_err(), "{ended:?}");
    assert!(client.get_reading(ask("h1")).await.is_err());
}

/// What the authority has revoked opens nothing, and what it had opened is closed; all others go on.
#[tokio::test]
async fn a_revoked_certificate_opens_nothing_and_its_streams_end() {
    let mut mesh = Secured::start();
    let folder = |name: &str| mesh.folder.path().join(name);
    let (stolen, kept) =
        (mesh.authority.member(&folder("stolen"), &GATEWAY), mesh.member(&["memharvest://gateway/other"]));
    let watch = async |tls: &MeshTls| {
        let mut client = mesh.client(tls);
        let mut stream = client.watch_readings(WatchReadingsRequest::default()).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        stream
    };
    let (mut of_thief, mut of_other) = (watch(&stolen).await, watch(&kept).await);

    let revoking =
        |name: &str| mesh.authority.revoking(&std::fs::read(folder(name).join("tls.crt")).unwrap());
    std::fs::write(folder("server/ca.crt"), revoking("stolen")).unwrap();
    let ended = tokio::time::timeout(PATIENCE, of_thief.message()).await.expect("the stream ends");
    assert!(ended.is_err(), "{ended:?}");
    let status = mesh.client(&stolen).get_reading(ask("h1")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    assert!(mesh.client(&kept).get_reading(ask("h1")).await.is_ok());
    assert!(tokio::time::timeout(Duration::from_millis(50), of_other.message()).await.is_err(), "it goes on");

    // Nor does a client speak to a server whose certificate was revoked.
    std::fs::write(folder("client/ca.crt"), revoking("server")).unwrap();
    let status = mesh.client(&load(&folder("client"))).get_reading(ask("h1")).await.unwrap_err();
    assert!(status.message().to_lowercase().contains("revoked"), "{}", status.message());
    // A list that cannot be read is not one that says nothing.
    let unreadable = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    std::fs::write(folder("client/ca.crt"), mesh.authority.pem.clone() + unreadable).unwrap();
    assert!(settings(&folder("client")).read().is_err());

    let told = mesh.next_refusal().await;
    assert!(told.why.to_lowercase().contains("revoked"), "{}", told.why);
}

#[tokio::test]
async fn schemes_and_settings_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Authority::new().member(folder.path(), &GATEWAY);
    let plain = ClientOptions::new(&Metrics::new(&SERVICE).unwrap(), DESCRIPTORS).unwrap();
    let (url, https) = ("http://127.0.0.1:7401".to_owned(), "https://127.0.0.1:7401".to_owned());
    assert_eq!(connect_lazy(&https, &plain).unwrap_err(), EndpointError::NoCertificate(https.clone()));
    let secured = plain.mesh(Some(&tls));
    assert_eq!(connect_lazy(&url, &secured).unwrap_err(), EndpointError::Plain(url.clone()));
    assert!(connect_lazy(&https, &secured).is_ok());

    let mine = "memharvest://gateway/g";
    assert!(tls.check_agent(Role::Gateway, "g-1").is_ok());
    for (role, agent) in [(Role::Gateway, "h"), (Role::Collector, "g")] {
        assert!(tls.check_agent(role, agent).unwrap_err().to_string().contains(mine));
    }

    let (set, unset) = (settings(folder.path()), MeshSettings::default());
    assert!(set.check_url("--registry", &https).is_ok() && unset.check_url("--registry", &url).is_ok());
    assert!(set.check_url("--registry", &url).unwrap_err().to_string().contains("https://"));
    assert!(unset.check_url("--registry", &https).unwrap_err().to_string().contains("--mesh-ca"));
    let half = MeshSettings { mesh_key: None, ..set.clone() };
    assert!(half.read().unwrap_err().to_string().contains("belong together"));
    std::fs::write(folder.path().join("ca.crt"), "nonsense").unwrap();
    assert!(set.read().unwrap_err().to_string().contains("holds no certificate in PEM"));
}
