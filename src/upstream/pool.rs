//! The connections to one address: idle HTTP/1.1 ones, last used first, and a few shared HTTP/2 ones.
//!
//! A connection is idle only when hyper says that it waits for a request and the whole exchange before was seen to
//! end. Any other end of an exchange drops the [`Lease`], which closes an HTTP/1.1 connection: the next caller must
//! never read the rest of somebody else's answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::uri::Authority;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::worker::PerWorker;

use super::body::{Exchange, RequestBody};
use super::connect::{ConnectionTasks, Connector, Dialled, Wanted};
use super::error::{ConnectStage, UpstreamError};
use super::settings::UpstreamAddress;

/// How long an HTTP/1.1 connection is kept without use.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Dials of one address under way at once, and requests that may wait for one.
const DIALS: usize = 128;
const WAITING: usize = 2048;
/// HTTP/2 connections to one address: a second one when the first has no stream left.
const HTTP2_CONNECTIONS: usize = 16;
/// Idle HTTP/1.1 connections to one address that all identities together keep.
const IDLE_BY_IDENTITY: usize = 1000;
const HTTP2_STREAMS: usize = 1000;

/// One address and its connections.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: UpstreamAddress,
    /// The address as it stands in records.
    pub(super) name: Arc<str>,
    /// What stands in `Host`, unless the caller's own does.
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
    connector: Arc<Connector>,
    most_idle: usize,
    load: Arc<Load>,
    /// Whether the connections are opened as some identity, which many share this address with.
    by_identity: bool,
    /// Each worker's own: the task of a connection and the request that uses it wake each other on one thread.
    kept: PerWorker<Kept>,
}

/// What is counted of one address, whoever its connections are opened as.
#[derive(Debug)]
struct Load {
    open: Arc<AtomicUsize>,
    waiting: AtomicUsize,
    dials: Semaphore,
    /// Idle connections of all identities.
    idle_by_identity: AtomicUsize,
}

/// Counts one idle connection among those of all identities.
#[derive(Debug)]
struct IdleByIdentity(Arc<Load>);

impl IdleByIdentity {
    fn begin(load: &Arc<Load>) -> Option<Self> {
        let counted = Self(load.clone());
        let before = load.idle_by_identity.fetch_add(1, Ordering::Relaxed);
        (before < IDLE_BY_IDENTITY).then_some(counted)
    }
}

impl Drop for IdleByIdentity {
    fn drop(&mut self) {
        self.0.idle_by_identity.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one worker.
#[derive(Debug, Default)]
struct Kept {
    idle: Mutex<VecDeque<Http1Connection>>,
    http2: Mutex<Http2State>,
}

#[derive(Debug, Default)]
struct Http2State {
    connections: Vec<Arc<Http2Connection>>,
    /// The dial under way; it lives as long as somebody waits for it.
    dialling: Option<WeakShared<SharedDial>>,
    /// ALPN settled on HTTP/1.1 last time.
    speaks_http1: bool,
}

type SharedDial = BoxFuture<'static, Result<Arc<DialOutcome>, Arc<UpstreamError>>>;

/// What a shared dial brought. An HTTP/1.1 connection serves whoever takes it first.
#[derive(Debug)]
enum DialOutcome {
    Http1(Mutex<Option<Http1Connection>>),
    Http2(Arc<Http2Connection>),
}

#[derive(Debug)]
struct Http1Connection {
    sender: http1::SendRequest<RequestBody>,
    tasks: ConnectionTasks,
    idle_since: Instant,
    /// While it is idle, and was opened as some identity.
    counted: Option<IdleByIdentity>,
}

#[derive(Debug)]
struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    tasks: ConnectionTasks,
    streams: AtomicUsize,
    most_streams: Arc<AtomicUsize>,
    /// A stream on it was never answered: serve out what is open, begin nothing new.
    retired: std::sync::atomic::AtomicBool,
}

/// The right to use a connection for one exchange.
#[derive(Debug)]
pub(super) struct Lease {
    endpoint: Arc<Endpoint>,
    connection: Leased,
}

#[derive(Debug)]
enum Leased {
    Http1(Http1Connection),
    Http2(Http2Stream),
}

/// Counts one stream of a shared connection.
#[derive(Debug)]
struct Http2Stream(Arc<Http2Connection>);

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that came back unsent, and why.
pub(super) type Unsent = TrySendError<Request<RequestBody>>;

impl Endpoint {
    /// `None` when `authority` is no header value.
    pub(super) fn new(
        address: &UpstreamAddress,
        authority: &Authority,
        connector: Arc<Connector>,
        most_idle: usize,
    ) -> Option<Self> {
        Some(Self {
            address: address.clone(),
            name: address.to_string().into(),
            authority: authority.clone(),
            host: HeaderValue::from_str(authority.as_str()).ok()?,
            connector,
            most_idle,
            load: Arc::new(Load {
                open: Arc::default(),
                waiting: AtomicUsize::new(0),
                dials: Semaphore::new(DIALS),
                idle_by_identity: AtomicUsize::new(0),
            }),
            by_identity: false,
            kept: PerWorker::default(),
        })
    }

