//! The steps that are counted, each in the world that shows it.

use std::hint::black_box;
use std::sync::mpsc;
use std::time::Duration;

use doorward::audit::{Destination, WhenFull, Writer, WriterSettings};
use doorward::body;
use doorward::peer::{Downstream, Scheme};
use doorward::policy::Grant;
use doorward::target::RequestTarget;
use doorward::upstream::{Forward, TraceContext};
use http::HeaderValue;
use tokio::runtime::{Builder, Runtime};

use crate::support::steps::{Bench, CALLER, NOWHERE, head};
use crate::support::world::World;

/// One step that is counted.
pub(crate) struct Step {
    /// As the table and the filter know it.
    pub(crate) name: &'static str,
    /// How often it is done while it is counted.
    pub(crate) runs: u32,
    /// What is counted, until it returns. A name of the product's own stands behind no public function.
    pub(crate) function: &'static str,
    /// How the names of functions end whose instructions do not count, for they are the crypto library's: how it hashes and
    /// signs depends on the processor, and would be most of the sum.
    pub(crate) without: &'static [&'static str],
    /// Prepares everything and does the step so many times.
    pub(crate) run: fn(u32),
}

const fn step(name: &'static str, run: fn(u32)) -> Step {
    Step { name, runs: 500, function: "instructions::steps::counted", without: &[], run }
}

impl Step {
    const fn within(self, function: &'static str) -> Self {
        Self { function, ..self }
    }

    const fn without(self, without: &'static [&'static str]) -> Self {
        Self { without, ..self }
    }
}

pub(crate) const STEPS: &[Step] = &[
    step("target and route, 20 routes", |runs| target(runs, 20)),
    step("target and route, 10,000 routes", |runs| target(runs, 10_000)),
    step("trace context, new", |runs| trace(runs, None)),
    step("trace context, continued", |runs| {
        trace(runs, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
    }),
    step("identify, token seen, without SHA-256", identify_seen).without(&["_SHA256_Update", "_SHA256_Final"]),
    step("identify, token new, without ES256", identify_new).without(&["_EVP_DigestVerify"]),
    step("authorize, remembered, 100 policies", |runs| authorize(runs, 20, "/api/256")),
    step("authorize, remembered, 500 policies", |runs| authorize(runs, 100, "/api/256")),
    step("authorize, reading context, 100 policies", |runs| authorize(runs, 20, "/context/256")),
    step("authorize, reading context, 500 policies", |runs| authorize(runs, 100, "/context/256")),
    step("assertion, cached", assertion_cached),
    step("assertion, fresh, without ES256", assertion_fresh).without(&["_EVP_DigestSign"]),
    step("identity headers", identity_headers),
    step("audit, begin and drop", audit_begin_and_drop),
    step("audit, a line", audit_line).within("doorward::audit::writer::Work::take"),
    step("upstream request", upstream_request).within("doorward::upstream::prepare"),
];

/// The only place where counting is on.
#[inline(never)]
fn counted(runs: u32, once: &mut dyn FnMut()) {
    for _ in 0..runs {
        once();
    }
}

/// Once beforehand: whatever is made by the first does not count.
fn repeat(runs: u32, mut once: impl FnMut()) {
    once();
    counted(runs, &mut once);
}

/// Its work is done on a thread of its own, which is not counted.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn target(runs: u32, routes: usize) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let router = bench.router(routes);
    let parts = head("/service-17/v1/things/17?page=2", "none");
    repeat(runs, || {
        let target = RequestTarget::of(&parts).expect("a sound target");
        black_box(router.find(target).expect("a sound path").expect("a route"));
    });
}

fn trace(runs: u32, parent: Option<&str>) {
    let mut parts = head("/api/256", "none");
    if let Some(parent) = parent {
        parts.headers.insert("traceparent", HeaderValue::from_str(parent).expect("a value"));
    }
    repeat(runs, || {
        black_box(TraceContext::of(&parts.headers));
    });
}

