//! One fetch for all who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Fetch;
use crate::credential::source::{Issued, SourceError};

/// Pauses between tries are random, up to this for the first one, twice that for the next, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;

pub(super) type Landed = Result<Arc<Issued>, SourceError>;

/// A fetch under way, as one who waits sees it.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    landed: watch::Receiver<Option<Landed>>,
    waiting: Arc<AtomicUsize>,
}

impl Flight {
    /// Has a task of its own do `work`.
    pub(super) fn start(work: impl Future<Output = Landed> + Send + 'static) -> Self {
        let (sender, landed) = watch::channel(None);
        tokio::spawn(async move {
            let outcome = work.await;
            sender.send_replace(Some(outcome));
        });
        Self { landed, waiting: Arc::default() }
    }

    /// Whether there is still something to wait for. A task that panicked, or whose thread is gone, brings nothing.
    pub(super) fn is_under_way(&self) -> bool {
        self.landed.has_changed().is_ok() && self.landed.borrow().is_none()
    }

    /// The same flight for one more, if there are fewer than `most`.
    pub(super) fn join(&self, most: usize) -> Option<Self> {
        (self.waiting.load(Ordering::Relaxed) < most).then(|| self.clone())
    }

    /// What it brings, within `patience`.
    pub(super) async fn land(mut self, patience: Duration) -> Landed {
        let waiting = Waiting::begin(self.waiting.clone());
        let landed = tokio::time::timeout(patience, self.landed.wait_for(Option::is_some)).await;
        drop(waiting);
        match landed {
            Err(_) => Err(SourceError::timeout(patience)),
            Ok(Err(_)) => Err(SourceError::passing("credential_fetch_lost", "the fetch was given up")),
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(SourceError::timeout(patience))),
        }
    }
}

struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tries `fetch` up to three times within `longest`, as far as its errors may pass. An issuer that asks for a pause gets
/// it, or is not asked again.
pub(super) async fn with_retries(fetch: &impl Fetch, longest: Duration) -> Result<Issued, SourceError> {
    let end = Instant::now() + longest;
    let mut tried = 1;
    loop {
        let error = match tokio::time::timeout_at(end, fetch.attempt()).await {
            Err(_) => return Err(SourceError::timeout(longest)),
            Ok(Ok(issued)) => return Ok(issued),
            Ok(Err(error)) => error,
        };
        let pause = error.pause().unwrap_or_else(|| random_pause(tried));
        if !error.may_pass() || tried >= TRIES || Instant::now() + pause >= end {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        tried += 1;
    }
}

/// Full jitter.
fn random_pause(tried: u32) -> Duration {
    let longest = (FIRST_PAUSE * 2_u32.saturating_pow(tried - 1)).min(LONGEST_PAUSE);
    longest * u32::from(super::jitter()) / 255
}
