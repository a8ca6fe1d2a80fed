//! The seam between hyper and the handler: counts open requests, and holds what hyper's HTTP/2 does not limit.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::body::{Body, BoxError, empty};
use crate::peer::Peer;

use super::activity::{Activity, OpenRequest, Order};
use super::stats::ServerStats;
use super::vouched::{Standing, Vouched, stranger};

/// What answers requests. It is called once a request, with the connection's [`Peer`].
pub type Handler = Arc<dyn Fn(Request<Incoming>, Arc<Peer>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

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
        let handled = match standing {
            Standing::Barred => refusal(StatusCode::FORBIDDEN),
            // HTTP/2 bounds the bytes of a head alone, and 64 KiB hold two thousand fields.
            _ if request.headers().len() > self.header_count => {
                self.stats.count_protocol_error();
                refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Standing::Lost => (self.handler)(request, stranger(&self.peer)),
            Standing::Good => (self.handler)(request, Arc::clone(&self.peer)),
        };
        Answer { handled, open: Some(open), may_upgrade }
    }
}

fn refusal(status: StatusCode) -> BoxFuture<'static, Response<Body>> {
    let mut refusal = Response::new(empty());
    *refusal.status_mut() = status;
    Box::pin(std::future::ready(refusal))
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
            Ok(response.map(|body| CountedBody { body, _open: open }))
        })
    }
}

/// A response body whose request is open until it is dropped.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _open: Option<OpenRequest>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
