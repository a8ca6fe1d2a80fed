//! Works at a fixed rate: how long answers take, and what one worker and two use for the same.

use std::rc::Rc;
use std::time::Duration;

use crate::support::process::BOTH_CORES;

use super::bench::Bench;
use super::contender::{self, DOORWARD, NGINX, Target};
use super::load::{self, LOADS, Load};
use super::rounds::{Slice, interleaved};
use super::site::Placing;
use super::table::{Row, Table};

/// Requests a second at which latency is measured.
const CALM: usize = 1_000;
/// Requests a second that one worker and two are offered.
const OFFERED: usize = 4_000;
const SHARES: [(f64, &str, &str); 3] =
    [(0.5, "latency-p50", "p50"), (0.99, "latency-p99", "p99"), (0.999, "latency-p999", "p99.9")];

/// Median, p99 and p99.9 at 1,000 requests a second.
pub fn latency(bench: &Bench) -> Vec<Table> {
    let targets = bench.contenders();
    let authorization = bench.site.world.authorization();
    let measured = interleaved(targets.len(), bench.effort.rounds, |position| {
        let one = |target: &&Target| load::latencies(bench, target, &authorization, bench.effort.latency, CALM);
        Latencies(targets.get(position).map(one).unwrap_or_default())
    });
    let table = |(share, name, title): &(f64, &'static str, &str)| {
        let rows = targets
            .iter()
            .zip(&measured)
            .map(|(target, rounds)| Row::of(target, rounds.iter().map(|latencies| latencies.micros(*share)).collect()));
        Table {
            name,
            title: format!("HTTP/1.1, 256 bytes, {CALM} requests a second, {title} of the time to the answer"),
            unit: "µs",
            rows: rows.collect(),
            note: String::new(),
        }
    };
    SHARES.iter().map(table).collect()
}

/// All of a round.
struct Latencies(Vec<Duration>);

impl std::ops::AddAssign for Latencies {
    fn add_assign(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Latencies {
    fn micros(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let position = (sorted.len().saturating_sub(1)) as f64 * share;
        sorted.get(position as usize).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }
}

/// CPU time of a request with one worker and with two, Doorward and nginx, at the same rate.
pub fn workers(bench: &Bench) -> Table {
    let mut sides = Vec::new();
    for contender in contender::all().filter(|contender| [DOORWARD, NGINX].contains(&contender.name)) {
        for workers in [1, 2] {
            let Some(started) = (contender.start)(&bench.site, Placing { workers, cores: BOTH_CORES }) else {
                continue;
            };
            let target = Target {
                name: contender.name,
                checks: contender.checks,
                is_checking: contender.is_checking(),
                place: "api",
                started: Rc::new(started),
            };
            let name =
                if workers == 1 { target.name.to_owned() } else { format!("{}, {workers} workers", target.name) };
            sides.push((name, target));
        }
    }
    let authorization = bench.site.world.authorization();
    let [small, ..] = &LOADS;
    let measured = interleaved(sides.len(), bench.effort.rounds, |position| {
        let one = |(_, target): &(String, Target)| paced(bench, small, target, &authorization);
        sides.get(position).map(one).unwrap_or_default()
    });
    let rows = sides.iter().zip(&measured);
    let rows = rows.map(|((name, target), slices)| Row { name: name.clone(), ..Row::of_slices(target, slices) });
    Table {
        name: "workers",
        title: format!("HTTP/1.1, 256 bytes, {OFFERED} requests a second, one worker and two"),
        unit: "CPU µs a request",
        rows: rows.collect(),
        note: "All of them may use both cores, and share one of them with h2load and the upstream.".to_owned(),
    }
}

fn paced(bench: &Bench, load: &Load, target: &Target, authorization: &str) -> Slice {
    load::slice(bench, load, target, authorization, bench.effort.slice, Some(OFFERED))
}