fn identify_seen(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let parts = head("/api/256", &bench.world.authorization());
    let matched = bench.matched(&parts);
    repeat(runs, || {
        black_box(bench.principal(&parts, &matched));
    });
}

fn identify_new(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let heads: Vec<_> = (0..=runs).map(|_| head("/api/256", &bench.world.authorization())).collect();
    let matched = bench.matched(&heads[0]);
    let mut next = heads.iter();
    repeat(runs, || {
        black_box(bench.principal(next.next().expect("a head for each run"), &matched));
    });
}

fn authorize(runs: u32, routes: usize, path: &str) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::of(World::with(NOWHERE, routes, 5));
    let parts = head(path, &bench.world.authorization());
    let matched = bench.matched(&parts);
    let principal = bench.principal(&parts, &matched);
    repeat(runs, || {
        black_box(bench.grant(&principal, &matched));
    });
}

fn assertion_cached(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let grant = bench.grant_of("/api/256");
    repeat(runs, || {
        black_box(bench.issue(&grant));
    });
}

fn assertion_fresh(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let grants: Vec<Grant> = (0..=runs).map(|_| bench.grant_of("/api/256")).collect();
    let mut next = grants.iter();
    repeat(runs, || {
        black_box(bench.issue(next.next().expect("a grant for each run")));
    });
}

fn identity_headers(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let grant = bench.grant_of("/context/256");
    let identity = bench.served(&grant).plain_identity.as_ref().expect("the route has identity headers");
    repeat(runs, || {
        black_box(identity.lines(&grant).expect("headers"));
    });
}

fn audit_begin_and_drop(runs: u32) {
    audit(runs, &|runs, once| repeat(runs, once));
}

fn audit_line(runs: u32) {
    audit(runs, &|runs, once| (0..runs).for_each(|_| once()));
}

/// Has `repeat` hand over records. Their writer stands still meanwhile, as its pace would have it on a faster machine:
/// else chance would say how often it is woken.
fn audit(runs: u32, repeat: &dyn Fn(u32, &mut dyn FnMut())) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let grant = bench.grant_of("/api/256");
    let (entered, entrance) = mpsc::channel();
    let (exit, exited) = mpsc::channel::<()>();
    let destination = Destination::Callback(Box::new(move |_| {
        let _told = entered.send(());
        let _closed = exited.recv();
        Ok(())
    }));
    let settings = WriterSettings { destination, queue: 10_000, when_full: WhenFull::Count };
    let (writer, audit) = Writer::start(settings).expect("a writer");
    bench.record(&audit, &grant);
    entrance.recv().expect("the writer writes");
    repeat(runs, &mut || bench.record(&audit, &grant));
    drop(exit);
    runtime.block_on(writer.finish(Duration::from_secs(60))).expect("every record is written");
}

/// What becomes of a request's head on its way to the upstream, which is made before a connection is: nobody listens.
fn upstream_request(runs: u32) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let bench = Bench::new(10);
    let parts = head("/context/256", &bench.world.authorization());
    let matched = bench.matched(&parts);
    let grant = bench.grant_of("/context/256");
    let served = bench.served(&grant);
    let credential = bench.issue(&grant);
    let identity = served.plain_identity.as_ref().expect("the route has identity headers");
    let identity = identity.lines(&grant).expect("headers");
    for _ in 0..runs {
        let forward = Forward {
            target: &matched.target,
            headers: parts.headers.clone(),
            body: body::empty(),
            downstream: Downstream { address: CALLER, scheme: Scheme::Https },
            request_id: "0123456789abcdef0000000001",
            trace: &TraceContext::of(&parts.headers),
            identity_headers: &identity,
            signature: None,
            protected: &served.protected,
            upgrade: false,
        };
        let answer = runtime.block_on(served.upstream.forward(forward, &grant, &credential, &mut None));
        answer.expect_err("a connection is refused");
    }
}
