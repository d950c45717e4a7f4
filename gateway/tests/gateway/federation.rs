//! `/federate`, as a Prometheus that scrapes no collectors asks for it.

use std::collections::BTreeSet;

use ::http::Method;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::{Answer, send};
use crate::mesh::Mesh;
use crate::predictor::{host, host_read_at, vm_id};
use crate::prometheus::promtool_is_content;

const GIB: u64 = 1 << 30;

async fn federate(mesh: &Mesh, selectors: &[&str]) -> Answer {
    let pair = |selector: &&str| format!("match[]={}", utf8_percent_encode(selector, NON_ALPHANUMERIC));
    let query: Vec<String> = selectors.iter().map(pair).collect();
    mesh.get(&format!("/federate?{}", query.join("&"))).await
}

/// The samples of a page, without their times.
fn samples(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = answer.text();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn fleet_hosts_and_machines_answer_with_the_time_of_their_reading() {
    let mesh = Mesh::start().await;
    let read_at = Timestamp::now() - SignedDuration::from_secs(2);
    mesh.predictors[0].update(host_read_at("a", 2, read_at));
    mesh.hosts(1).await;
    let answer = federate(&mesh, &["memharvest_host_memory_committed_bytes"]).await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let expected = format!(
        "# HELP memharvest_host_memory_committed_bytes Sum of what the guests hold.\n\
         # TYPE memharvest_host_memory_committed_bytes gauge\n\
         memharvest_host_memory_committed_bytes{{instance=\"\",host=\"a\"}} {} {}\n",
        8 * GIB,
        read_at.as_millisecond()
    );
    assert_eq!(answer.text(), expected);

    let both =
        federate(&mesh, &["memharvest_fleet_vms", r#"{__name__=~"memharvest_vm_harv.*",vm=~".*0"}"#]).await;
    let vm = vm_id("a", 0);
    let harvestable =
        format!("memharvest_vm_harvestable_bytes{{instance=\"\",host=\"a\",vm=\"{vm}\"}} {GIB}");
    assert_eq!(samples(&both), ["memharvest_fleet_vms{instance=\"\"} 2", &harvestable]);

    let page = federate(&mesh, &["{}"]).await;
    for line in [
        "memharvest_host_vms{instance=\"\",host=\"a\",state=\"running\"} 2",
        "memharvest_host_info{instance=\"\",host=\"a\",name=\"name-of-a\"} 1",
        &format!("memharvest_vm_quality{{instance=\"\",host=\"a\",vm=\"{vm}\",class=\"no_period\"}} 1"),
        &format!(
            "memharvest_vm_info{{instance=\"\",host=\"a\",vm=\"{vm}\",name=\"vm-0\",state=\"running\"}} 1"
        ),
    ] {
        assert!(samples(&page).iter().any(|sample| sample == line), "{line} is missing:\n{}", page.text());
    }
    promtool_is_content(&page.text());
    assert_eq!(federate(&mesh, &["up"]).await.text(), "");
}

#[tokio::test]
async fn a_host_that_is_stale_promises_nothing_and_measures_nothing() {
    let mesh = Mesh::start().await;
    mesh.predictors[0].update(host_read_at("a", 1, Timestamp::now() - SignedDuration::from_mins(1)));
    mesh.hosts(1).await;
    let page = samples(&federate(&mesh, &[r#"{host="a"}"#]).await);
    assert!(
        page.contains(&"memharvest_host_memory_harvestable_bytes{instance=\"\",host=\"a\"} 0".to_owned()),
        "{page:?}"
    );
    assert!(
        page.iter().any(|line| line.contains("class=\"no_period\"") || line.contains("class=\"stale\"")),
        "{page:?}"
    );
    for absent in ["_rss_bytes", "_allocated_bytes", "_committed_bytes", "memharvest_host_vms"] {
        assert!(page.iter().all(|line| !line.contains(absent)), "{absent}: {page:?}");
    }
}

#[tokio::test]
async fn a_selector_that_chooses_everything_is_answered_in_parts() {
    let mesh = Mesh::start().await;
    for letter in 'a'..='z' {
        mesh.predictors[0].update(host(&letter.to_string(), 100));
    }
    mesh.until("all machines", "/api/v1/fleet", |answer| answer.json()["vms"] == 2600).await;
    let page = federate(&mesh, &[r#"{__name__=~".+"}"#]).await;
    assert!(page.bytes.len() > 1024 * 1024, "{} bytes", page.bytes.len());
    let all = samples(&page);
    assert_eq!(all.iter().filter(|line| line.starts_with("memharvest_vm_info{")).count(), 2600);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "no series comes twice");
    let packed = [("accept-encoding", "gzip")];
    let url = mesh.url("/federate?match[]=%7B%7D");
    let packed = send(Method::GET, &url, &packed, Vec::new()).await;
    assert_eq!((packed.status.as_u16(), packed.header("content-encoding")), (200, "gzip"));
    assert!(packed.bytes.len() * 5 < page.bytes.len(), "{} bytes", packed.bytes.len());
    // Every metric is in one piece, under one header.
    let text = page.text();
    let (mut headed, mut current) = (BTreeSet::new(), "");
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            current = kind.split(' ').next().unwrap();
            assert!(headed.insert(current), "{current} comes twice");
        } else {
            assert_eq!(line.split(['{', ' ']).next().unwrap(), current);
        }
    }
}

#[tokio::test]
async fn what_is_no_selector_is_refused_by_name() {
    let mesh = Mesh::start().await;
    let error = async |selectors: &[&str]| {
        let problem = federate(&mesh, selectors).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], "match[]", "{problem}");
        problem["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    assert!(error(&["up", "{host=~\"(\"}"]).await.contains("no regular expression"));
    assert!(error(&["{host=~\"(a{500}){500}\"}"]).await.contains("too large"));
    assert!(error(&[&"a".repeat(5000)]).await.contains("longer than"));
    assert!(error(&["up"; 65]).await.contains("1 to 64"));
    assert!(mesh.get("/federate").await.problem(400)["detail"].as_str().unwrap().contains("match[]"));
    mesh.get("/federate?match[]=up&matches=up").await.problem(400);
}
