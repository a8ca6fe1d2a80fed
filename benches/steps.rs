//! Each step of the line alone, on the parts of a snapshot that was compiled from files.

mod support;

use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use doorward::audit::{Decision, RequestRecord};
use doorward::policy::Grant;
use doorward::upstream::TraceContext;
use futures_util::FutureExt as _;

use support::bench::criterion;
use support::steps::{Bench, CALLER, head};

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = criterion();
    let bench = Bench::new(100);
    target(&mut criterion, &bench);
    identity(&mut criterion, &bench);
    for policies in [10, 100, 1000] {
        authorize(&mut criterion, &Bench::new(policies), policies);
    }
    credential(&mut criterion, &bench);
    record(&mut criterion, &bench);
    criterion.final_summary();
}

fn target(criterion: &mut Criterion, bench: &Bench) {
    let parts = head("/api/v1/things/17?page=2", &bench.world.authorization());
    criterion.bench_function("steps/target and route", |b| b.iter(|| bench.matched(&parts)));
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

fn authorize(criterion: &mut Criterion, bench: &Bench, policies: usize) {
    for (name, path) in [("remembered", "/api/256"), ("reading context", "/context/256")] {
        let parts = head(path, &bench.world.authorization());
        let matched = bench.matched(&parts);
        let principal = bench.principal(&parts, &matched);
        criterion.bench_function(&format!("steps/authorize, {policies} policies, {name}"), |b| {
            b.iter(|| bench.grant(&principal, &matched));
        });
    }
}

fn credential(criterion: &mut Criterion, bench: &Bench) {
    let grant = bench.grant_of("/context/256");
    let now = bench.clock.now();
    let served = bench.served(&grant);
    let issue = |grant: &Grant| served.credential.issue(grant, now).now_or_never().expect("nothing to wait for");
    criterion.bench_function("steps/assertion, cached", |b| b.iter(|| issue(&grant).expect("a credential")));
    criterion.bench_function("steps/assertion, fresh (ES256)", |b| {
        let grant = || bench.grant_of("/context/256");
        b.iter_batched(grant, |grant| issue(&grant).expect("a credential"), BatchSize::SmallInput);
    });
    let identity = served.plain_identity.as_ref().expect("the route has identity headers");
    criterion.bench_function("steps/identity headers", |b| b.iter(|| identity.lines(&grant).expect("headers")));
}

fn record(criterion: &mut Criterion, bench: &Bench) {
    let grant = bench.grant_of("/api/256");
    let request_id: Arc<str> = "0123456789abcdef0000000001".into();
    criterion.bench_function("steps/audit, begin and drop", |b| {
        b.iter(|| {
            let mut record =
                RequestRecord::new(bench.clock.now(), request_id.clone(), &bench.peer, CALLER, http::Method::GET);
            "/api/256".clone_into(&mut record.path);
            let mut entry = bench.audit.begin(record).expect("losses are counted");
            entry.decision = Decision::Allow;
            entry.principal = Some(grant.principal().clone());
            entry.roles = grant.roles().clone();
            entry.policy_ids = grant.policy_ids().clone();
        });
    });
}
