//! Bodies that are still being sent, either way, and tunnels, and whether they are still granted.
//!
//! A request takes one snapshot and keeps it, but what a logout or a reload takes away must end what is open. One task
//! looks at all open streams every second, so none has a timer for it: at a session that ended, and, where another
//! snapshot is in force than the one that a stream was judged by, at what that one says of the same request.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::task::AtomicWaker;
use http::{Method, Request, header};

use super::{Snapshot, assumption};
use crate::audit::{Audit, RequestRecord};
use crate::clock::Timestamp;
use crate::identity::{Principal, accepts};
use crate::login::{self, ShownSession};
use crate::policy::RequestFacts;
use crate::route::Route;
use crate::target::RequestTarget;

/// How often open streams are looked at.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// All open streams.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    open: DashMap<u64, Arc<OpenStream>>,
    next: AtomicU64,
}

/// A request whose answer is open, as far as it takes to judge it anew.
#[derive(Debug)]
struct OpenStream {
    request_id: Arc<str>,
    principal: Arc<Principal>,
    route: Arc<Route>,
    method: Method,
    host: String,
    path: String,
    source: IpAddr,
    shown: Option<ShownSession>,
    is_tunnel: bool,
    judged: Mutex<Judged>,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// By which snapshot a stream was judged last, and when its grant ends by that.
#[derive(Debug)]
struct Judged {
    snapshot: Arc<str>,
    ends_at: Option<Timestamp>,
}

impl OpenStreams {
    /// Enters the stream of a request on record; `None` where it was granted to nobody in particular, as a preflight is.
    pub(super) fn enter(
        self: &Arc<Self>,
        record: &RequestRecord,
        shown: Option<ShownSession>,
        is_tunnel: bool,
    ) -> Option<StreamGuard> {
        let (principal, route) = (record.principal.clone()?, record.route.clone()?);
        if !accepts(&route, &principal) {
            return None;
        }
        let stream = Arc::new(OpenStream {
            request_id: record.request_id.clone(),
            principal,
            route,
            method: record.method.clone(),
            host: record.host.clone(),
            path: record.path.clone(),
            source: record.source,
            shown,
            is_tunnel,
            judged: Mutex::new(Judged { snapshot: record.snapshot.clone(), ends_at: None }),
            cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.insert(id, stream.clone());
        Some(StreamGuard { id, stream, streams: self.clone() })
    }

    /// Cuts every stream that is not granted any more.
    pub(super) fn judge(&self, snapshot: &Snapshot, audit: &Audit, now: Timestamp) {
        // Copied first: to judge takes longer than a request may wait for its place here.
        let open: Vec<Arc<OpenStream>> = self.open.iter().map(|stream| stream.clone()).collect();
        for stream in open {
            if !stream.stands(snapshot, audit, now) {
                stream.cut.store(true, Ordering::Release);
                stream.reader.wake();
                stream.writer.wake();
            }
        }
    }
}

impl OpenStream {
    fn stands(&self, snapshot: &Snapshot, audit: &Audit, now: Timestamp) -> bool {
        if let Some(shown) = &self.shown
            && !snapshot.sessions.as_ref().is_some_and(|sessions| sessions.stands(shown, now))
        {
            return false;
        }
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if judged.snapshot != snapshot.hash {
            let Some(ends_at) = self.granted_by(snapshot, audit, now) else { return false };
            *judged = Judged { snapshot: snapshot.hash.clone(), ends_at };
        }
        judged.ends_at.is_none_or(|end| now < end)
    }

    /// When the grant ends that `snapshot` gives to the same request; `None` where it gives none, or by another route.
    fn granted_by(&self, snapshot: &Snapshot, audit: &Audit, now: Timestamp) -> Option<Option<Timestamp>> {
        let request = Request::builder().method(&self.method).uri(&self.path).header(header::HOST, &self.host);
        let (parts, ()) = request.body(()).ok()?.into_parts();
        let matched = snapshot.router.find(RequestTarget::of(&parts).ok()?).ok()??;
        let (before, route) = (&self.route, &matched.route);
        let principal = snapshot.recognise_again(&self.principal, now)?;
        if route.name != before.name || route.environment != before.environment || !accepts(route, &principal) {
            return None;
        }
        if self.is_tunnel && !route.websocket {
            return None;
        }
        // Only what is asked for anew: an authentication that was recent enough grows old while a stream is open.
        let leeway = snapshot.login.as_ref().map(|login| login.leeway(&principal.issuer)).unwrap_or_default();
        if route.login != before.login && !login::meets(&route.login, &principal, leeway, now) {
            return None;
        }
        let facts = RequestFacts {
            route,
            target: &matched.target,
            parameters: &matched.parameters,
            source_ip: self.source,
            now,
        };
        let grant = snapshot.policies.authorize(&principal, &facts).ok()?;
        assumption::record(audit, &snapshot.policies, &grant, now, &self.request_id).ok()?;
        Some(grant.expires_at())
    }
}

/// A stream's place among the open ones.
#[derive(Debug)]
pub(super) struct StreamGuard {
    id: u64,
    stream: Arc<OpenStream>,
    streams: Arc<OpenStreams>,
}

impl StreamGuard {
    /// Ready once the stream is to end; wakes whoever waits for the answer.
    pub(super) fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        self.poll(&self.stream.reader, context)
    }

    /// As [`StreamGuard::poll_cut`], for whoever waits for the request's body.
    pub(super) fn poll_request_cut(&self, context: &Context<'_>) -> Poll<()> {
        self.poll(&self.stream.writer, context)
    }

    fn poll(&self, waker: &AtomicWaker, context: &Context<'_>) -> Poll<()> {
        waker.register(context.waker());
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until the stream is to end.
    pub(super) async fn cut(&self) {
        std::future::poll_fn(|context| self.poll_cut(context)).await;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.stream.cut.load(Ordering::Acquire)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.streams.open.remove(&self.id);
    }
}
