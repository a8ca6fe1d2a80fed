//! What the upstream is shown: an assertion from the cache and a fresh one, and identity headers.

mod support;

use criterion::{BatchSize, Criterion};
use doorward::policy::Grant;

use support::bench::{Rotating, criterion};
use support::steps::Bench;

const CALLERS: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = criterion();
    let bench = Bench::new(100);
    let grants: Vec<Grant> = (0..CALLERS).map(|_| bench.grant_of("/context/256")).collect();
    assertion(&mut criterion, &bench, &grants);
    identity_headers(&mut criterion, &bench, &grants);
    criterion.final_summary();
}

fn assertion(criterion: &mut Criterion, bench: &Bench, grants: &[Grant]) {
    criterion.bench_function("credential/assertion, cached", |b| b.iter(|| bench.issue(&grants[0])));
    criterion.bench_function("credential/assertion, fresh (ES256)", |b| {
        b.iter_batched(|| bench.grant_of("/context/256"), |grant| bench.issue(&grant), BatchSize::SmallInput);
    });
    grants.iter().for_each(|grant| drop(bench.issue(grant)));
    let mut turn = Rotating::over(grants);
    criterion.bench_function(&format!("credential/assertion, cached, {CALLERS} callers in turn"), |b| {
        b.iter(|| bench.issue(turn.next()));
    });
}

fn identity_headers(criterion: &mut Criterion, bench: &Bench, grants: &[Grant]) {
    let identity = bench.served(&grants[0]).plain_identity.as_ref().expect("the route has identity headers");
    let lines = |grant: &Grant| identity.lines(grant).expect("headers");
    criterion.bench_function("credential/identity headers, cached", |b| b.iter(|| lines(&grants[0])));
    criterion.bench_function("credential/identity headers, fresh", |b| {
        b.iter_batched(|| bench.grant_of("/context/256"), |grant| lines(&grant), BatchSize::SmallInput);
    });
    grants.iter().for_each(|grant| drop(lines(grant)));
    let mut turn = Rotating::over(grants);
    criterion.bench_function(&format!("credential/identity headers, cached, {CALLERS} callers in turn"), |b| {
        b.iter(|| lines(turn.next()));
    });
}
