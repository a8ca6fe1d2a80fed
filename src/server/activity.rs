//! What each connection is doing, and who tells it to stop.
//!
//! No request and no connection has a timer of its own. Connections leave marks in a few atomics; one sweep for the
//! whole server reads them and gives orders. Time is counted in sweeps, so a machine that stalls makes a limit
//! longer, never shorter.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio_util::task::TaskTracker;

use super::anomaly::{Anomaly, FirstAnomaly};
use super::untaken::Untaken;

/// What a connection has to do; only ever raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// Finish what is open, begin nothing.
    Close,
    /// Drop everything now.
    Cut,
}

impl Order {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Serve,
            1 => Self::Close,
            _ => Self::Cut,
        }
    }
}

const HANDSHAKE: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;
const UPGRADED: u8 = 3;

/// Requests that a client may take back within one sweep before its connection is a flood (CVE-2023-44487).
const ABORTED_IN_A_SWEEP: u32 = 200;

/// The marks of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    sweeps: Arc<AtomicU64>,
    order: AtomicU8,
    phase: AtomicU8,
    open_requests: AtomicU32,
    aborted: AtomicU32,
    /// Sweep at which the last request ended or, over HTTP/1, the last byte was written.
    quiet_since: AtomicU64,
    /// Sweep at which a request head began; `NEVER` outside one.
    head_since: AtomicU64,
    /// Sweep at which the socket stopped taking bytes; `NEVER` while it takes them.
    stalled_since: AtomicU64,
    untaken: Untaken,
    /// Streams that HTTP/2 opened, less those that became a request.
    unserved: AtomicI64,
    /// Sweep at which it was told to close; `NEVER` before.
    closing_since: AtomicU64,
    /// Whether the last request's body was left unread over HTTP/1.
    left_unread: AtomicBool,
    anomaly: FirstAnomaly,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// No such moment.
pub(super) const NEVER: u64 = u64::MAX;

impl Activity {
    pub(super) fn new(sweeps: Arc<AtomicU64>) -> Self {
        let now = sweeps.load(Ordering::Relaxed);
        Self {
            sweeps,
            order: AtomicU8::new(Order::Serve as u8),
            phase: AtomicU8::new(HANDSHAKE),
            open_requests: AtomicU32::new(0),
            aborted: AtomicU32::new(0),
            quiet_since: AtomicU64::new(now),
            head_since: AtomicU64::new(NEVER),
            stalled_since: AtomicU64::new(NEVER),
            untaken: Untaken::default(),
            unserved: AtomicI64::new(0),
            closing_since: AtomicU64::new(NEVER),
            left_unread: AtomicBool::new(false),
            anomaly: FirstAnomaly::default(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// The sweep that was last.
    pub(super) fn now(&self) -> u64 {
        self.sweeps.load(Ordering::Relaxed)
    }

    /// The order in force.
    pub(super) fn order(&self) -> Order {
        Order::from_number(self.order.load(Ordering::Acquire))
    }

    /// Gives an order; a lower one than the order in force changes nothing.
    pub(super) fn command(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.closing_since.store(self.now(), Ordering::Relaxed);
            self.reader.wake();
            self.writer.wake();
        }
    }

    /// The order in force; the task is woken when it changes.
    pub(super) fn poll_order(&self, cx: &Context<'_>) -> Order {
        self.reader.register(cx.waker());
        self.order()
    }

    /// Runs `future` unless this connection is told to close first.
    pub(super) async fn unless_closing<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match self.poll_order(cx) {
            Order::Serve => future.as_mut().poll(cx).map(Some),
            Order::Close | Order::Cut => Poll::Ready(None),
        })
        .await
    }

    /// The handshake is over and no protocol is known yet.
    pub(super) fn begin_http1(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
        self.phase.store(HTTP1, Ordering::Relaxed);
    }

