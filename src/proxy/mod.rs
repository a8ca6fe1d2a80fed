//! The line: one request's whole way, read from top to bottom.
//!
//! Each step takes what the step before it returned, so none can be left out and none can be reordered. This is the
//! only place that writes an audit outcome.

mod assumption;

mod error;

mod exchange;

mod granted;

mod ids;

mod line;

mod places;

mod rates;

mod respond;

mod send;

mod snapshot;

mod streams;

pub use error::ProxyError;
pub use snapshot::{ServedDocuments, ServedRoute, Snapshot};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Decision, RequestRecord};
use crate::body::{self, Body};
use crate::clock::{Clock, Timestamp};
use crate::login::Login;
use crate::peer::{Admission, Downstream, Peer};
use crate::route::EvidenceKind;
use crate::shutdown::Shutdown;
use crate::target::RequestTarget;
use crate::telemetry::{Metrics, Outcome};
use crate::upstream::{self, TraceContext, TunnelEnd};

use exchange::{Exchange, RecordedBody, Tunnel};
use places::Places;
use rates::Rates;
use respond::{Audience, Refusal};
use streams::OpenStreams;

/// Everything under this path belongs to Doorward on every host.
pub const RESERVED: &str = "/.doorward";

/// Longest host that a record keeps before it was found to be one, bytes.
const LONGEST_HOST: usize = 255;

/// What lives beside the snapshot and survives a reload.
#[derive(Debug)]
pub struct ProxyParts {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where records go.
    pub audit: Audit,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// When to stop.
    pub shutdown: Shutdown,
    /// Most requests at once.
    pub concurrent_requests: usize,
    /// Most requests at once of one source.
    pub requests_per_source: Option<usize>,
    /// Whether a request goes upstream only once a record of its grant has been written.
    pub strict_audit: bool,
}

/// Serves requests by the snapshot in force.
#[derive(Debug)]
pub struct Proxy {
    parts: ProxyParts,
    permits: Arc<Semaphore>,
    places: Arc<Places>,
    tunnels: TaskTracker,
    streams: Arc<OpenStreams>,
    rates: Rates,
}

/// One request on its way, before it has a route.
struct Arrival<'a> {
    snapshot: &'a Snapshot,
    peer: &'a Arc<Peer>,
    downstream: Downstream,
    request_id: Arc<str>,
    trace: &'a TraceContext,
    now: Timestamp,
}

impl Proxy {
    /// A proxy over `parts`.
    #[must_use]
    pub fn new(parts: ProxyParts) -> Self {
        let permits = Arc::new(Semaphore::new(parts.concurrent_requests.min(Semaphore::MAX_PERMITS)));
        let places = Places::new(parts.requests_per_source);
        Self { parts, permits, places, tunnels: TaskTracker::new(), streams: Arc::default(), rates: Rates::default() }
    }

    /// The counters, for whoever catches a panic of the line.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Tunnels (WebSocket) that are open.
    #[must_use]
    pub fn tunnels(&self) -> &TaskTracker {
        &self.tunnels
    }

    /// Answers one request, whatever happens to it, and leaves exactly one record.
    pub async fn handle(&self, request: Request<Body>, peer: Arc<Peer>, admission: Admission) -> Response<Body> {
        let (started, now) = (Instant::now(), self.parts.clock.now());
        let snapshot = self.parts.snapshot.load_full();
        let (mut parts, body) = request.into_parts();

        let downstream = snapshot.trusted_proxies.downstream(&peer, &parts.headers);
        let request_id = ids::request_id(&parts.headers, snapshot.trusted_proxies.trusts(&peer));
        let trace = TraceContext::of(&parts.headers);
        let audience = Audience::of(&parts.headers);
        let record = arrived(&parts, &peer, &downstream, &request_id, &trace, &snapshot, now);
        let is_head = parts.method == Method::HEAD;
        let Ok(entry) = self.parts.audit.begin(record) else {
            self.parts.metrics.unrouted(Outcome::Failed);
            let error = &ProxyError::AuditFull;
            let refusal = Refusal { error, audience, request_id: &request_id, signed_in: false, route: None };
            let mut response = respond::refuse(&refusal);
            response.headers_mut().insert(respond::REQUEST_ID, respond::request_id_header(&request_id));
            if is_head {
                body::keep_head_only(&mut response);
            }
            return response;
        };

        let mut exchange = Exchange::new(entry, started, self.parts.metrics.clone(), self.streams.clone());
        let request_id_of = request_id.clone();
        let arrival =
            Arrival { snapshot: &snapshot, peer: &peer, downstream, request_id: request_id_of, trace: &trace, now };
        let admitted = self.admit(&mut exchange, arrival.downstream.address, admission);
        let passed = match admitted {
            Ok(()) => self.pass(&arrival, &mut parts, body, &mut exchange).await,
            Err(refused) => Err(refused),
        };

        let mut response = passed.unwrap_or_else(|error| {
            exchange.refused(&error);
            let route = exchange.entry.route.as_deref();
            let principal = exchange.entry.principal.as_ref();
            let signed_in = principal.is_some_and(|principal| principal.evidence == EvidenceKind::Session);
            respond::refuse(&Refusal { error: &error, audience, request_id: &request_id, signed_in, route })
        });
        exchange.entry.status = response.status().as_u16();
        response.headers_mut().insert(respond::REQUEST_ID, respond::request_id_header(&request_id));
        if exchange.tunnel.is_some() {
            exchange.stays_open();
        }
        match exchange.tunnel.take() {
            Some(tunnel) => {
                self.open(tunnel, exchange);
                response
            }
            None => {
                if is_head {
                    body::keep_head_only(&mut response);
                }
                let bodiless = is_head || is_bodiless(response.status());
                response.map(|body| RecordedBody::wrap(body, exchange, bodiless))
            }
        }
    }

