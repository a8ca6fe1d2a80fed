//! The parts of a snapshot that was compiled from files, for calling each step of the line alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use doorward::audit::{Audit, Decision, Destination, RequestRecord, WhenFull, Writer, WriterSettings};
use doorward::clock::{Clock, Timestamp};
use doorward::config::{self, Runtime};
use doorward::credential::{Ask, Credential};
use doorward::identity::{Presented, Principal, identify};
use doorward::peer::{Downstream, Peer, Scheme, Transport};
use doorward::policy::{Grant, RequestFacts};
use doorward::proxy::{ServedRoute, Snapshot};
use doorward::route::{PathParameters, Route, RouteMatch, Router};
use doorward::target::RequestTarget;
use doorward::telemetry::Metrics;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Method, Request};
use tokio::runtime::Handle;

use super::world::World;

/// Where every request comes from.
pub const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// An upstream that nobody asks.
pub const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// A compiled snapshot and what a request meets it with.
pub struct Bench {
    pub world: World,
    pub snapshot: Snapshot,
    pub peer: Arc<Peer>,
    pub clock: Clock,
    _writer: Writer,
}

/// The head of a GET.
pub fn head(path: &str, authorization: &str) -> Parts {
    let request = Request::get(path).header("host", "localhost").header("authorization", authorization);
    request.header("accept", "application/json").body(()).expect("a request").into_parts().0
}

impl Bench {
    /// A world of `policies` policies, five on each route, and what compiling it gives.
    pub fn new(policies: usize) -> Self {
        Self::of(World::new(NOWHERE, policies))
    }

    /// What compiling `world` gives. A runtime is entered, and another thread works on it.
    pub fn of(world: World) -> Self {
        let destination = Destination::Callback(Box::new(|_| Ok(())));
        let settings = WriterSettings { destination, queue: 100, when_full: WhenFull::Count };
        let (writer, audit) = Writer::start(settings).expect("a writer");
        let clock = Clock::system();
        let path = world.configuration();
        let checked = config::load(&path).expect("a sound configuration");
        let runtime = Runtime::open(&checked, clock.clone(), Arc::new(Metrics::new()), &audit).expect("state");
        let (snapshot, _) = config::compile(&path, &runtime).expect("a sound configuration");
        let address = SocketAddr::from((CALLER, 1));
        let (listener, transport) = ("public".into(), Transport::Plain);
        let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
        let bench = Self { world, snapshot, peer: Arc::new(peer), clock, _writer: writer };
        bench.wait_for_keys();
        bench
    }

    /// They are read beside whatever else is done, and from then on nothing has to be waited for.
    fn wait_for_keys(&self) {
        let parts = head("/api/256", &self.world.authorization());
        let matched = self.matched(&parts);
        let identified = identify(&self.snapshot.verifiers, self.presented(&parts, &matched));
        Handle::current().block_on(identified).expect("a good token");
    }

    /// Target and route.
    pub fn matched(&self, parts: &Parts) -> RouteMatch {
        let target = RequestTarget::of(parts).expect("a sound target");
        self.snapshot.router.find(target).expect("a sound path").expect("a route")
    }

    /// Who calls, by the token of a head.
    pub fn principal(&self, parts: &Parts, matched: &RouteMatch) -> Arc<Principal> {
        let identified = identify(&self.snapshot.verifiers, self.presented(parts, matched)).now_or_never();
        identified.expect("the keys are read").expect("a good token")
    }

    fn presented<'a>(&'a self, parts: &'a Parts, matched: &'a RouteMatch) -> Presented<'a> {
        Presented {
            method: &parts.method,
            headers: &parts.headers,
            peer: &self.peer,
            downstream: Downstream { address: CALLER, scheme: Scheme::Https },
            route: &matched.route,
            now: self.clock.now(),
        }
    }

    /// Whether that caller may.
    pub fn grant(&self, principal: &Arc<Principal>, matched: &RouteMatch) -> Grant {
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
    pub fn grant_of(&self, path: &str) -> Grant {
        let parts = head(path, &self.world.authorization());
        let matched = self.matched(&parts);
        let principal = self.principal(&parts, &matched);
        self.grant(&principal, &matched)
    }

    /// What serves the grant's route.
    pub fn served(&self, grant: &Grant) -> &ServedRoute {
        self.snapshot.served(grant.route()).expect("every route is served")
    }

    /// A table of this many routes, each below `/service-` and its number.
    pub fn router(&self, routes: usize) -> Router {
        let one = self.snapshot.router.routes().first().expect("a route");
        let routes = (0..routes).map(|index| {
            let name = format!("service-{index}");
            Route { name: name.as_str().into(), index, path: format!("/{name}/{{*rest}}").into(), ..(**one).clone() }
        });
        Router::new(routes.collect()).expect("routes of different paths")
    }

    /// The credential for a grant, where nothing has to be waited for.
    pub fn issue(&self, grant: &Grant) -> Credential {
        let (parameters, request_id) = (PathParameters::default(), "r1".into());
        let ask = Ask { grant, now: self.clock.now(), parameters: &parameters, token: None, request_id: &request_id };
        let issued = self.served(grant).credential.issue(&ask).now_or_never();
        issued.expect("nothing to wait for").expect("a credential")
    }

    /// Begins a record and hands it over, with everything that a permitted request puts into it.
    pub fn record(&self, audit: &Audit, grant: &Grant) {
        let at = Timestamp::from_unix_millis(1_800_000_000_123);
        let request_id = "0123456789abcdef0000000001".into();
        let mut record = RequestRecord::new(at, request_id, &self.peer, CALLER, Method::GET);
        "/api/256".clone_into(&mut record.path);
        "localhost".clone_into(&mut record.host);
        let mut entry = audit.begin(record).expect("losses are counted");
        entry.decision = Decision::Allow;
        entry.code = "ok";
        entry.route = Some(grant.route().clone());
        entry.principal = Some(grant.principal().clone());
        entry.roles = grant.roles().clone();
        entry.policy_ids = grant.policy_ids().clone();
        entry.snapshot = self.snapshot.hash.clone();
        entry.status = 200;
    }
}
