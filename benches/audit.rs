//! A record from the request that fills it to the file that holds it, and the wait of a strict audit.

mod support;

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use doorward::audit::{Audit, Destination, FileSettings, OtherEvent, WhenFull, Writer, WriterSettings};
use doorward::policy::Grant;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::runtime::Runtime;

use support::bench::criterion;
use support::steps::Bench;

/// Records at a time, at most: they fill some megabytes.
const BURST: u64 = 20_000;
/// Beside those that are measured: they fill the first batch and the last.
const BESIDE: u64 = 2_000;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = criterion();
    let bench = Bench::new(100);
    let grant = bench.grant_of("/api/256");
    begin_and_drop(&mut criterion, &bench, &grant);
    line(&mut criterion, &runtime, &bench, &grant);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (writer, audit) = started(to_file(directory.path()));
    file(&mut criterion, &runtime, &bench, &grant, &audit);
    strict(&mut criterion, &runtime, &bench, &grant, &audit);
    runtime.block_on(writer.finish(Duration::from_secs(10))).expect("every record is written");
    criterion.final_summary();
}

fn started(destination: Destination) -> (Writer, Audit) {
    let settings = WriterSettings { destination, queue: 1_000_000, when_full: WhenFull::Count };
    Writer::start(settings).expect("a writer")
}

fn to_file(directory: &Path) -> Destination {
    let path = directory.join("audit.jsonl");
    Destination::File(FileSettings { path, rotate_bytes: 100 << 20, keep: 1 })
}

/// What the request's own thread does.
fn begin_and_drop(criterion: &mut Criterion, bench: &Bench, grant: &Grant) {
    let (_writer, audit) = started(Destination::Callback(Box::new(|_| Ok(()))));
    criterion.bench_function("audit/begin and drop", |b| b.iter(|| bench.record(&audit, grant)));
}

/// What the writer does for each record but for writing it: from the queue into the buffer that is used again.
fn line(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench, grant: &Grant) {
    criterion.bench_function("audit/a line", |b| {
        b.iter_custom(|records| in_bursts(records, |burst| lines(burst, runtime, bench, grant)));
    });
}

/// Time for that many lines. The writer stands still until all records are in its queue. Then it fills one batch after the
/// other, and the last, which it would wait with for more, is left out.
fn lines(records: u64, runtime: &Runtime, bench: &Bench, grant: &Grant) -> Duration {
    let (entered, entrance) = mpsc::channel();
    let (exit, exited) = mpsc::channel::<()>();
    let (writer, audit) = started(Destination::Callback(Box::new(move |lines| {
        let written = (Instant::now(), lines.bytes().filter(|byte| *byte == b'\n').count());
        let _told = entered.send(written);
        let _closed = exited.recv();
        let _told = entered.send((Instant::now(), 0));
        Ok(())
    })));
    bench.record(&audit, grant);
    let first = entrance.recv().expect("the writer writes");
    assert_eq!(first.1, 1);
    (0..records + BESIDE).for_each(|_| bench.record(&audit, grant));
    drop(exit);
    runtime.block_on(writer.finish(Duration::from_secs(10))).expect("every record is written");
    // Of each batch when it began to be written, and when that was done.
    let moments: Vec<(Instant, usize)> = entrance.iter().collect();
    let batches = moments.windows(2).step_by(2).filter_map(|pair| match pair {
        [(left, _), (entered, lines)] => Some((entered.duration_since(*left), *lines)),
        _ => None,
    });
    let batches: Vec<_> = batches.collect();
    let full = &batches[..batches.len() - 1];
    let (took, lines) = full.iter().fold((Duration::ZERO, 0), |sum, batch| (sum.0 + batch.0, sum.1 + batch.1));
    took.mul_f64(records as f64 / lines as f64)
}

/// Records through queue and writer until all of them are the operating system's.
fn file(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench, grant: &Grant, audit: &Audit) {
    let mut group = criterion.benchmark_group("audit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("to a file, a record", |b| {
        b.iter_custom(|records| {
            in_bursts(records, |burst| {
                let began = Instant::now();
                (0..burst).for_each(|_| bench.record(audit, grant));
                runtime.block_on(audit.emit_written(granted(bench, grant))).expect("it is written");
                began.elapsed()
            })
        });
    });
    group.finish();
}

/// How long a request waits for its own line, alone and among others.
fn strict(criterion: &mut Criterion, runtime: &Runtime, bench: &Bench, grant: &Grant, audit: &Audit) {
    for at_once in [1, 32] {
        criterion.bench_function(&format!("audit/strict, wait of {at_once} at once"), |b| {
            b.to_async(runtime).iter(|| async {
                let waits = join_all((0..at_once).map(|_| audit.emit_written(granted(bench, grant)))).await;
                waits.into_iter().for_each(|wait| wait.expect("it is written"));
            });
        });
    }
}

/// What a strict audit writes before a request goes upstream.
fn granted(bench: &Bench, grant: &Grant) -> OtherEvent {
    let fields = vec![
        ("roles", grant.roles().iter().map(|held| Value::from(&*held.role)).collect()),
        ("route", (&*grant.route().name).into()),
        ("environment", (&*grant.route().environment).into()),
        ("method", "GET".into()),
        ("host", "localhost".into()),
        ("path", "/api/256".into()),
        ("policy_ids", grant.policy_ids().iter().map(|id| Value::from(&**id)).collect()),
        ("snapshot", (&*bench.snapshot.hash).into()),
        ("credential", "0123456789abcdef0000000001".into()),
        ("upstream", "api".into()),
    ];
    let request_id = Some("0123456789abcdef0000000001".into());
    let principal = Some(grant.principal().clone());
    OtherEvent { at: bench.clock.now(), name: "request.granted", request_id, principal, fields }
}

fn in_bursts(records: u64, mut burst: impl FnMut(u64) -> Duration) -> Duration {
    let whole = (0..records / BURST).map(|_| burst(BURST)).sum::<Duration>();
    let rest = records % BURST;
    if rest == 0 { whole } else { whole + burst(rest) }
}
