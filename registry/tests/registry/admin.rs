//! The process itself: its metrics, and its ports.

use memharvest_registry::settings::RegistrySettings;
use memharvest_services::shutdown::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::records::{T0, batch_of, vm_window};
use crate::server::{TestRegistry, database, eventually, settings};

async fn http_get(address: &str, path: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_admin_port_tells_that_it_is_ready_and_what_it_stores() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &["--heartbeat-interval", "50ms"]).await;
    registry.harvest().record_harvest(batch_of(vec![vm_window(1, T0), vm_window(2, T0)])).await.unwrap();
    assert!(http_get(&registry.admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    let page = eventually("the machines on the page", async || {
        let page = http_get(&registry.admin, "/metrics").await;
        page.contains("\nmemharvest_registry_vms_known 2\n").then_some(page)
    })
    .await;
    assert!(page.contains("memharvest_registry_records_stored_total{kind=\"vm_rollup\"} 2\n"), "{page}");
    assert!(page.contains("memharvest_build_info{service=\"registry\""));
    assert!(page.contains("memharvest_rpc_server_requests_total{"));
    assert!(!page.contains("memharvest_agents"), "that series is at home elsewhere");
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_says_that_its_port_is_taken() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let address = registry.grpc.clone();
    let (_other_folder, other) = database();
    let settings = RegistrySettings { listen: address.parse().unwrap(), ..settings(&other, &[]) };
    let error = memharvest_registry::start(settings, Stop::new()).await.err().unwrap();
    let expected =
        format!("cannot listen on {address}: address in use; stop the other process or pass --listen");
    assert_eq!(error.to_string(), expected);
    assert!(!other.exists(), "the database was not touched");
    registry.stop().await;
}
