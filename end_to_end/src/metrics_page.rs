//! One figure of a metrics page.

use anyhow::{Context, ensure};

use crate::web;

/// The value of the series that begins with `series`, such as `memharvest_queue_depth{queue="outbox"}`, on the page of an
/// admin server.
///
/// # Errors
/// When the page does not answer, or does not have exactly one such series.
pub async fn metric(admin_url: &str, series: &str) -> anyhow::Result<f64> {
    let page = web::get(&format!("{admin_url}/metrics")).await?.text;
    let mut found = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = found.next().with_context(|| format!("{admin_url}/metrics has no {series}"))?;
    ensure!(found.next().is_none(), "{admin_url}/metrics has {series} twice");
    Ok(value.trim().parse()?)
}
