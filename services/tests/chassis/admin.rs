use std::net::SocketAddr;
use std::sync::Arc;

use memharvest_services::admin_server::AdminServer;
use memharvest_services::listener;
use memharvest_services::metrics::Metrics;
use memharvest_services::page_writer::MetricType;
use memharvest_services::readiness::Readiness;
use memharvest_services::shutdown::Stop;

use crate::support::{SERVICE, get};

#[tokio::test(flavor = "multi_thread")]
async fn tells_life_readiness_and_metrics() {
    let (metrics, readiness, stop) = (Metrics::new(&SERVICE).unwrap(), Readiness::default(), Stop::new());
    let store = readiness.part("store");
    let queue = metrics.queue("outbox");
    queue.set_depth(7);
    queue.dropped(2);
    let bound = listener::bind("--admin-listen", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.address;
    let admin = AdminServer::new(&metrics, &readiness, &stop)
        .page(Arc::new(|page| {
            page.header("memharvest_vm_harvestable_bytes", "Memory to harvest.", MetricType::Gauge);
            page.sample(&[("vm", "1")], 1_u64 << 40);
        }))
        .spawn(bound);

    assert_eq!(get(address, "/livez").0, 200);
    let (status, answer) = get(address, "/readyz");
    assert_eq!(status, 503);
    assert!(answer.ends_with(r#"{"ready":false,"waiting_for":["store"]}"#), "{answer}");
    store.ready();
    assert_eq!(get(address, "/readyz").0, 200);

    let (status, page) = get(address, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "content-type: text/plain; version=0.0.4",
        "memharvest_build_info{service=\"test\",version=\"1.2.3\"} 1",
        "memharvest_queue_depth{queue=\"outbox\"} 7",
        "memharvest_queue_dropped_total{queue=\"outbox\"} 2",
        "process_resident_memory_bytes",
        "memharvest_vm_harvestable_bytes{vm=\"1\"} 1099511627776",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }

    stop.request();
    let (status, answer) = get(address, "/readyz");
    assert!(status == 503 && answer.contains("draining"), "{answer}");
    assert_eq!(get(address, "/livez").0, 200);
    drop(admin);
    stop.drain(crate::support::PATIENCE).await.unwrap();
}