    /// The same address by another connector, with connections of its own: none of those here serves there, or the
    /// other way round. Dropped, it closes those that are idle.
    pub(super) fn by_identity(&self, connector: Arc<Connector>) -> Self {
        Self {
            address: self.address.clone(),
            name: self.name.clone(),
            authority: self.authority.clone(),
            host: self.host.clone(),
            connector,
            most_idle: self.most_idle,
            load: self.load.clone(),
            by_identity: true,
            kept: PerWorker::default(),
        }
    }

    /// An idle or shared connection, unless a `fresh` one is asked for: nothing to wait for.
    pub(super) fn lease_at_hand(self: &Arc<Self>, wanted: Wanted, fresh: bool) -> Option<Lease> {
        if wanted != Wanted::Http1
            && let Some(connection) = self.shared_http2(fresh)
        {
            return Some(self.of_http2(connection));
        }
        if wanted == Wanted::Http2 || fresh {
            return None;
        }
        self.take_idle().map(|connection| self.of_http1(connection))
    }

    /// A new connection.
    pub(super) async fn lease_new(self: &Arc<Self>, wanted: Wanted) -> Result<Lease, UpstreamError> {
        let _waiting = Waiting::begin(&self.load.waiting)?;
        if wanted == Wanted::Http1 || (wanted == Wanted::Either && self.lock_http2().speaks_http1) {
            return self.dial_alone(wanted).await;
        }
        self.lease_together(wanted).await
    }

    /// A stream of a connection that all who wait now dial together; when they are more than it has streams, the
    /// rest dial the next one.
    async fn lease_together(self: &Arc<Self>, wanted: Wanted) -> Result<Lease, UpstreamError> {
        loop {
            let outcome = self.dial_together(wanted).await.map_err(shared_failure)?;
            let left = match &*outcome {
                DialOutcome::Http2(connection) if connection.has_room() => {
                    return Ok(self.of_http2(connection.clone()));
                }
                DialOutcome::Http2(_) => {
                    if let Some(connection) = self.shared_http2(false) {
                        return Ok(self.of_http2(connection));
                    }
                    continue;
                }
                DialOutcome::Http1(connection) => lock(connection).take(),
            };
            // HTTP/1.1 after all: one of those who waited takes it, the rest dial alone from now on.
            return match left {
                Some(connection) => Ok(self.of_http1(connection)),
                None => self.dial_alone(wanted).await,
            };
        }
    }

    async fn dial_alone(self: &Arc<Self>, wanted: Wanted) -> Result<Lease, UpstreamError> {
        match self.dial(wanted).await? {
            DialOutcome::Http2(connection) => Ok(self.of_http2(connection)),
            DialOutcome::Http1(connection) => {
                let connection = lock(&connection).take();
                connection.map(|connection| self.of_http1(connection)).ok_or(UpstreamError::Overloaded)
            }
        }
    }

