//! Metrics that the processes tell of themselves.

use anyhow::Context;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::web;

/// The metrics page of a process.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn page(mesh: &Mesh, process: &str) -> anyhow::Result<String> {
    Ok(web::get(&format!("{}/metrics", mesh.admin_url(process)?)).await?.text)
}

/// The value of a series, named with its labels as the page writes them.
///
/// # Errors
/// When the page has no such series.
pub(crate) fn value(page: &str, series: &str) -> anyhow::Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no series {series}"))?.parse()?)
}
