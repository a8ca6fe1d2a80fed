//! Resident memory of a process that has just started, and of TLS connections that made one request and are idle.

use std::time::Duration;

use hyper::body::Bytes;

use crate::support::client::Connection;

use super::bench::Bench;
use super::contender::{self, Target};
use super::site::Placing;
use super::table::{Row, Table};

/// Idle connections, one table each; the second as far as files may be opened.
const FEW: usize = 1_000;
const MANY: usize = 10_000;
/// What a proxy has open besides connections of callers and as many to its upstreams.
const OTHER_FILES: usize = 500;
/// For what a process still does after its start, or after a load. Nothing else depends on it.
const SETTLING: Duration = Duration::from_millis(700);

/// A process of its own for each, which has served nothing.
pub fn measure(bench: &Bench, open_files: u64) -> Vec<Table> {
    let files = usize::try_from(open_files).unwrap_or(usize::MAX);
    let counts = [FEW, (files.saturating_sub(OTHER_FILES) / 2).min(MANY)];
    let title = |count: usize| format!("Memory of an idle TLS connection that made one request, {count} of them");
    let mut idle = table("memory", "Resident memory after the start".to_owned(), "MiB");
    idle.note =
        "Of all its processes, the pages that they share counted in each. It has served nothing yet.".to_owned();
    let [few, many] = counts.map(title);
    let mut few = table("memory-1000", few, "KiB");
    let mut many = table("memory-10000", many, "KiB");
    many.note = format!(
        "Doorward takes {MANY} connections as shipped (`limits.connections`), fewer where it may not open two files for \
         each; here it may open {open_files}."
    );
    for target in bench.contenders() {
        let Some(figures) = one(bench, target, counts) else { continue };
        for (table, figure) in [&mut idle, &mut few, &mut many].into_iter().zip(figures) {
            table.rows.push(Row::of(target, vec![figure]));
        }
    }
    vec![idle, few, many]
}

fn table(name: &'static str, title: String, unit: &'static str) -> Table {
    Table { name, title, unit, rows: Vec::new(), note: String::new() }
}

/// MiB after the start, and KiB a connection of so many, and of so many more.
fn one(bench: &Bench, target: &Target, counts: [usize; 2]) -> Option<[f64; 3]> {
    let contender = contender::all().find(|contender| contender.name == target.name)?;
    let started = (contender.start)(&bench.site, Placing::ALONE)?;
    let process = &started.process;
    std::thread::sleep(SETTLING);
    let idle = process.resident_kib();
    let authorization = bench.site.world.authorization();
    let path = target.path(256);
    let [few, many] = bench.client.block_on(async {
        let mut open = Vec::new();
        let mut figures = [0.0; 2];
        for (figure, count) in figures.iter_mut().zip(counts) {
            while open.len() < count {
                let mut connection = Connection::open(process.address, Some(&bench.tls)).await;
                connection.request(&path, &authorization, Bytes::new()).await;
                open.push(connection);
            }
            tokio::time::sleep(SETTLING).await;
            *figure = process.resident_kib().saturating_sub(idle) as f64 / count as f64;
        }
        figures
    });
    Some([idle as f64 / 1024.0, few, many])
}
