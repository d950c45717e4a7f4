//! The committed OpenAPI document, and the interface that it describes: schemathesis makes requests of all kinds out of it and
//! looks for answers that it does not allow.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::ensure;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::tools::python_program;
use memharvest_end_to_end::wait::wait_for;

/// Operations that no predictor answers yet.
const NOT_YET: &str = "/simulate$";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn the_document_is_what_the_standard_allows() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("gateway/openapi.json");
    let output = python_program("openapi-spec-validator").unwrap().arg(document).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_answer_that_the_document_does_not_allow() {
    let mesh = Mesh::up(&["--simulate", "2x5", "--seed", "1", "--speed", "60"]).await.unwrap();
    wait_for(Duration::from_mins(1), "forecasts and something in the ledger", async || {
        let violations = mesh.get("/violations").await?;
        ensure!(violations["violations"].as_array().is_some_and(|all| !all.is_empty()), "{violations}");
        Ok(())
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut schemathesis = tokio::process::Command::from(python_program("schemathesis").unwrap());
    let output = schemathesis
        .args(["run", &format!("{}/openapi.json", mesh.url("gateway").unwrap())])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance,negative_data_rejection"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"])
        .args(["--exclude-path-regex", NOT_YET, "--generation-database", "none", "--no-color"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
