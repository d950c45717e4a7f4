//! A comparison as a page that needs nothing besides itself.

use super::chart::escaped;
use crate::table::Table;

const STYLE: &str = "<style>:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:78em;padding:0 1em}\
    table{border-collapse:collapse;margin:1em 0 2em}th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #8884}\
    th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto}div{overflow-x:auto}</style>";

/// A page of a heading, the curves, and tables with their titles.
pub(super) fn page(heading: &str, svg: &str, tables: &[(String, Table)]) -> String {
    let tables: String = tables.iter().map(|(title, table)| section(title, table)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>memharvest backtest</title>\n{STYLE}\n<h1>memharvest backtest</h1>\n<p>{}</p>\n<div>{svg}</div>\n{tables}</html>\n",
        escaped(heading.trim())
    )
}

fn section(title: &str, table: &Table) -> String {
    let row = |tag: &str, cells: Vec<&str>| {
        let cells: Vec<String> =
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let head = row("th", table.titles().collect());
    let body: String = table
        .rows()
        .iter()
        .map(|cells| row("td", cells.iter().map(|cell| cell.text.as_str()).collect()))
        .collect();
    format!(
        "<h2>{}</h2>\n<div><table>\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n",
        escaped(title)
    )
}
