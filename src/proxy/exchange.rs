//! One request and its answer as they will stand on record, from the head's arrival to the answer's last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::ProxyError;
use super::places::Place;
use super::streams::{OpenStreams, StreamGuard};
use crate::audit::{AuditEntry, Decision};
use crate::body::{self, Body, BoxError};
use crate::login::ShownSession;
use crate::telemetry::{Metrics, Outcome, RouteMetrics, Step};
use crate::upstream::{StreamError, Upgrade};

/// A request being served: its record, its time, its counters. Settled exactly once, when dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The record that will be written.
    pub(super) entry: AuditEntry,
    /// When the head had arrived.
    pub(super) started: Instant,
    /// How it counts.
    pub(super) outcome: Outcome,
    /// Counters of its route, once known.
    pub(super) route_metrics: Option<RouteMetrics>,
    /// What goes on after a `101 Switching Protocols`.
    pub(super) tunnel: Option<Tunnel>,
    /// The session that the request showed.
    pub(super) shown: Option<ShownSession>,
    /// Its place among the open streams, once it is one.
    pub(super) stream: Option<Arc<StreamGuard>>,
    streams: Arc<OpenStreams>,
    metrics: Arc<Metrics>,
    /// What was read of the request's body, where it has one.
    request_bytes: Option<Arc<AtomicU64>>,
    held: Option<(OwnedSemaphorePermit, Option<Place>)>,
}

impl Exchange {
    /// Begins with the reserved record.
    #[must_use]
    pub(super) fn new(entry: AuditEntry, started: Instant, metrics: Arc<Metrics>, streams: Arc<OpenStreams>) -> Self {
        metrics.requests_in_flight.inc();
        Self {
            entry,
            started,
            outcome: Outcome::Failed,
            route_metrics: None,
            tunnel: None,
            shown: None,
            stream: None,
            streams,
            metrics,
            request_bytes: None,
            held: None,
        }
    }

    /// Has what goes on after a head end with its grant. Nothing was granted to a caller who was refused.
    pub(super) fn stays_open(&mut self) {
        if self.stream.is_none() && self.entry.decision == Decision::Allow {
            let is_tunnel = self.tunnel.is_some();
            self.stream = self.streams.enter(&self.entry, self.shown.take(), is_tunnel).map(Arc::new);
        }
    }

    /// Counts among the requests at once until it is settled: its answer's body and its tunnel are part of it.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit, place: Option<Place>) {
        self.held = Some((permit, place));
    }

    /// Records how long a step took, and answers when it ended: the next one begins there.
    pub(super) fn note(&mut self, step: Step, began: Instant) -> Instant {
        let ended = Instant::now();
        let took = ended.duration_since(began);
        let durations = &mut self.entry.durations;
        match step {
            Step::Identify => durations.identify = Some(took),
            Step::Authorize => durations.authorize = Some(took),
            Step::Credential => durations.credential = Some(took),
            Step::Upstream => durations.upstream = Some(took),
            Step::Total => durations.total = Some(took),
        }
        self.metrics.observe(step, took);
        ended
    }

    /// Puts a refusal on record, with every field that an allow has.
    pub(super) fn refused(&mut self, error: &ProxyError) {
        // What tells the caller so is no part of what was granted.
        self.stream = None;
        self.outcome = error.outcome();
        self.entry.decision = error.decision();
        self.entry.code = error.code();
        self.entry.detail = Some(error.detail());
        if let ProxyError::Denied(denied) = error {
            self.entry.roles = denied.roles.clone();
            self.entry.policy_ids = denied.policy_ids.clone();
        }
    }

    /// Counts what is read of the request's body, and fails with [`BodyTooLarge`] past `limit_bytes`.
    #[must_use]
    pub(super) fn counting(&mut self, body: Body, limit_bytes: u64) -> Body {
        if body.is_end_stream() {
            return body;
        }
        self.stays_open();
        let bytes = self.request_bytes.get_or_insert_default().clone();
        Body::new(Counted { inner: body, bytes, limit_bytes, stream: self.stream.clone() })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(bytes) = &self.request_bytes {
            self.entry.request_bytes += bytes.load(Ordering::Relaxed);
        }
        if std::thread::panicking() {
            self.entry.code = "internal_error";
            self.entry.status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
        }
        self.note(Step::Total, self.started);
        self.metrics.requests_in_flight.dec();
        if let Some(route) = &self.route_metrics {
            route.count(self.outcome);
        } else {
            self.metrics.unrouted(self.outcome);
        }
    }
}

/// Both ends of a connection that changes its protocol.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Toward the caller.
    pub(super) downstream: OnUpgrade,
    /// Toward the API.
    pub(super) upstream: Upgrade,
}

/// The body grew past its route's limit.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than the route allows")]
pub(super) struct BodyTooLarge;

