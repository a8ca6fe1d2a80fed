//! Each step of the line alone, on the parts of a snapshot that was compiled from files.

mod support;

use std::time::Instant;

use criterion::{BatchSize, Criterion};
use doorward::target::RequestTarget;
use doorward::upstream::TraceContext;
use http::request::Parts;

use support::bench::{Rotating, criterion, note};
use support::steps::{Bench, NOWHERE, head};
use support::world::World;

/// As many as a verifier remembers.
const TOKENS: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = criterion();
    let bench = Bench::new(100);
    target(&mut criterion, &bench);
    identity(&mut criterion, &bench);
    rotating(&mut criterion);
    for (routes, policies_a_route) in [(2, 5), (20, 5), (200, 5), (2000, 5), (1000, 10)] {
        let began = Instant::now();
        let bench = Bench::of(World::with(NOWHERE, routes, policies_a_route));
        let title = format!("{} policies, {routes} routes", routes * policies_a_route);
        note(&format!("steps/start, {title}"), began.elapsed());
        authorize(&mut criterion, &bench, &title);
    }
    criterion.final_summary();
}

fn target(criterion: &mut Criterion, bench: &Bench) {
    let parts = head("/service-0/v1/things/17?page=2", "none");
    for routes in [1, 100, 10_000] {
        let router = bench.router(routes);
        criterion.bench_function(&format!("steps/target and route, {routes} routes"), |b| {
            b.iter(|| router.find(RequestTarget::of(&parts).expect("a sound target")).expect("a sound path"));
        });
    }
    criterion.bench_function("steps/trace context", |b| b.iter(|| TraceContext::of(&parts.headers)));
}

fn identity(criterion: &mut Criterion, bench: &Bench) {
    let seen = head("/api/256", &bench.world.authorization());
    let matched = bench.matched(&seen);
    criterion.bench_function("steps/identify, token seen", |b| b.iter(|| bench.principal(&seen, &matched)));
    criterion.bench_function("steps/identify, token new (ES256)", |b| {
        let token = || head("/api/256", &bench.world.authorization());
        b.iter_batched(token, |parts| bench.principal(&parts, &matched), BatchSize::SmallInput);
    });
}

/// Callers that come one after the other, each of whom was here before.
fn rotating(criterion: &mut Criterion) {
    for others in [0, 2 * TOKENS] {
        let bench = Bench::new(100);
        // Of callers that went again.
        heads(&bench, others).iter().for_each(|parts| drop(bench.principal(parts, &bench.matched(parts))));
        let heads = heads(&bench, TOKENS);
        for number in [TOKENS / 10, TOKENS / 2, TOKENS] {
            in_turn(criterion, &bench, &heads[..number], &format!("{number} tokens in turn, after {others} others"));
        }
    }
    let bench = Bench::new(100);
    let heads = heads(&bench, TOKENS);
    let matched = bench.matched(&heads[0]);
    let principals: Vec<_> = heads.iter().map(|parts| bench.principal(parts, &matched)).collect();
    for (name, path) in [("remembered", "/api/256"), ("reading context", "/context/256")] {
        let matched = bench.matched(&head(path, "none"));
        principals.iter().for_each(|principal| drop(bench.grant(principal, &matched)));
        let mut turn = Rotating::over(&principals);
        criterion.bench_function(&format!("steps/authorize, {name}, {TOKENS} callers in turn"), |b| {
            b.iter(|| bench.grant(turn.next(), &matched));
        });
    }
}

fn heads(bench: &Bench, number: usize) -> Vec<Parts> {
    (0..number).map(|_| head("/api/256", &bench.world.authorization())).collect()
}

fn in_turn(criterion: &mut Criterion, bench: &Bench, heads: &[Parts], title: &str) {
    let matched = bench.matched(&heads[0]);
    for _ in 0..2 {
        heads.iter().for_each(|parts| drop(bench.principal(parts, &matched)));
    }
    let mut turn = Rotating::over(heads);
    criterion.bench_function(&format!("steps/identify, {title}"), |b| {
        b.iter(|| bench.principal(turn.next(), &matched));
    });
}

fn authorize(criterion: &mut Criterion, bench: &Bench, title: &str) {
    for (name, path) in [("remembered", "/api/256"), ("reading context", "/context/256")] {
        let parts = head(path, &bench.world.authorization());
        let matched = bench.matched(&parts);
        let principal = bench.principal(&parts, &matched);
        criterion.bench_function(&format!("steps/authorize, {name}, {title}"), |b| {
            b.iter(|| bench.grant(&principal, &matched));
        });
    }
}
