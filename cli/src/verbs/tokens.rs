//! `memharvest tokens`.

use serde_json::Value;

use super::Context;
use crate::Failure;
use crate::format::ABSENT;
use crate::table::Table;

/// Shows who may use the gateway; never the secrets themselves.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    context.show_list("/tokens", "tokens", &[], "no tokens", table).await
}

fn table(tokens: &[Value]) -> Table {
    let mut table = Table::new(&["TOKEN", "NAME", "ROLE", "CREATED", "EXPIRES"]);
    for token in tokens {
        let text = |name: &str| token.get(name).and_then(Value::as_str).unwrap_or(ABSENT);
        let cells = ["id", "name", "role", "created_at", "expires_at"].map(|name| text(name).into());
        table.row(cells.to_vec());
    }
    table
}
