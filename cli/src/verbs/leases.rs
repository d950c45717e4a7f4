//! `memharvest leases`.

use serde_json::Value;

use super::Context;
use crate::Failure;
use crate::format::{ABSENT, bytes, relative};
use crate::table::Table;

/// Shows the leases on harvested memory.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    context.show_list("/leases", "leases", &[], "no leases", table).await
}

fn table(leases: &[Value]) -> Table {
    // Leases run on the wall's clock, in a replay too.
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["LEASE", "HOST", "CONSUMER", ">BYTES", "STATE", "HOLDER", "EXPIRES"]);
    for lease in leases {
        let text = |name: &str| lease.get(name).and_then(Value::as_str).unwrap_or(ABSENT);
        table.row(vec![
            text("id").into(),
            text("host").into(),
            text("consumer_vm").into(),
            bytes(lease.get("bytes").and_then(Value::as_u64)).into(),
            text("state").into(),
            text("holder").into(),
            relative(text("expires_at").parse().ok(), now).into(),
        ]);
    }
    table
}
