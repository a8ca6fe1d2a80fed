//! What Doorward has to be beside the others. Said in the report; nothing fails by it.

use std::fmt::Write as _;

use super::contender::{DOORWARD, DOORWARD_LARGE, ENVOY, ENVOY_CACHED, ENVOY_JWT, HAPROXY_JWT, NGINX};
use super::table::Table;

struct Bar {
    says: &'static str,
    /// The table's name.
    table: &'static str,
    row: &'static str,
    /// Whose figure it is a multiple of; the figure itself where nobody's.
    of: Option<&'static str>,
    most: f64,
}

const fn ratio(says: &'static str, table: &'static str, of: &'static str, most: f64) -> Bar {
    Bar { says, table, row: DOORWARD, of: Some(of), most }
}

const fn figure(says: &'static str, table: &'static str, most: f64) -> Bar {
    Bar { says, table, row: DOORWARD, of: None, most }
}

const BARS: [Bar; 20] = [
    ratio("HTTP/1.1, warm token", "h1", NGINX, 1.15),
    ratio("HTTP/1.1, warm token", "h1", ENVOY_CACHED, 0.35),
    ratio("HTTP/1.1, warm token", "h1", HAPROXY_JWT, 0.25),
    Bar { row: DOORWARD_LARGE, ..ratio("10,000 policies on 1,000 routes", "h1", DOORWARD, 1.1) },
    ratio("HTTP/2, warm token", "h2", NGINX, 1.1),
    ratio("new token of a new caller", "cold", ENVOY_JWT, 0.5),
    ratio("new token of a new caller", "cold", HAPROXY_JWT, 0.85),
    ratio("new token of one caller", "cold-one", ENVOY_JWT, 0.5),
    ratio("new token of one caller", "cold-one", HAPROXY_JWT, 0.85),
    ratio("1 MiB down", "down", NGINX, 0.8),
    ratio("1 MiB up", "up", NGINX, 0.95),
    ratio("full handshake", "full", NGINX, 0.65),
    ratio("full handshake", "full", ENVOY, 0.95),
    ratio("resumed handshake", "resumed", NGINX, 0.65),
    ratio("resumed handshake", "resumed", ENVOY, 0.95),
    ratio("p99 at 1,000 requests a second", "latency-p99", NGINX, 1.0),
    figure("MiB of an idle process", "memory", 30.0),
    figure("KiB of an idle connection, 1,000 of them", "memory-1000", 32.0),
    figure("KiB of an idle connection, up to 10,000 of them", "memory-10000", 32.0),
    Bar { row: "doorward, 2 workers", ..ratio("two workers against one", "workers", DOORWARD, 1.1) },
];

/// A table of those whose work was done, in Markdown.
pub fn shown(tables: &[Table]) -> String {
    let mut text = String::from("| work | bar | measured | |\n|---|---|---|---|\n");
    for bar in &BARS {
        let Some(table) = tables.iter().find(|table| table.name == bar.table) else { continue };
        let measured = bar.of.map_or_else(|| table.spread(bar.row), |of| table.ratio(bar.row, of));
        let wanted = bar.of.map_or(format!("≤ {}", bar.most), |of| format!("≤ {} × {of}", bar.most));
        let (figure, verdict) = match measured {
            Some(spread) if spread.median <= bar.most => (spread.to_string(), "met"),
            Some(spread) => (spread.to_string(), "**not met**"),
            None => ("–".to_owned(), "absent"),
        };
        writeln!(text, "| {} | {wanted} | {figure} | {verdict} |", bar.says).expect("writing to a string succeeds");
    }
    text
}
