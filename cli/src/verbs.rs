//! The operator's verbs: what the gateway's REST API says, as tables or as its own JSON.

pub(crate) mod agents;
pub(crate) mod backtest;
pub(crate) mod boundaries;
pub(crate) mod doctor;
pub(crate) mod hosts;
pub(crate) mod leases;
pub(crate) mod report;
pub(crate) mod simulate;
pub(crate) mod tokens;
pub(crate) mod violations;
pub(crate) mod vms;

use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Failure;
use crate::client::{ClientError, Gateway};
use crate::table::Table;

/// What every verb needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where questions go.
    pub(crate) gateway: Gateway,
    /// Where answers go.
    pub(crate) out: Output,
}

/// Standard output, as JSON or as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// The API's JSON instead of tables.
    pub(crate) json: bool,
    /// Colours.
    pub(crate) coloured: bool,
}

impl Output {
    /// Colours only for a person at a terminal who has not said no (<https://no-color.org>).
    pub(crate) fn new(json: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { json, coloured: !set("NO_COLOR") && !dumb && std::io::stdout().is_terminal() }
    }

    /// Writes a table, or a sentence in place of an empty one.
    pub(crate) fn table(self, table: &Table, empty: &str) -> Result<(), Failure> {
        if table.is_empty() { print(&format!("{empty}\n")) } else { print(&table.render(self.coloured)) }
    }
}

fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Writes to standard output; that it is closed is told.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

impl Context {
    /// Reads a list to its last page and shows it: as the API's JSON, or through `show`.
    async fn show_list<T: DeserializeOwned>(
        &self,
        path: &str,
        plural: &'static str,
        query: &[(&'static str, String)],
        empty: &str,
        show: impl FnOnce(&[T]) -> Table,
    ) -> Result<(), Failure> {
        let items = self.gateway.list(path, plural, query).await?;
        if self.out.json {
            return print_json(&serde_json::json!({ plural: items, "next_page_token": "" }));
        }
        let items: Vec<T> = self.read_all(path, items)?;
        self.out.table(&show(&items), empty)
    }

    /// Turns the API's JSON into what a verb works with.
    fn read<T: DeserializeOwned>(&self, path: &str, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|error| {
            let url = format!("{}/api/v1{path}", self.gateway.url());
            Failure::Gateway(ClientError::Unexpected {
                url,
                what: format!("something else than expected ({error})"),
            })
        })
    }

    fn read_all<T: DeserializeOwned>(&self, path: &str, values: Vec<Value>) -> Result<Vec<T>, Failure> {
        self.read(path, Value::Array(values))
    }

    /// The time that readings are compared with. A replay runs ahead of the clock on the wall: there it is the newest
    /// reading's.
    async fn mesh_now(&self) -> Result<Timestamp, Failure> {
        let fleet = self.gateway.get("/fleet", &[]).await?.body;
        let newest = fleet.get("read_at").and_then(Value::as_str).and_then(|text| text.parse().ok());
        let now = Timestamp::now();
        Ok(newest.map_or(now, |newest: Timestamp| newest.max(now)))
    }
}

/// Only the filters that were given.
fn query<const N: usize>(filters: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
