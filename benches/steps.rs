//! Each step of the line alone, on the parts of a snapshot that was compiled from files.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use doorward::audit::{Audit, Decision, Destination, RequestRecord, WhenFull, Writer, WriterSettings};
use doorward::clock::Clock;
use doorward::config::{self, Runtime};
use doorward::identity::{Presented, Principal, identify};
use doorward::peer::{Downstream, Peer, Scheme, Transport};
use doorward::policy::{Grant, RequestFacts};
use doorward::proxy::{ServedRoute, Snapshot};
use doorward::route::RouteMatch;
use doorward::target::RequestTarget;
use doorward::telemetry::Metrics;
use doorward::upstream::TraceContext;
use futures_util::FutureExt as _;
use http::Request;
use http::request::Parts;

use support::bench::criterion;
use support::world::World;

const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A compiled snapshot and what a request meets it with.
struct Bench {
    world: World,
    snapshot: Snapshot,
    peer: Arc<Peer>,
    clock: Clock,
    audit: Audit,
    _writer: Writer,
}

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

fn head(path: &str, authorization: &str) -> Parts {
    let request = Request::get(path).header("host", "localhost").header("authorization", authorization);
    request.header("accept", "application/json").body(()).expect("a request").into_parts().0
}

impl Bench {
    fn new(policies: usize) -> Self {
        let world = World::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), policies);
        let destination = Destination::Callback(Box::new(|_| Ok(())));
        let settings = WriterSettings { destination, queue: 1_000_000, when_full: WhenFull::Count };
        let (writer, audit) = Writer::start(settings).expect("a writer");
        let clock = Clock::system();
        let path = world.configuration();
        let checked = config::load(&path).expect("a sound configuration");
        let runtime = Runtime::open(&checked, clock.clone(), Arc::new(Metrics::new()), &audit).expect("state");
        let (snapshot, _) = config::compile(&path, &runtime).expect("a sound configuration");
        let address = SocketAddr::from((CALLER, 1));
        let (listener, transport) = ("public".into(), Transport::Plain);
        let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
        Self { world, snapshot, peer: Arc::new(peer), clock, audit, _writer: writer }
    }

    fn matched(&self, parts: &Parts) -> RouteMatch {
        let target = RequestTarget::of(parts).expect("a sound target");
        self.snapshot.router.find(target).expect("a sound path").expect("a route")
    }

    fn principal(&self, parts: &Parts, matched: &RouteMatch) -> Arc<Principal> {
        let presented = Presented {
            method: &parts.method,
            headers: &parts.headers,
            peer: &self.peer,
            downstream: Downstream { address: CALLER, scheme: Scheme::Https },
            route: &matched.route,
            now: self.clock.now(),
        };
        let identified = identify(&self.snapshot.verifiers, presented).now_or_never();
        identified.expect("the keys are in a file").expect("a good token")
    }

    fn grant(&self, principal: &Arc<Principal>, matched: &RouteMatch) -> Grant {
        let facts = RequestFacts {
            route: &matched.route,
            target: &matched.target,
            parameters: &matched.parameters,
            source_ip: CALLER,
            now: self.clock.now(),
        };
        self.snapshot.policies.authorize(principal, &facts).expect("a permission")
    }

    /// A grant for a caller with a token of its own.
    fn grant_of(&self, path: &str) -> Grant {
        let parts = head(path, &self.world.authorization());
        let matched = self.matched(&parts);
        let principal = self.principal(&parts, &matched);
        self.grant(&principal, &matched)
    }

    fn served(&self, grant: &Grant) -> &ServedRoute {
        self.snapshot.served(grant.route()).expect("every route is served")
    }
}
