//! The report: every production and every outcome with its count.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use super::journal::Journal;
use super::ledger::Sums;

/// Writes past the capture of tests, so that every run shows its seed.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(io::stderr(), "{text}");
}

/// The tables of a run.
pub(crate) fn tables(journal: &Journal, sums: &Sums, key_fetches: u64, took: Duration) -> String {
    let mut text = String::new();
    let mut last = "";
    for ((table, name), count) in journal.counts() {
        if table != last {
            writeln!(text, "\n{table}").unwrap();
            last = table;
        }
        writeln!(text, "{count:>10}  {name}").unwrap();
    }
    writeln!(text, "\nsums, in {} s", took.as_secs()).unwrap();
    for (name, count) in [
        ("connections", sums.connections),
        ("requests sent whole", sums.sent_whole),
        ("requests sent in part", sums.sent_partial),
        ("answers to requests", sums.answers),
        ("records of requests", sums.records),
        ("records whose client hung up or broke off", sums.records_without_answer),
        ("requests behind the end of their connection", sums.never_read),
        ("anomalies", sums.anomalies),
        ("arrived at the upstream", sums.arrived),
        ("arrived whole", sums.forwarded),
        ("fetches of the issuer's keys", key_fetches),
    ] {
        writeln!(text, "{count:>10}  {name}").unwrap();
    }
    text
}
