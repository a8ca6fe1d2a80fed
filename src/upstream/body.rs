//! Bodies on their way: streamed, counted, and cut when they must end.
//!
//! A body costs no timer unless a poll of it has to wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BoxError};

use super::error::StreamError;
use super::headers::{self, Rules};
use super::pool::Lease;

/// When streams of an exchange end, whatever moves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) total: Option<Instant>,
    pub(super) grant: Option<Instant>,
}

impl Ends {
    /// The earlier one.
    pub(super) fn first(self) -> Option<Instant> {
        [self.total, self.grant].into_iter().flatten().min()
    }

    /// Which end has come at `now`.
    pub(super) fn come(self, now: Instant) -> Option<StreamError> {
        let past = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if past(self.grant) {
            return Some(StreamError::GrantEnded);
        }
        past(self.total).then_some(StreamError::Total)
    }
}

/// What the two bodies of one exchange know of each other.
#[derive(Debug)]
pub(super) struct Exchange {
    began: Instant,
    moved_after_millis: AtomicU64,
    request_finished: AtomicBool,
    request_failed: Mutex<Option<BoxError>>,
}

impl Exchange {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            moved_after_millis: AtomicU64::new(0),
            request_finished: AtomicBool::new(false),
            request_failed: Mutex::new(None),
        }
    }

    /// Whether the whole request body was handed to the connection.
    pub(super) fn request_finished(&self) -> bool {
        self.request_finished.load(Ordering::Acquire)
    }

    /// Why the request's body broke off, once.
    pub(super) fn take_failure(&self) -> Option<BoxError> {
        self.request_failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// When either body moved last.
    pub(super) fn moved_at(&self) -> Instant {
        self.began + Duration::from_millis(self.moved_after_millis.load(Ordering::Relaxed))
    }

    fn moved(&self, now: Instant) {
        let millis = u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        self.moved_after_millis.store(millis, Ordering::Relaxed);
    }

    fn fail(&self, error: BoxError) {
        self.request_failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Ends a stream at its time, and when neither direction moves.
#[derive(Debug)]
pub(super) struct Watch {
    idle: Duration,
    ends: Ends,
    exchange: Option<Arc<Exchange>>,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    pub(super) fn new(idle: Duration, ends: Ends, exchange: Option<Arc<Exchange>>) -> Self {
        Self { idle, ends, exchange, waiting_since: None, timer: None }
    }

    fn moved(&mut self) -> Result<(), StreamError> {
        self.waiting_since = None;
        if self.exchange.is_none() && self.ends.first().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(exchange) = &self.exchange {
            exchange.moved(now);
        }
        self.ends.come(now).map_or(Ok(()), Err)
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<StreamError> {
        loop {
            let now = Instant::now();
            if let Some(end) = self.ends.come(now) {
                return Poll::Ready(end);
            }
            let since = *self.waiting_since.get_or_insert(now);
            let since = self.exchange.as_ref().map_or(since, |exchange| exchange.moved_at().max(since));
            let silent = since + self.idle;
            if silent <= now {
                return Poll::Ready(StreamError::Idle);
            }
            let due = self.ends.first().map_or(silent, |end| end.min(silent));
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            // A timer that is due too early costs one wake; setting it anew at every frame would cost more.
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(context));
        }
    }
}

/// The caller's body on its way to an upstream.
#[derive(Debug, Default)]
pub(super) struct RequestBody(Option<Box<RequestStream>>);

#[derive(Debug)]
struct RequestStream {
    inner: Body,
    /// Bytes that are still to come; `None` when no length was announced.
    remaining: Option<u64>,
    watch: Watch,
    exchange: Arc<Exchange>,
    rules: Rules,
    done: bool,
}

impl RequestBody {
    /// No body.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// `inner`, of `length` bytes when that was announced.
    pub(super) fn new(inner: Body, length: Option<u64>, watch: Watch, exchange: Arc<Exchange>, rules: Rules) -> Self {
        Self(Some(Box::new(RequestStream { inner, remaining: length, watch, exchange, rules, done: false })))
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl RequestStream {
    fn fail(&mut self, error: BoxError) -> StreamError {
        self.done = true;
        self.exchange.fail(error);
        StreamError::Caller
    }

    fn finish(&mut self) {
        self.done = true;
        self.exchange.request_finished.store(true, Ordering::Release);
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let Poll::Ready(next) = polled else {
            let end = ready!(self.watch.poll_waiting(context));
            return Poll::Ready(Some(Err(self.fail(end.into()))));
        };
        if let Err(end) = self.watch.moved() {
            return Poll::Ready(Some(Err(self.fail(end.into()))));
        }
        Poll::Ready(match next {
            None if self.remaining.unwrap_or(0) > 0 => Some(Err(self.fail(StreamError::Length.into()))),
            None => {
                self.finish();
                None
            }
            Some(Err(error)) => Some(Err(self.fail(error))),
            Some(Ok(frame)) => Some(self.pass(frame)),
        })
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, StreamError> {
        let frame = match frame.into_data() {
            Ok(data) => {
                if let Some(remaining) = &mut self.remaining {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    match remaining.checked_sub(length) {
                        Some(left) => *remaining = left,
                        None => return Err(self.fail(StreamError::Length.into())),
                    }
                }
                Frame::data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(_) if self.remaining.unwrap_or(0) > 0 => return Err(self.fail(StreamError::Length.into())),
                Ok(trailers) => {
                    // The last frame: whoever reads it asks for no other.
                    self.finish();
                    Frame::trailers(filtered(trailers, |name| self.rules.allow_trailer(name)))
                }
                Err(_) => Frame::data(Bytes::new()),
            },
        };
        if self.remaining == Some(0) || (self.remaining.is_none() && self.inner.is_end_stream()) {
            self.exchange.request_finished.store(true, Ordering::Release);
        }
        Ok(frame)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|stream| stream.done || (stream.remaining.unwrap_or(0) == 0 && stream.inner.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(stream) => stream.remaining.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// An upstream's body on its way to the caller. Gives its connection back when it ended well, closes it otherwise.
#[derive(Debug)]
pub(super) struct ResponseBody {
    inner: Incoming,
    lease: Option<Lease>,
    watch: Watch,
    done: bool,
}

impl ResponseBody {
    pub(super) fn new(inner: Incoming, lease: Lease, watch: Watch) -> Self {
        Self { inner, lease: Some(lease), watch, done: false }
    }

    fn finish(&mut self) {
        self.done = true;
        if let Some(lease) = self.lease.take() {
            lease.finish(self.watch.exchange.as_deref());
        }
    }

    /// The connection broke: for the caller's body, where that broke first and took the connection with it.
    fn broken(&mut self, error: hyper::Error) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let caller = self.watch.exchange.as_ref().and_then(|exchange| exchange.take_failure());
        self.fail(match caller.map(|cause| cause.downcast::<StreamError>()) {
            None => StreamError::Upstream(error),
            Some(Ok(end)) => *end,
            Some(Err(_)) => StreamError::Caller,
        })
    }

    fn fail(&mut self, error: StreamError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.done = true;
        self.lease = None;
        Poll::Ready(Some(Err(error.into())))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(context) else {
            let end = ready!(self.watch.poll_waiting(context));
            return self.fail(end);
        };
        let frame = match next {
            None => {
                self.finish();
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.broken(error),
            Some(Ok(frame)) => frame,
        };
        if let Err(end) = self.watch.moved() {
            return self.fail(end);
        }
        let (frame, is_last) = match frame.into_trailers() {
            Ok(trailers) => (Frame::trailers(filtered(trailers, headers::allow_trailer)), true),
            Err(frame) => (frame, false),
        };
        // Readers of a body with a length stop at its last byte, and readers of trailers there: nobody asks for the end.
        if is_last || self.inner.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn filtered(trailers: HeaderMap, allow: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    if trailers.keys().all(&allow) {
        return trailers;
    }
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if allow(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}
