//! What moves an HTTP/1.1 connection: whoever waits for its answer.
//!
//! hyper's connection does nothing unless it is polled. Whoever waits for an answer polls it, in one task with the
//! caller's own connection: no request wakes another task, and an idle connection has none. Only while a body goes up,
//! which has to move whether or not the caller takes the answer meanwhile, a task of its own does.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::task::AbortHandle;

/// A connection's own work. Dropped, the connection is closed.
pub(super) struct Driver {
    work: Arc<Work>,
    /// Polls it too, for as long as the exchange lasts.
    task: Option<AbortHandle>,
    /// Set once the other side has refused a write.
    deaf: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

/// `None` once it is over.
struct Work(Mutex<Option<BoxFuture<'static, ()>>>);

impl Work {
    fn lock(&self) -> MutexGuard<'_, Option<BoxFuture<'static, ()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut work = self.lock();
        match work.as_mut().map(|connection| connection.poll_unpin(context)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(())) | None => {
                *work = None;
                Poll::Ready(())
            }
        }
    }
}

impl Driver {
    /// Drives `connection`, which `open` counts while it lives.
    pub(super) fn new(
        connection: impl Future<Output = ()> + Send + 'static,
        deaf: Arc<AtomicBool>,
        open: &Arc<AtomicUsize>,
    ) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self { work: Arc::new(Work(Mutex::new(Some(connection.boxed())))), task: None, deaf, open: open.clone() }
    }

    /// Has a task of its own move it from now on.
    pub(super) fn spawn(&mut self) {
        if self.task.is_none() {
            let work = Arc::clone(&self.work);
            self.task = Some(tokio::spawn(poll_fn(move |context| work.poll(context))).abort_handle());
        }
    }

    /// The exchange is over: nobody moves it until it is looked at.
    pub(super) fn rest(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Sees what came while nobody looked: the end of the exchange before, or of the connection.
    pub(super) fn look(&self) {
        let _over = self.work.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether the connection is over, or takes no request any more.
    pub(super) fn ended(&self) -> bool {
        self.deaf.load(Ordering::Relaxed) || self.work.lock().is_none()
    }

    /// Closes the connection before anybody can notice.
    #[cfg(test)]
    pub(super) fn close(&self) {
        *self.work.lock() = None;
    }

    /// What `answer` gives, which this work brings about.
    pub(super) fn poll_answer<F: Future>(&self, answer: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.task.is_some() {
            return answer.poll(context);
        }
        let _over = self.work.poll(context);
        // Nothing else can bring it, so nothing else has to wake.
        answer.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// The next frame of an answer's body.
    pub(super) fn poll_frame(
        &self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.task.is_some() {
            return Pin::new(body).poll_frame(context);
        }
        // Asked first, the body lets the connection know that it is wanted.
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        let _over = self.work.poll(context);
        Pin::new(body).poll_frame(&mut quiet)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.rest();
        // A task that was told to end may hold it for a moment longer.
        *self.work.lock() = None;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").field("has_task", &self.task.is_some()).finish_non_exhaustive()
    }
}
