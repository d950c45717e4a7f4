//! Pages for people: they need nobody else, and are not read twice.

use ::http::Method;

use crate::http::send;
use crate::mesh::Mesh;

#[tokio::test]
async fn the_pages_need_no_other_host() {
    let mesh = Mesh::start().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/docs/docs.js", "text/javascript"),
        ("/docs/docs.css", "text/css"),
    ] {
        let page = mesh.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").starts_with(kind), "{path}");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        let text = page.text();
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("src=\"//"),
            "{path}"
        );
        for linked in text
            .split("href=\"")
            .chain(text.split("src=\""))
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            if linked.starts_with('/') {
                assert_ne!(mesh.get(linked).await.status, 404, "{linked} of {path}");
            }
        }
    }
}

/// Whether or not somebody has built the dashboard: its addresses are one page, and the page asks for nothing that is not there.
#[tokio::test]
async fn every_address_of_the_dashboard_is_the_same_page() {
    let mesh = Mesh::start().await;
    let first = mesh.get("/").await.text();
    for path in
        ["/hosts", "/hosts/a", "/vms", "/vms/a", "/violations", "/violations/a", "/boundaries", "/sign-in"]
    {
        let page = mesh.get(path).await;
        assert_eq!((page.status.as_u16(), page.text()), (200, first.clone()), "{path}");
        assert_eq!(page.header("cache-control"), "no-cache", "{path}");
    }
    for path in ["/assets/nothing.js", "/assets/..%2Findex.html", "/assets/index.html"] {
        mesh.get(path).await.problem(404);
    }
    for linked in first.split("src=\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()) {
        let script = mesh.get(&format!("/assets/{linked}")).await;
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
        assert!(script.header("cache-control").contains("immutable"), "{linked}");
    }
}

#[tokio::test]
async fn a_page_that_is_known_is_not_sent_again() {
    let mesh = Mesh::start().await;
    let url = mesh.url("/openapi.json");
    let first = mesh.get("/openapi.json").await;
    let known = [("if-none-match", first.header("etag"))];
    let again = send(Method::GET, &url, &known, Vec::new()).await;
    assert_eq!((again.status.as_u16(), again.bytes.len()), (304, 0));
    let other = send(Method::GET, &url, &[("if-none-match", "\"0\"")], Vec::new()).await;
    assert_eq!(other.bytes, first.bytes);

    let packed = send(Method::GET, &url, &[("accept-encoding", "gzip")], Vec::new()).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.bytes.len() * 4 < first.bytes.len(), "{} of {}", packed.bytes.len(), first.bytes.len());
    let head = send(Method::HEAD, &url, &[], Vec::new()).await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    assert_eq!(head.header("content-type"), "application/json");
}

#[tokio::test]
async fn browsers_are_held_back() {
    let mesh = Mesh::start().await;
    for path in ["/api/v1/fleet", "/", "/nowhere", "/metrics"] {
        let answer = mesh.get(path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
    }
    assert_eq!(mesh.get("/api/v1/fleet").await.header("cache-control"), "no-store");
}
