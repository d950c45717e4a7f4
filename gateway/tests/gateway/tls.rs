//! TLS on the port, and a certificate that is replaced while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use memharvest_gateway::Settings;
use memharvest_services::settings::Settings as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::mesh::Mesh;

/// Writes a certificate for localhost and its key.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
    cert.der().clone()
}

/// `GET` over TLS by somebody who trusts this certificate alone.
async fn get(mesh: &Mesh, trusted: &CertificateDer<'static>, path: &str) -> Result<String, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(mesh.gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_certificate_is_replaced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let flag = |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
    let mesh = Mesh::over_tls(&[&flag("tls-cert", "tls.crt"), &flag("tls-key", "tls.key")]).await;
    assert!(get(&mesh, &first, "/livez").await.unwrap().ends_with("live\n"));

    // A certificate without its key is passed over.
    std::fs::write(folder.path().join("tls.key"), "nonsense").unwrap();
    let second = certify(folder.path());
    let renewed = async {
        while get(&mesh, &second, "/livez").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("the new certificate is shown");
    assert!(get(&mesh, &first, "/livez").await.is_err());

    std::fs::write(folder.path().join("tls.crt"), "nonsense").unwrap();
    let settings = |flags: &[&str]| {
        Settings::parse_from(["gateway"].iter().chain(flags)).validate().map_err(|error| error.to_string())
    };
    let (cert, key) = (flag("tls-cert", "tls.crt"), flag("tls-key", "tls.key"));
    assert!(settings(&[&cert, &key]).unwrap_err().contains("holds no certificate in PEM"));
    certify(folder.path());
    assert!(settings(&[&cert, &key]).is_ok());
    assert!(settings(&[&cert, &key, "--auth-tokens", "--listen=0.0.0.0:8080"]).is_ok());
    for open in [
        &[&*cert, &*key, "--listen=0.0.0.0:8080"][..],
        &["--auth-tokens", "--listen=0.0.0.0:8080"],
        &["--listen=[::]:8080"],
    ] {
        assert!(settings(open).unwrap_err().contains("without TLS and authentication"), "{open:?}");
    }
    assert!(settings(&["--listen=0.0.0.0:8080", "--insecure"]).is_ok());
    assert!(settings(&["--oidc-issuer=https://id.example.org"]).unwrap_err().contains("--oidc-audience"));
}