    fn of_http1(self: &Arc<Self>, connection: Http1Connection) -> Lease {
        Lease { endpoint: self.clone(), connection: Leased::Http1(connection) }
    }

    fn of_http2(self: &Arc<Self>, connection: Arc<Http2Connection>) -> Lease {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Lease { endpoint: self.clone(), connection: Leased::Http2(Http2Stream(connection)) }
    }

    async fn dial(&self, wanted: Wanted) -> Result<DialOutcome, UpstreamError> {
        let _permit = self.load.dials.acquire().await.map_err(|_| UpstreamError::Overloaded)?;
        let dialled = self.connector.dial(&self.address, wanted, &self.load.open).await?;
        Ok(match dialled {
            Dialled::Http1(sender, tasks) => {
                if wanted == Wanted::Either {
                    self.lock_http2().speaks_http1 = true;
                }
                let connection = Http1Connection { sender, tasks, idle_since: Instant::now(), counted: None };
                DialOutcome::Http1(Mutex::new(Some(connection)))
            }
            Dialled::Http2(sender, tasks, most_streams) => {
                let connection = Arc::new(Http2Connection {
                    sender,
                    tasks,
                    streams: AtomicUsize::new(0),
                    most_streams,
                    retired: false.into(),
                });
                let mut state = self.lock_http2();
                state.speaks_http1 = false;
                state.connections.retain(|connection| connection.is_usable());
                if state.connections.len() < HTTP2_CONNECTIONS {
                    state.connections.push(connection.clone());
                }
                DialOutcome::Http2(connection)
            }
        })
    }

    /// One dial for all who ask at once; they share its failure too.
    async fn dial_together(self: &Arc<Self>, wanted: Wanted) -> Result<Arc<DialOutcome>, Arc<UpstreamError>> {
        let dial: Shared<SharedDial> = {
            let mut state = self.lock_http2();
            match state.dialling.as_ref().and_then(WeakShared::upgrade).filter(|dial| dial.peek().is_none()) {
                Some(dial) => dial,
                None => {
                    let endpoint = self.clone();
                    let dial = async move { endpoint.dial(wanted).await.map(Arc::new).map_err(Arc::new) };
                    let dial = dial.boxed().shared();
                    state.dialling = dial.downgrade();
                    dial
                }
            }
        };
        dial.await
    }

    /// A shared connection with a stream to spare; the least used one when there may be no further connection.
    fn shared_http2(&self, fresh: bool) -> Option<Arc<Http2Connection>> {
        let mut state = self.lock_http2();
        if state.connections.iter().any(|connection| !connection.is_usable()) {
            state.connections.retain(|connection| connection.is_usable());
        }
        let full = state.connections.len() >= HTTP2_CONNECTIONS;
        if fresh && !full {
            return None;
        }
        if let Some(spare) = state.connections.iter().find(|connection| connection.has_room()) {
            return Some(spare.clone());
        }
        let least = state.connections.iter().min_by_key(|connection| connection.streams.load(Ordering::Relaxed));
        least.filter(|_| full).cloned()
    }

    fn take_idle(&self) -> Option<Http1Connection> {
        let mut idle = lock(&self.kept.own().idle);
        let mut index = idle.len();
        while index > 0 {
            index -= 1;
            let connection = idle.get(index)?;
            let is_ready = connection.sender.is_ready();
            if is_ready && connection.is_fresh() && !connection.is_over() {
                let mut connection = idle.remove(index)?;
                connection.counted = None;
                return Some(connection);
            }
            // Neither ready nor closed: its task has not yet seen the end of the exchange before. It will.
            if is_ready || connection.is_over() {
                idle.remove(index);
            }
        }
        None
    }

