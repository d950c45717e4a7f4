//! `openapi.json` is what the handlers say, and every path of it is served.

use std::path::Path;

use memharvest_gateway::rest::openapi_json;
use serde_json::Value;

use crate::mesh::Mesh;

/// Set `UPDATE_OPENAPI=1` to write the file anew.
#[test]
fn the_committed_document_is_that_of_the_handlers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let document = openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == document,
        "openapi.json is not up to date; run this test with UPDATE_OPENAPI=1 and commit it"
    );
}

#[tokio::test]
async fn the_document_is_served_and_complete() {
    let mesh = Mesh::start().await;
    let document = mesh.json("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let expected = [
        ("/api/v1/fleet", "get"),
        ("/api/v1/hosts", "get"),
        ("/api/v1/hosts/{host}", "get delete"),
        ("/api/v1/hosts/{host}/vms", "get"),
        ("/api/v1/hosts/{host}/history", "get"),
        ("/api/v1/hosts/{host}/diagnosis", "get"),
        ("/api/v1/vms", "get"),
        ("/api/v1/vms/{vm}", "get"),
        ("/api/v1/vms/{vm}/explain", "get"),
        ("/api/v1/vms/{vm}/history", "get"),
        ("/api/v1/boundaries", "get"),
        ("/api/v1/boundaries/{scope}", "get put delete"),
        ("/api/v1/boundaries/{scope}/versions", "get"),
        ("/api/v1/boundaries/{scope}/effective", "get"),
        ("/api/v1/boundaries/{scope}/simulate", "post"),
        ("/api/v1/violations", "get"),
        ("/api/v1/violations/{id}", "get"),
        ("/api/v1/violations/{id}/acknowledge", "post"),
        ("/api/v1/violations/{id}/explain", "post"),
        ("/api/v1/leases", "get post"),
        ("/api/v1/leases/{id}", "patch delete"),
        ("/api/v1/agents", "get"),
        ("/api/v1/audit", "get"),
        ("/api/v1/tokens", "get post"),
        ("/api/v1/tokens/{id}", "delete"),
    ];
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), expected.len(), "{:?}", paths.keys());
    for (path, methods) in expected {
        for method in methods.split(' ') {
            let operation = &paths[path][method];
            let mut answers = operation["responses"].as_object().unwrap().values();
            assert!(answers.all(|answer| answer["description"].is_string()), "{method} {path}");
            assert_eq!(
                operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"],
                "#/components/schemas/Problem",
                "{method} {path}"
            );
        }
    }
    references_resolve(&document, &document);
}

/// Every `$ref` of the document names a schema that is there.
fn references_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(document["components"]["schemas"].get(name).is_some(), "{reference}");
            }
            fields.values().for_each(|field| references_resolve(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| references_resolve(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_front_page_names_the_interface_and_probes_answer() {
    let mesh = Mesh::start().await;
    let page = mesh.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    // Of the dashboard and of what stands in its place alike.
    assert!(page.text().contains("href=\"/docs\""));
    assert_eq!(mesh.get("/livez").await.text(), "live\n");
    assert_eq!(mesh.json("/readyz").await["ready"], true);
}
