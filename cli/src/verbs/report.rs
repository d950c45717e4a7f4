//! `memharvest report`: what the fleet holds, what can be harvested, and how well the promises held.

mod line;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Context, print, query};
use crate::Failure;
use crate::api::{Fleet, Host, Violation};
use crate::format::{ABSENT, bytes, percent};
use crate::table::{Table, Tone};
use line::{Line, Tally};

/// What every host and the fleet hold, use and yield, and how well forecasts and promises held
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Form of the report
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Count the violations that opened within this time; open ones always count
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "24h")]
    window: std::time::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Html,
}

/// The whole report.
#[derive(Debug, Serialize)]
struct Report {
    /// The newest reading.
    at: Timestamp,
    /// From when on violations are counted.
    violations_since: Timestamp,
    fleet: Line,
    hosts: Vec<Line>,
}

/// Shows the report.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &ReportArgs) -> Result<(), Failure> {
    let report = gather(context, args.window).await?;
    let text = match if context.out.json { Format::Json } else { args.format } {
        Format::Table => report.table().render(context.out.coloured),
        Format::Csv => csv(&report.table_of_numbers()),
        Format::Html => report.html(),
        Format::Json => {
            let json = serde_json::to_string_pretty(&report);
            json.map_err(|error| Failure::Output(error.into()))? + "\n"
        }
    };
    print(&text)
}

async fn gather(context: &Context, window: std::time::Duration) -> Result<Report, Failure> {
    let gateway = &context.gateway;
    let fleet: Fleet = context.read("/fleet", gateway.get("/fleet", &[]).await?.body)?;
    let hosts: Vec<Host> = context.read_all("/hosts", gateway.list("/hosts", "hosts", &[]).await?)?;
    let at = fleet.read_at.map_or_else(Timestamp::now, |newest| newest.max(Timestamp::now()));
    let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
    let since = at.saturating_sub(window).unwrap_or(Timestamp::MIN);

    let mut tally = Tally::default();
    for (name, value) in [("since", since.to_string()), ("state", "open".to_owned())] {
        let found = gateway.list("/violations", "violations", &query([(name, Some(value))])).await?;
        let violations: Vec<Violation> = context.read_all("/violations", found)?;
        for violation in &violations {
            match name {
                "since" => tally.opened(violation),
                _ => tally.still_open(violation),
            }
        }
    }
    Ok(Report {
        at,
        violations_since: since,
        fleet: Line::of_fleet(&fleet, &tally),
        hosts: hosts.iter().map(|host| Line::of_host(host, &tally)).collect(),
    })
}

impl Report {
    fn lines(&self) -> impl Iterator<Item = (&str, &Line)> {
        let hosts = self.hosts.iter().map(|line| (line.host.as_deref().unwrap_or(ABSENT), line));
        hosts.chain([("fleet", &self.fleet)])
    }