    fn give_back(&self, mut connection: Http1Connection) {
        if connection.is_over() || self.most_idle == 0 {
            return;
        }
        if self.by_identity {
            let Some(counted) = IdleByIdentity::begin(&self.load) else { return };
            connection.counted = Some(counted);
        }
        connection.idle_since = Instant::now();
        let most_idle = self.kept.share(self.most_idle);
        let mut expired = Vec::new();
        let mut idle = lock(&self.kept.own().idle);
        while idle.front().is_some_and(|oldest| !oldest.is_fresh()) || idle.len() >= most_idle {
            expired.extend(idle.pop_front());
        }
        idle.push_back(connection);
        drop(idle);
        drop(expired);
    }

    /// Ends the tasks of idle connections before the pool can notice.
    #[cfg(test)]
    pub(super) fn break_idle(&self) {
        for kept in self.kept.all() {
            lock(&kept.idle).iter().for_each(|connection| connection.tasks.abort());
            lock(&kept.http2).connections.iter().for_each(|connection| connection.tasks.abort());
        }
    }

    /// Counts connections as if other identities had them, with room for `left` more.
    #[cfg(test)]
    pub(super) fn idle_of_others(&self, left: usize) -> impl Sized {
        let others = self.load.idle_by_identity.load(Ordering::Relaxed) + left..IDLE_BY_IDENTITY;
        others.map(|_| IdleByIdentity::begin(&self.load)).collect::<Vec<_>>()
    }

    /// Open connections of the address, whoever they are opened as, and idle ones of this endpoint; lets go of those
    /// that the upstream closed.
    pub(super) fn counts(&self) -> (usize, usize) {
        let idle = self.kept.all().map(|kept| {
            lock(&kept.http2).connections.retain(|connection| connection.is_usable());
            let mut idle = lock(&kept.idle);
            idle.retain(|connection| !connection.is_over() && connection.is_fresh());
            idle.len()
        });
        let idle = idle.sum();
        (self.load.open.load(Ordering::Relaxed), idle)
    }

    fn lock_http2(&self) -> MutexGuard<'_, Http2State> {
        lock(&self.kept.own().http2)
    }
}

impl Http1Connection {
    fn is_fresh(&self) -> bool {
        self.idle_since.elapsed() < IDLE_LIMIT
    }

    fn is_over(&self) -> bool {
        self.sender.is_closed() || self.tasks.ended()
    }
}

impl Http2Connection {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.tasks.ended() && !self.retired.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        let most = self.most_streams.load(Ordering::Relaxed).min(HTTP2_STREAMS);
        self.streams.load(Ordering::Relaxed) < most
    }
}

impl Lease {
    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.connection, Leased::Http2(_))
    }

    /// Sends `request`. What comes back in the error was never written.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unsent>> + Send + use<> {
        match &mut self.connection {
            Leased::Http1(connection) => connection.sender.try_send_request(request).left_future(),
            Leased::Http2(stream) => stream.0.sender.clone().try_send_request(request).right_future(),
        }
    }

    /// Takes a shared connection out of use, because an answer on it never began.
    pub(super) fn retire(&self) {
        if let Leased::Http2(stream) = &self.connection {
            stream.0.retired.store(true, Ordering::Relaxed);
        }
    }

    /// The exchange ended well. An HTTP/1.1 connection on which the request is still being written is not kept.
    pub(super) fn finish(self, exchange: Option<&Exchange>) {
        let Leased::Http1(connection) = self.connection else { return };
        if exchange.is_none_or(Exchange::request_finished) {
            self.endpoint.give_back(connection);
        }
    }
}

/// Counts one request that waits for a dial.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Result<Self, UpstreamError> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING { Err(UpstreamError::Overloaded) } else { Ok(waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same failure for each who shared a dial.
fn shared_failure(error: Arc<UpstreamError>) -> UpstreamError {
    if matches!(*error, UpstreamError::ConnectTimeout) {
        return UpstreamError::ConnectTimeout;
    }
    let stage = if let UpstreamError::Connect { stage, .. } = &*error { *stage } else { ConnectStage::Http };
    UpstreamError::Connect { stage, source: error.into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