    /// A place among the requests at once, and what the server found.
    fn admit(&self, exchange: &mut Exchange, source: IpAddr, admission: Admission) -> Result<(), ProxyError> {
        let place = self.places.enter(source)?;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| ProxyError::Overloaded)?;
        exchange.hold(permit, place);
        ProxyError::of(admission).map_or(Ok(()), Err)
    }

    /// Ends what is open and not granted any more, as long as it is polled: a session that ended, or a reload.
    pub async fn watch_streams(&self) {
        loop {
            tokio::time::sleep(streams::PAUSE).await;
            self.streams.judge(&self.parts.snapshot.load_full(), &self.parts.audit, self.parts.clock.now());
        }
    }

    /// Carries bytes both ways after a `101`, in a task that the drain waits for.
    fn open(&self, tunnel: Tunnel, mut exchange: Exchange) {
        let (shutdown, stream) = (self.parts.shutdown.clone(), exchange.stream.clone());
        self.tunnels.spawn(async move {
            let revoked = async {
                match &stream {
                    Some(stream) => stream.cut().await,
                    None => std::future::pending().await,
                }
            };
            let cut = async {
                tokio::select! {
                    () = shutdown.deadline() => TunnelEnd::Cut,
                    () = revoked => TunnelEnd::GrantEnded,
                }
            };
            let carried = upstream::tunnel(tunnel.downstream, tunnel.upstream, cut).await;
            exchange.entry.request_bytes = carried.bytes_up;
            exchange.entry.response_bytes = carried.bytes_down;
            exchange.entry.code = carried.end.code();
        });
    }

    /// Splits Doorward's own paths off, and sends everything else down the line.
    async fn pass(
        &self,
        arrival: &Arrival<'_>,
        parts: &mut Parts,
        body: Body,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, ProxyError> {
        let only_documents = arrival.snapshot.documents_listener.as_ref() == Some(&arrival.peer.listener);
        let target = RequestTarget::of(parts)?;
        target.host().clone_into(&mut exchange.entry.host);
        target.normal_path().unwrap_or(target.raw_path()).clone_into(&mut exchange.entry.path);
        let is_own = is_reserved(target.raw_path()) || target.normal_path().is_some_and(is_reserved);
        if !is_own && !only_documents {
            return self.forward(arrival, target, parts, body, exchange).await;
        }
        exchange.entry.decision = Decision::Own;
        exchange.outcome = Outcome::Own;
        let path = target.into_normal()?.path().to_owned();
        // Boxed: what a login keeps across its waits shall not weigh on every request.
        let own = Box::pin(self.own(arrival, only_documents, &path, parts)).await.ok_or(ProxyError::NoRoute)?;
        exchange.entry.code = "ok";
        Ok(own)
    }

    /// Doorward's own pages and documents.
    async fn own(
        &self,
        arrival: &Arrival<'_>,
        only_documents: bool,
        path: &str,
        parts: &Parts,
    ) -> Option<Response<Body>> {
        if let Some(documents) = &arrival.snapshot.documents
            && matches!(parts.method, Method::GET | Method::HEAD)
        {
            let base = if only_documents { &*documents.base_path } else { RESERVED };
            if let Some(answer) = path.strip_prefix(base).and_then(|below| documents.documents.answer(below)) {
                return Some(answer);
            }
        }
        if only_documents || !Login::owns(path) {
            return None;
        }
        let login = arrival.snapshot.login.as_ref()?;
        Some(login.handle(parts, &arrival.request_id).await)
    }
}

/// Whether an answer of this status ends with its head (RFC 9110 section 6.4.1).
fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether Doorward answers `path` itself.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    path.strip_prefix(RESERVED).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn arrived(
    parts: &Parts,
    peer: &Peer,
    downstream: &Downstream,
    request_id: &Arc<str>,
    trace: &TraceContext,
    snapshot: &Snapshot,
    now: Timestamp,
) -> RequestRecord {
    let method = parts.method.clone();
    let mut record = RequestRecord::new(now, request_id.clone(), peer, downstream.address, method);
    record.trace_id = Some(trace.trace_id().to_owned());
    // As they came, until they are normalised: a target that is refused as malformed is on record too.
    record.host = claimed_host(parts);
    parts.uri.path().clone_into(&mut record.path);
    record.snapshot = snapshot.hash.clone();
    record
}

/// The host that the head names, without what only a password could stand in front of.
fn claimed_host(parts: &Parts) -> String {
    let in_header = || parts.headers.get(http::header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let host = parts.uri.authority().map(|authority| authority.as_str().into()).or_else(in_header).unwrap_or_default();
    let mut host = host.rsplit_once('@').map_or(&*host, |(_, host)| host).to_owned();
    host.truncate(host.floor_char_boundary(LONGEST_HOST));
    host
}

/// The answer when the line panicked: the record was written while unwinding.
#[must_use]
pub fn panicked() -> Response<Body> {
    let mut response =
        Response::new(body::full("{\"title\":\"Internal Server Error\",\"status\":500,\"code\":\"internal_error\"}"));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}
