//! What the writer's thread and the rest of the process know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A write that takes longer than this is a fault.
const SLOW_WRITE_MILLIS: u64 = 5000;

/// What the writer's thread says about itself, and how it is told to stop.
#[derive(Debug)]
pub(super) struct WriterState {
    base: Instant,
    written: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
    gone: AtomicBool,
    /// Milliseconds after `base` when the write under way began; 0 when there is none.
    write_began: AtomicU64,
    /// Milliseconds after `base`; 0 while nobody asked to stop.
    stop_by: AtomicU64,
    stop: Notify,
    hurry: Notify,
}

impl Default for WriterState {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            written: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            write_began: AtomicU64::new(0),
            stop_by: AtomicU64::new(0),
            stop: Notify::new(),
            hurry: Notify::new(),
        }
    }
}

impl WriterState {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(super) fn has_written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Release);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn goes(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_healthy(&self) -> bool {
        let began = self.write_began.load(Ordering::Relaxed);
        let stuck = began != 0 && self.millis().saturating_sub(began) > SLOW_WRITE_MILLIS;
        !(stuck || self.failing.load(Ordering::Relaxed) || self.is_gone())
    }

    pub(super) fn write_begins(&self) {
        let _unless_under_way =
            self.write_began.compare_exchange(0, self.millis(), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn write_worked(&self) {
        self.write_began.store(0, Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
    }

    pub(super) fn write_failed(&self) {
        self.write_began.store(0, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// Never 0.
    fn millis(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn stop_by(&self, within: Duration) {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let _only_the_first =
            self.stop_by.compare_exchange(0, self.millis().saturating_add(within), Ordering::AcqRel, Ordering::Acquire);
        self.stop.notify_one();
    }

    /// Somebody waits for a line: the writer makes no pause before its next batch.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Ends when somebody waits for a line.
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Ends when somebody asks the writer to stop.
    pub(super) async fn stop_asked(&self) {
        self.stop.notified().await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_by.load(Ordering::Acquire) != 0
    }

    /// What is left until the writer must be gone; `None` while nobody asked it to go.
    pub(super) fn time_left(&self) -> Option<Duration> {
        match self.stop_by.load(Ordering::Acquire) {
            0 => None,
            by => Some(Duration::from_millis(by.saturating_sub(self.millis()))),
        }
    }
}

/// Says that the thread is gone, however it went.
pub(super) struct Alive(Arc<WriterState>);

impl Alive {
    pub(super) fn new(state: Arc<WriterState>) -> Self {
        Self(state)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.goes();
    }
}
