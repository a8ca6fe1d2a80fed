//! What others issued and want back: given back when nobody holds it any more, and when the process stops.
//!
//! Nothing rests on it: whatever is not given back ends by itself, a little later.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::source::SourceError;
use crate::clock::{Clock, Timestamp};

/// A request that was sent with it may not have been looked at yet.
const GRACE: Duration = Duration::from_secs(10);
/// Given back at once, at most.
const AT_ONCE: usize = 16;

/// Gives one thing back to its issuer. It may be asked to twice, when the process stops meanwhile.
pub(super) type GiveBack = Arc<dyn Fn() -> BoxFuture<'static, Result<(), SourceError>> + Send + Sync>;

/// Everything that is to be given back. Clones share it; it lives beside the snapshot, and so survives a reload. It
/// holds no more than whoever keeps the `Lease`s does, and for a moment those that they let go.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    clock: Clock,
    held: Mutex<Held>,
    dropped: Notify,
}

#[derive(Default)]
struct Held {
    last: u64,
    by_number: BTreeMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    credential: Arc<str>,
    id: Arc<str>,
    ends_at: Timestamp,
    dropped_at: Option<Instant>,
    give_back: GiveBack,
}

/// A thing that is given back some seconds after this is dropped.
pub(super) struct Lease {
    number: u64,
    leases: Leases,
}

