//! The seam between hyper and the handler: counts open requests, and holds what hyper's HTTP/2 does not limit.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::body::{self, Body, BoxError};
use crate::peer::{Admission, Peer};

use super::activity::{Activity, OpenRequest, Order};
use super::stats::ServerStats;
use super::vouched::{Standing, Vouched, stranger};

/// What answers requests. It is called once a request, with the connection's [`Peer`] and what the server found.
pub type Handler = Arc<dyn Fn(Request<Body>, Arc<Peer>, Admission) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The requests of one connection.
pub(super) struct Requests {
    pub(super) handler: Handler,
    pub(super) peer: Arc<Peer>,
    pub(super) activity: Arc<Activity>,
    pub(super) header_count: usize,
    /// How the client certificate stands now; `None` without TLS.
    pub(super) vouched: Option<Vouched>,
    pub(super) stats: Arc<ServerStats>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let open = OpenRequest::begin(&self.activity);
        let may_upgrade = request.extensions().get::<OnUpgrade>().is_some();
        let standing = self.vouched.as_ref().map_or(Standing::Good, Vouched::standing);
        if standing != Standing::Good {
            // What the handshake settled no longer holds: a new one has to.
            self.activity.command(Order::Close);
        }
        let admission = if standing == Standing::Barred {
            Admission::CertificateBarred
        } else if request.headers().len() > self.header_count {
            // HTTP/2 bounds the bytes of a head alone, and 64 KiB hold two thousand fields.
            self.stats.count_protocol_error();
            Admission::TooManyFields
        } else {
            Admission::Admitted
        };
        let peer = if standing == Standing::Good { Arc::clone(&self.peer) } else { stranger(&self.peer) };
        let request = request.map(|body| received(body, &self.activity));
        let handled = (self.handler)(request, peer, admission);
        Answer { handled, open: Some(open), may_upgrade }
    }
}

/// A request's body, which tells its connection when it is dropped before its end.
struct Received {
    body: Incoming,
    activity: Arc<Activity>,
    ended: bool,
}

fn received(body: Incoming, activity: &Arc<Activity>) -> Body {
    if body.is_end_stream() {
        return body::empty();
    }
    Body::new(Received { body, activity: Arc::clone(activity), ended: false })
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(next) = &polled {
            self.ended |= next.is_none() || self.body.is_end_stream();
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.ended {
            self.activity.leave_unread();
        }
    }
}

/// The handler at work.
pub(super) struct Answer {
    handled: BoxFuture<'static, Response<Body>>,
    open: Option<OpenRequest>,
    may_upgrade: bool,
}

impl Future for Answer {
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.handled.as_mut().poll(cx).map(|response| {
            let mut open = self.open.take();
            if let Some(open) = &mut open {
                let upgraded = self.may_upgrade && response.status() == StatusCode::SWITCHING_PROTOCOLS;
                open.answered(upgraded);
            }
            Ok(response.map(|body| CountedBody { body, open, handed: None }))
        })
    }
}

/// A response body whose request is open until it is dropped.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    open: Option<OpenRequest>,
    /// The sweep at which the frame was handed on that the client has not taken yet.
    handed: Option<u64>,
}

impl CountedBody {
    fn note_taken(&mut self) {
        if let (Some(since), Some(open)) = (self.handed.take(), &self.open) {
            open.activity().frame_taken(since);
        }
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.note_taken();
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.note_taken();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.handed = self.open.as_ref().and_then(|open| open.activity().frame_handed());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