    /// The client opened this many streams. Those that cross our GOAWAY are refused for no fault of its own.
    pub(super) fn streams_opened(&self, streams: u32) {
        if streams > 0 && self.order() == Order::Serve {
            self.unserved.fetch_add(streams.into(), Ordering::Relaxed);
        }
    }

    /// Whether streams of HTTP/2 were opened that became no request.
    pub(super) fn has_unserved_streams(&self) -> bool {
        self.unserved.load(Ordering::Relaxed) > 0
    }

    /// The connection speaks HTTP/2.
    pub(super) fn begin_http2(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.phase.store(HTTP2, Ordering::Relaxed);
    }

    /// HTTP is over; if the stream lives on it was upgraded, and only a cut ends it.
    pub(super) fn begin_upgraded(&self) {
        self.phase.store(UPGRADED, Ordering::Release);
        self.reader.wake();
    }

    /// Bytes came in.
    pub(super) fn saw_read(&self) {
        if self.phase.load(Ordering::Relaxed) == HTTP1
            && self.open_requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == NEVER
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes went out. HTTP/2 writes pings of its own, which are no sign of use.
    pub(super) fn saw_write(&self) {
        self.stalled_since.store(NEVER, Ordering::Relaxed);
        if self.phase.load(Ordering::Relaxed) == HTTP1 {
            self.quiet_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes wait, because the client does not take those before them.
    pub(super) fn saw_stall(&self) {
        if self.stalled_since.load(Ordering::Relaxed) == NEVER {
            self.stalled_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A frame of an answer was handed to the connection: the sweep at which that was, for [`Activity::frame_taken`];
    /// `None` where the socket's own marks tell as much.
    pub(super) fn frame_handed(&self) -> Option<u64> {
        (self.phase.load(Ordering::Relaxed) == HTTP2).then(|| {
            let now = self.now();
            self.untaken.handed(now);
            now
        })
    }

    /// The client took the frame that was handed on at the sweep `since`, or its stream is gone.
    pub(super) fn frame_taken(&self, since: u64) {
        self.untaken.taken(since);
    }

    /// The client did what nobody may.
    pub(super) fn note(&self, anomaly: Anomaly) {
        self.anomaly.note(anomaly);
    }

    /// The first thing that the client did and nobody may.
    pub(super) fn anomaly(&self) -> Option<Anomaly> {
        self.anomaly.get()
    }

    /// Whether bytes that come are an HTTP/1 message's.
    pub(super) fn speaks_http1(&self) -> bool {
        self.phase.load(Ordering::Acquire) == HTTP1
    }

    /// What is left of a request's body will not be read.
    pub(super) fn leave_unread(&self) {
        self.left_unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending what nobody reads.
    pub(super) fn has_left_unread(&self) -> bool {
        self.left_unread.load(Ordering::Relaxed) && self.phase.load(Ordering::Relaxed) == HTTP1
    }

    /// An error once an upgraded connection is cut. Nobody but its two directions polls it by then.
    pub(super) fn check_read(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.reader, cx)
    }

    /// As [`Activity::check_read`], for the other direction.
    pub(super) fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.writer, cx)
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        if self.phase.load(Ordering::Acquire) == UPGRADED {
            waker.register(cx.waker());
            if self.order() == Order::Cut {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// Whether the client took back more requests within one sweep than a client in good faith.
    fn is_flooded(&self) -> bool {
        self.aborted.load(Ordering::Relaxed) > ABORTED_IN_A_SWEEP
    }

    /// The sweep since which nothing happens here; `None` when something does, or did a moment ago.
    pub(super) fn idle_since(&self, now: u64) -> Option<u64> {
        // A client that shakes hands is busy; one that takes longer than any in good faith is not.
        let moment = match self.phase.load(Ordering::Relaxed) {
            HANDSHAKE => 2,
            UPGRADED => return None,
            _ => 1,
        };
        let is_idle = self.open_requests.load(Ordering::Acquire) == 0 && self.order() == Order::Serve;
        Some(self.quiet_since.load(Ordering::Relaxed)).filter(|since| is_idle && now.saturating_sub(*since) >= moment)
    }

    /// Whether it was told to close a sweep ago or more, has nothing left to finish, and is still there.
    pub(super) fn overstays(&self, now: u64) -> bool {
        self.order() == Order::Close
            && self.phase.load(Ordering::Relaxed) != UPGRADED
            && self.open_requests.load(Ordering::Acquire) == 0
            && self.closing_since.load(Ordering::Relaxed) < now
    }

    /// Notes what the client did, and drops everything.
    pub(super) fn cut_for(&self, anomaly: Anomaly) {
        self.note(anomaly);
        self.command(Order::Cut);
    }

    /// Judges the marks at a sweep.
    pub(super) fn sweep(&self, now: u64, header_read: u64, idle: u64) {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == HANDSHAKE || self.order() == Order::Cut {
            return;
        }
        let stalled_since = self.stalled_since.load(Ordering::Relaxed);
        if stalled_since != NEVER && now.saturating_sub(stalled_since) > idle {
            return self.cut_for(Anomaly::Untaken);
        }
        if phase == UPGRADED {
            return;
        }
        self.aborted.store(0, Ordering::Relaxed);
        let untaken = self.untaken.oldest().map_or(0, |since| now.saturating_sub(since));
        if untaken > idle.saturating_mul(2) {
            return self.cut_for(Anomaly::Untaken);
        }
        if untaken > idle {
            // Its other streams get as long again to finish.
            self.command(Order::Close);
        }
        if self.open_requests.load(Ordering::Acquire) > 0 {
            return;
        }
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since != NEVER && now.saturating_sub(head_since) > header_read {
            return self.cut_for(Anomaly::SlowHead);
        }
        let quiet = now.saturating_sub(self.quiet_since.load(Ordering::Relaxed));
        if quiet > idle {
            self.command(Order::Close);
        }
        // A client that neither reads nor hangs up after the polite end.
        if quiet > idle.saturating_add(header_read) {
            self.command(Order::Cut);
        }
    }
}

/// An open request of a connection, from its head to the end of its answer's body.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<Activity>,
    answered: bool,
}

impl OpenRequest {
    /// Counts a request whose head has been read.
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.open_requests.fetch_add(1, Ordering::AcqRel);
        activity.unserved.fetch_sub(1, Ordering::Relaxed);
        activity.head_since.store(NEVER, Ordering::Relaxed);
        activity.left_unread.store(false, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), answered: false }
    }

    /// The connection of this request.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The handler gave its answer; with it, the connection may leave HTTP.
    pub(super) fn answered(&mut self, upgraded: bool) {
        self.answered = true;
        if upgraded {
            // Before hyper hands the stream on, so that whoever polls it next is woken by a cut.
            self.activity.begin_upgraded();
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !self.answered {
            self.activity.aborted.fetch_add(1, Ordering::Relaxed);
            if self.activity.is_flooded() {
                self.activity.cut_for(Anomaly::Flood);
            }
        }
        self.activity.quiet_since.store(self.activity.now(), Ordering::Relaxed);
        self.activity.open_requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Spawns the tasks of HTTP/2 streams where the drain waits for them.
#[derive(Clone, Debug)]
pub(super) struct TrackedExecutor(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

/// Drives a hyper connection under its orders; the answer is `None` when it was cut.
pub(super) async fn obey<C, T>(
    activity: &Activity,
    mut connection: Pin<&mut C>,
    close: impl Fn(Pin<&mut C>),
) -> Option<T>
where
    C: Future<Output = T>,
{
    let mut closing = false;
    std::future::poll_fn(|cx| {
        match activity.poll_order(cx) {
            Order::Serve => {}
            Order::Close if closing => {}
            Order::Close => {
                closing = true;
                close(connection.as_mut());
            }
            Order::Cut => return Poll::Ready(None),
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await
}