    /// For people.
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "HOST",
            ">VMS",
            ">ALLOCATED",
            ">USED",
            ">HARVESTABLE",
            ">RECLAIMABLE",
            ">PROMISED",
            ">HELD",
            ">JUDGED",
            ">OPEN",
            ">FORECAST",
            ">PROMISE",
            ">BOUNDARY",
        ]);
        for (name, line) in self.lines() {
            let short = matches!((line.held_coverage, line.promised_coverage), (Some(held), Some(wanted)) if held < wanted);
            let tone = if short { Tone::Warn } else { Tone::Plain };
            let violations = &line.violations;
            table.row(vec![
                name.into(),
                line.vms.map_or(ABSENT.to_owned(), |vms| vms.to_string()).into(),
                bytes(line.allocated_bytes).into(),
                bytes(line.used_bytes).into(),
                bytes(line.harvestable_bytes).into(),
                bytes(line.reclaimable_bytes).into(),
                percent(line.promised_coverage, 2).into(),
                crate::table::Cell::toned(percent(line.held_coverage, 2), tone),
                line.forecasts_judged.to_string().into(),
                violations.open.to_string().into(),
                violations.forecast.to_string().into(),
                violations.promise.to_string().into(),
                violations.boundary.to_string().into(),
            ]);
        }
        table
    }

    /// For programs: plain numbers, empty where nothing is known.
    fn table_of_numbers(&self) -> Table {
        let mut table = Table::new(&[
            "host",
            "vms",
            "allocated_bytes",
            "used_bytes",
            "predicted_bytes",
            "harvestable_bytes",
            "reclaimable_bytes",
            "promised_coverage",
            "held_coverage",
            "forecasts_judged",
            "violations_open",
            "forecast_violations",
            "promise_violations",
            "boundary_violations",
        ]);
        let whole = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let share = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
        for (name, line) in self.lines() {
            let violations = &line.violations;
            let numbers = [
                whole(line.vms),
                whole(line.allocated_bytes),
                whole(line.used_bytes),
                whole(line.predicted_bytes),
                whole(line.harvestable_bytes),
                whole(line.reclaimable_bytes),
                share(line.promised_coverage),
                share(line.held_coverage),
                line.forecasts_judged.to_string(),
                violations.open.to_string(),
                violations.forecast.to_string(),
                violations.promise.to_string(),
                violations.boundary.to_string(),
            ];
            table.row([name.to_owned()].into_iter().chain(numbers).map(Into::into).collect());
        }
        table
    }

    fn html(&self) -> String {
        let table = self.table();
        let row = |tag: &str, cells: Vec<&str>| {
            let cells: Vec<String> =
                cells.into_iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            format!("<tr>{}</tr>\n", cells.concat())
        };
        let head = row("th", table.titles().collect());
        let body: String = table
            .rows()
            .iter()
            .map(|cells| row("td", cells.iter().map(|cell| cell.text.as_str()).collect()))
            .collect();
        let (at, since) = (self.at, self.violations_since);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>memharvest report</title>\n{STYLE}\n\
             <h1>memharvest report</h1>\n<p>As of {at}; violations that opened since {since}, and all that are open.</p>\n\
             <table>\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table>\n</html>\n"
        )
    }
}

const STYLE: &str = "<style>body{font:14px system-ui,sans-serif;margin:2em}table{border-collapse:collapse}\
    th,td{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child\
    {text-align:left}tbody tr:last-child{font-weight:bold}</style>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// By RFC 4180.
fn csv(table: &Table) -> String {
    let quoted = |cell: &str| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_owned()
        }
    };
    let titles: Vec<String> = table.titles().map(str::to_owned).collect();
    let rows = table.rows().iter().map(|row| row.iter().map(|cell| quoted(&cell.text)).collect());
    std::iter::once(titles).chain(rows).map(|row| row.join(",") + "\r\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let fleet: Fleet = serde_json::from_value(json!({"hosts": 1, "vms": 3, "allocated_bytes": 3_u64 << 30,
            "coverage_by_forecast": [{"signal": "rss", "target_violation_rate": 0.01, "judged": 200, "held": 196}]}))
        .unwrap();
        let host: Host =
            serde_json::from_value(json!({"host": "a,<b>", "name": null, "state": null, "vms_running": 3,
            "allocated_bytes": 3_u64 << 30, "rss_bytes": null, "coverage": []}))
            .unwrap();
        let violation: Violation =
            serde_json::from_value(json!({"id": "v", "host": "a,<b>", "kind": "promise", "state": "open"}))
                .unwrap();
        let mut tally = Tally::default();
        tally.opened(&violation);
        tally.still_open(&violation);
        Report {
            at: "2026-01-02T00:00:00Z".parse().unwrap(),
            violations_since: "2026-01-01T00:00:00Z".parse().unwrap(),
            fleet: Line::of_fleet(&fleet, &tally),
            hosts: vec![Line::of_host(&host, &tally)],
        }
    }

    #[test]
    fn the_table_tells_what_was_promised_beside_what_held() {
        let shown = report().table().render(false);
        let fleet = shown.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(fleet, "fleet 3 3.0 GiB - - - 99.00 % 98.00 % 200 1 0 1 0");
    }

    #[test]
    fn csv_leaves_empty_what_is_not_known_and_quotes_names() {
        let text = csv(&report().table_of_numbers());
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[1], "\"a,<b>\",3,3221225472,,,,,,,0,1,0,1,0");
        assert_eq!(lines[2], "fleet,3,3221225472,,,,,0.990000,0.980000,200,1,0,1,0");
    }

    #[test]
    fn html_escapes_names() {
        let page = report().html();
        assert!(page.contains("<td>a,&lt;b&gt;</td>") && !page.contains("<b>"), "{page}");
    }

    #[test]
    fn json_has_null_where_nothing_is_known() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["hosts"][0]["used_bytes"], json!(null));
        assert_eq!(json["fleet"]["violations"]["promise"], json!(1));
    }
}
