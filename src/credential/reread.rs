//! A value from files that is read again while the proxy runs, so that replacing the files replaces the value.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::clock::Timestamp;

/// How long the last good value is used while its files cannot be read.
pub const KEPT_WITHOUT_FILE: Duration = Duration::from_secs(60);
pub(super) const READ_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the disk on a request's way.
const DEADLINE: Duration = Duration::from_secs(2);

type Read<T> = dyn Fn(Timestamp) -> Result<T, String> + Send + Sync;

/// The value, read again at most once a second, by whoever needs it then. One that equals the value before leaves that
/// in place. What can no longer be read is used for [`KEPT_WITHOUT_FILE`] longer.
pub(super) struct Reread<T> {
    /// Reads the value as of a time, which blocks on the disk, or says what is wrong without showing any of it.
    read: Arc<Read<T>>,
    state: ArcSwap<State<T>>,
    read_at_millis: AtomicI64,
    /// The read under way: held, so that a disk that hangs holds one thread and not one a second.
    pub(super) reading: Mutex<Option<JoinHandle<Result<T, String>>>>,
}

struct State<T> {
    value: Arc<T>,
    failing: Option<(Timestamp, String)>,
}

impl<T: fmt::Debug> fmt::Debug for Reread<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reread").field("value", &self.state.load().value).finish_non_exhaustive()
    }
}

impl<T: PartialEq + Send + Sync + 'static> Reread<T> {
    /// Reads the value for the first time. Blocks on the disk.
    ///
    /// # Errors
    /// What `read` says.
    pub(super) fn load(
        read: impl Fn(Timestamp) -> Result<T, String> + Send + Sync + 'static,
        now: Timestamp,
    ) -> Result<Self, String> {
        let state = State { value: Arc::new(read(now)?), failing: None };
        Ok(Self {
            read: Arc::new(read),
            state: ArcSwap::from_pointee(state),
            read_at_millis: AtomicI64::new(now.unix_millis()),
            reading: Mutex::new(None),
        })
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let read_at = Timestamp::from_unix_millis(self.read_at_millis.load(Ordering::Relaxed));
        now < read_at || now.since(read_at) >= READ_AT_MOST_EVERY
    }

    /// What is known at `now` without looking.
    ///
    /// # Errors
    /// What was wrong with the last read, once it has been wrong for a while.
    pub(super) fn current(&self, now: Timestamp) -> Result<Arc<T>, String> {
        let state = self.state.load();
        match &state.failing {
            Some((since, detail)) if now.since(*since) >= KEPT_WITHOUT_FILE => Err(detail.clone()),
            Some(_) | None => Ok(state.value.clone()),
        }
    }

    /// What is known at `now` after looking, if it is time to.
    ///
    /// # Errors
    /// As [`Reread::current`].
    pub(super) async fn refreshed(&self, now: Timestamp) -> Result<Arc<T>, String> {
        // A wait that outlasts the deadline leaves the old state, which has its own end.
        let _in_time = tokio::time::timeout(DEADLINE * 2, self.refresh(now)).await;
        self.current(now)
    }

    /// Reads again; whoever comes meanwhile waits for the same read.
    async fn refresh(&self, now: Timestamp) {
        let mut reading = self.reading.lock().await;
        if !self.is_due(now) {
            return;
        }
        let outcome = match reading.take() {
            // The last wait was in vain: nobody waits again for the same read.
            Some(handle) if !handle.is_finished() => {
                *reading = Some(handle);
                Err("reading takes too long".to_owned())
            }
            handle => {
                let read = self.read.clone();
                let start = || tokio::task::spawn_blocking(move || read(now));
                let handle = reading.insert(handle.unwrap_or_else(start));
                let outcome = tokio::time::timeout(DEADLINE, handle).await;
                if outcome.is_ok() {
                    *reading = None;
                }
                match outcome {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err("reading was aborted".to_owned()),
                    Err(_) => Err("reading takes too long".to_owned()),
                }
            }
        };
        let before = self.state.load();
        let state = match outcome {
            Ok(value) if value == *before.value => State { value: before.value.clone(), failing: None },
            Ok(value) => State { value: Arc::new(value), failing: None },
            Err(detail) => {
                let since = before.failing.as_ref().map_or(now, |(since, _)| *since);
                State { value: before.value.clone(), failing: Some((since, detail)) }
            }
        };
        self.state.store(Arc::new(state));
        self.read_at_millis.store(now.unix_millis(), Ordering::Relaxed);
    }
}