struct Counted {
    inner: Body,
    bytes: Arc<AtomicU64>,
    limit_bytes: u64,
    stream: Option<Arc<StreamGuard>>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.stream.as_ref().is_some_and(|stream| stream.poll_request_cut(context).is_ready()) {
            return Poll::Ready(Some(Err(StreamError::GrantEnded.into())));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let read = self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
            if read > self.limit_bytes {
                return Poll::Ready(Some(Err(BodyTooLarge.into())));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The answer's body, which carries the exchange to its end: it is settled when the last frame is handed on, so that
/// nobody can hold it by not reading on, or when the caller hangs up.
pub(super) struct RecordedBody {
    inner: Body,
    /// `None` once it is settled.
    exchange: Option<Exchange>,
}

impl RecordedBody {
    /// Wraps `body`; `exchange` settles when it ends. Nobody reads the body of a `bodiless` answer.
    #[must_use]
    pub(super) fn wrap(body: Body, exchange: Exchange, bodiless: bool) -> Body {
        if bodiless || body.is_end_stream() {
            return body;
        }
        Body::new(Self { inner: body, exchange: Some(exchange) })
    }

    /// The next frame, or the end of the grant where that comes first.
    fn poll_granted(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.stream().is_some_and(StreamGuard::is_cut) {
            // What the upstream still sends is for nobody.
            self.inner = body::empty();
            return Poll::Ready(Some(Err(StreamError::GrantEnded.into())));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let has_more = match &polled {
            Poll::Pending => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_data() && !self.inner.is_end_stream(),
            Poll::Ready(_) => false,
        };
        if let Some(exchange) = self.exchange.as_mut().filter(|_| has_more) {
            exchange.stays_open();
        }
        if polled.is_pending() && self.stream().is_some_and(|stream| stream.poll_cut(context).is_ready()) {
            return self.poll_granted(context);
        }
        polled
    }

    fn stream(&self) -> Option<&StreamGuard> {
        self.exchange.as_ref()?.stream.as_deref()
    }
}

impl HttpBody for RecordedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.poll_granted(context);
        let Poll::Ready(next) = &polled else { return polled };
        let Self { inner, exchange } = &mut *self;
        if let Some(Exchange { entry, outcome, .. }) = exchange {
            match next {
                Some(Ok(frame)) => {
                    entry.response_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Some(Err(error)) => {
                    *outcome = Outcome::Failed;
                    entry.code = error.downcast_ref::<StreamError>().map_or("response_cut", StreamError::code);
                    entry.detail = Some(error.to_string());
                }
                None => {}
            }
        }
        // Trailers are the last frame, and whoever reads them asks for no other.
        let goes_on = matches!(next, Some(Ok(frame)) if frame.is_data() && !inner.is_end_stream());
        if !goes_on {
            *exchange = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        let Some(Exchange { entry, .. }) = &mut self.exchange else { return };
        // A verdict stays on record, whether or not its caller listened to the end.
        if entry.decision != Decision::Deny {
            entry.code = "caller_gone";
            entry.detail = Some("the caller hung up before the answer's end".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::audit::{Audit, Destination, RequestRecord, WhenFull, Writer, WriterSettings};
    use crate::body;
    use crate::clock::Timestamp;
    use crate::peer::{Peer, Transport};

    fn exchange(audit: &Audit, metrics: &Arc<Metrics>) -> Exchange {
        let address = "192.0.2.7:1".parse().unwrap();
        let (listener, transport) = ("public".into(), Transport::Plain);
        let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
        let method = http::Method::GET;
        let record = RequestRecord::new(Timestamp::default(), "r1".into(), &peer, address.ip(), method);
        Exchange::new(audit.begin(record).unwrap(), Instant::now(), metrics.clone(), Arc::default())
    }

    #[tokio::test]
    async fn a_panic_and_an_answer_that_nobody_reads_are_on_record_as_what_they_were() {
        let (sender, lines) = channel();
        let callback = move |text: &str| sender.send(text.to_owned()).map_err(std::io::Error::other);
        let destination = Destination::Callback(Box::new(callback));
        let settings = WriterSettings { destination, queue: 8, when_full: WhenFull::Refuse };
        let (writer, audit) = Writer::start(settings).unwrap();
        let metrics = Arc::new(Metrics::new());

        let mut panicking = exchange(&audit, &metrics);
        panicking.entry.path = "/panic".to_owned();
        let handler = async move {
            let _exchange = panicking;
            panic!("a fault of ours");
        };
        tokio::spawn(handler).await.unwrap_err();
        for (path, bodiless) in [("/head", true), ("/gone", false)] {
            let mut exchange = exchange(&audit, &metrics);
            (exchange.entry.path, exchange.entry.code) = (path.to_owned(), "ok");
            exchange.entry.decision = Decision::Allow;
            drop(RecordedBody::wrap(body::full("never read"), exchange, bodiless));
        }
        writer.finish(Duration::from_secs(30)).await.unwrap();

        let text: String = lines.iter().collect();
        let mut told = Vec::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            told.push(["path", "code"].map(|field| line[field].as_str().unwrap().to_owned()).join(" "));
            assert_eq!(line["status"], if line["path"] == "/panic" { 500 } else { 0 });
        }
        told.sort();
        assert_eq!(told, ["/gone caller_gone", "/head ok", "/panic internal_error"]);
        assert_eq!(metrics.requests_in_flight.get(), 0);
    }
}