impl fmt::Debug for Leases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Leases").field("held", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Leases {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, held: Mutex::default(), dropped: Notify::new() }))
    }

    /// How many are to be given back.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held().by_number.len()
    }

    /// Whether nothing is to be given back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them nobody holds any more.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> usize {
        self.held().by_number.values().filter(|entry| entry.dropped_at.is_some()).count()
    }

    /// Holds what `credential` was issued by this public identifier until `ends_at`.
    pub(super) fn hold(&self, credential: Arc<str>, id: Arc<str>, ends_at: Timestamp, give_back: GiveBack) -> Lease {
        let mut held = self.held();
        held.last += 1;
        let number = held.last;
        held.by_number.insert(number, Entry { credential, id, ends_at, dropped_at: None, give_back });
        Lease { number, leases: self.clone() }
    }

    /// Gives back what is dropped, for as long as the process runs.
    pub async fn look_after(self) {
        loop {
            self.0.dropped.notified().await;
            tokio::time::sleep(GRACE).await;
            let ripe = |entry: &Entry| entry.dropped_at.is_some_and(|dropped| dropped.elapsed() >= GRACE);
            let ripe = self.live(ripe);
            let numbers: Vec<u64> = ripe.iter().map(|(number, _)| *number).collect();
            // They stay until they are given back: the end of the process may come before.
            give_back(ripe).await;
            self.held().by_number.retain(|number, _| !numbers.contains(number));
        }
    }

    /// Gives back everything, in `longest` at most. Call it when no request is served any more.
    pub async fn end(&self, longest: Duration) {
        let all = self.live(|_| true);
        self.held().by_number.clear();
        if all.is_empty() {
            return;
        }
        let count = all.len();
        match tokio::time::timeout(longest, give_back(all)).await {
            Ok(()) => tracing::info!(count, "what others issued was given back"),
            Err(_) => {
                tracing::warn!(count, "not all that others issued could be given back in time; it ends by itself")
            }
        }
    }

    /// Those that have not ended by themselves.
    fn live(&self, which: impl Fn(&Entry) -> bool) -> Vec<(u64, Entry)> {
        let now = self.0.clock.now();
        let mut held = self.held();
        held.by_number.retain(|_, entry| entry.ends_at > now);
        let chosen = held.by_number.iter().filter(|(_, entry)| which(entry));
        chosen.map(|(number, entry)| (*number, entry.clone())).collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn give_back(entries: Vec<(u64, Entry)>) {
    let one = |entry: Entry| async move {
        let Entry { credential, id, give_back, .. } = entry;
        match give_back().await {
            Ok(()) => tracing::debug!(%credential, %id, "given back"),
            Err(error) => tracing::warn!(%credential, %id, %error, "could not be given back; it ends by itself"),
        }
    };
    stream::iter(entries).map(|(_, entry)| one(entry)).buffer_unordered(AT_ONCE).collect::<()>().await;
}

impl Lease {
    /// It ends at another time from now on.
    pub(super) fn extend(&self, ends_at: Timestamp) {
        if let Some(entry) = self.leases.held().by_number.get_mut(&self.number) {
            entry.ends_at = ends_at;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = self.leases.0.clock.now();
        let mut held = self.leases.held();
        let Some(entry) = held.by_number.get_mut(&self.number) else { return };
        if entry.ends_at <= now {
            held.by_number.remove(&self.number);
            return;
        }
        entry.dropped_at = Some(Instant::now());
        drop(held);
        self.leases.0.dropped.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct World {
        clock: Clock,
        leases: Leases,
        given_back: Arc<AtomicUsize>,
    }

    impl World {
        fn new() -> Self {
            let clock = Clock::system();
            Self { leases: Leases::new(clock.clone()), clock, given_back: Arc::default() }
        }

        fn hold(&self, outcome: Result<(), SourceError>) -> Lease {
            let given_back = self.given_back.clone();
            let give_back = Arc::new(move || {
                given_back.fetch_add(1, Ordering::Relaxed);
                std::future::ready(outcome.clone()).boxed()
            });
            self.leases.hold("db".into(), "lease-1".into(), self.clock.now().plus(HOUR), give_back)
        }

        fn given_back(&self) -> usize {
            self.given_back.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_given_back_once_its_last_request_has_arrived() {
        let world = World::new();
        let _upkeep = tokio::spawn(world.leases.clone().look_after());
        let (first, second, kept) = (world.hold(Ok(())), world.hold(Ok(())), world.hold(Ok(())));
        drop(first);
        tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        drop(second);
        assert_eq!(world.given_back(), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.given_back(), 1, "each has its own grace");
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!((world.given_back(), world.leases.len()), (2, 1));
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_all_is_given_back_whether_held_or_dropped_and_none_twice() {
        let world = World::new();
        let away = SourceError::passing(SourceError::UNAVAILABLE, "away");
        let held = (world.hold(Ok(())), world.hold(Err(away)), world.hold(Ok(())));
        drop(held.0);
        world.leases.end(HOUR).await;
        assert_eq!((world.given_back(), world.leases.is_empty()), (3, true));
        drop((held.1, held.2));
        world.leases.end(HOUR).await;
        assert_eq!(world.given_back(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_answer_holds_up_no_end() {
        let world = World::new();
        let ends_at = world.clock.now().plus(HOUR);
        let never = Arc::new(|| std::future::pending().boxed());
        let _held = world.leases.hold("db".into(), "lease-1".into(), ends_at, never);
        let began = Instant::now();
        world.leases.end(Duration::from_secs(5)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_back_when_the_process_stops_is_given_back_all_the_same() {
        let world = World::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let first_hangs = Arc::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => std::future::pending().boxed(),
            _ => std::future::ready(Ok(())).boxed(),
        });
        let ends_at = world.clock.now().plus(HOUR);
        let upkeep = tokio::spawn(world.leases.clone().look_after());
        drop(world.leases.hold("db".into(), "lease-1".into(), ends_at, first_hangs));
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        upkeep.abort();
        world.leases.end(HOUR).await;
        assert_eq!((asked.load(Ordering::Relaxed), world.leases.is_empty()), (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_by_itself_is_not_given_back() {
        let world = World::new();
        let (held, dropped, extended) = (world.hold(Ok(())), world.hold(Ok(())), world.hold(Ok(())));
        extended.extend(world.clock.now().plus(HOUR * 2));
        world.clock.advance(HOUR);
        drop(dropped);
        assert_eq!(world.leases.len(), 2);
        world.leases.end(HOUR).await;
        assert_eq!((world.given_back(), world.leases.is_empty()), (1, true));
        drop((held, extended));
    }
}
