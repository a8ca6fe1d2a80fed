//! The one cache of what others issue: one fetch for all who wait, renewed ahead, kept to its end while its issuer is
//! away.
//!
//! A fetch is a task of its own: whoever asked first may lose patience, and the others still get what it brings.

mod flight;
mod schedule;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::source::{Issued, SourceError};
use crate::clock::{Clock, Timestamp};
use flight::Flight;
use schedule::Schedule;

/// A fetch is tried again within this time, and given up after it.
pub(super) const LONGEST_FETCH: Duration = Duration::from_secs(20);
/// Requests that wait for one fetch at most.
const MOST_WAITING: usize = 1000;
/// Fetches that are under way at once, of all keys together.
const MOST_FLIGHTS: usize = 512;
/// Of one issuer.
const MOST_FLIGHTS_OF_ONE: usize = 128;
/// How long a refusal stands in for another attempt, and a failure that may pass.
const REFUSED: Duration = Duration::from_secs(5);
const FAILED: Duration = Duration::from_secs(1);
/// The longest that an issuer may ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What was issued this short a time ago has not expired, whatever an upstream says: it would make every request fetch.
const SURELY_GOOD: Duration = Duration::from_secs(5);
/// Between two renewals beside requests: an issuer with a cache of its own gives the same thing again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// What is issued under a key: everything that makes two credentials differ, digested.
pub(super) type Key = [u8; 32];

/// How one credential is obtained from its issuer.
pub(super) trait Fetch: Send + Sync + 'static {
    /// Asks once. Called again for another try.
    fn attempt(&self) -> BoxFuture<'static, Result<Issued, SourceError>>;

    /// Places for fetches of its issuer that are under way at once, so that one that does not answer holds no other's.
    fn places(&self) -> &Places;

    /// Puts on record what came of all tries, before anybody has it.
    ///
    /// # Errors
    /// The record takes nothing: then nobody gets what was issued.
    fn record(&self, outcome: Result<&Issued, &SourceError>) -> Result<(), SourceError>;
}

/// What is at hand for a request.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) issued: Arc<Issued>,
    /// Whether this request waited for it.
    pub(super) fresh: bool,
}

/// Places for fetches of one issuer that are under way at once. Clones share them.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_FLIGHTS_OF_ONE)))
    }
}

/// A bounded cache of what others issue. Clones share it; it lives beside the snapshot, and so survives a reload.
#[derive(Clone)]
pub struct IssuedCache(Arc<Inner>);

struct Inner {
    slots: quick_cache::sync::Cache<Key, Arc<Slot>>,
    clock: Clock,
    flights: Arc<Semaphore>,
}

impl fmt::Debug for IssuedCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuedCache").field("entries", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    flight: Option<Flight>,
    /// The last failure, and until when it answers for the issuer.
    failed: Option<(SourceError, Instant)>,
    /// No renewal beside requests before this.
    renew_after: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    issued: Arc<Issued>,
    schedule: Schedule,
}

impl Held {
    /// Whether it has this identifier, and was not issued a moment ago.
    fn may_be_dropped(&self, id: &str, now: Timestamp) -> bool {
        *self.issued.id == *id && self.schedule.age(now) >= SURELY_GOOD
    }
}

/// What a request does next.
enum Next {
    Take(Arc<Issued>),
    Fail(SourceError),
    Wait(Flight),
}

impl IssuedCache {
    /// A cache of at most `capacity` credentials.
    #[must_use]
    pub fn new(capacity: usize, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            slots: quick_cache::sync::Cache::new(capacity),
            clock,
            flights: Arc::new(Semaphore::new(MOST_FLIGHTS)),
        }))
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.slots.is_empty()
    }

    /// Lets go of what has ended. Call it every minute or so.
    pub fn forget_ended(&self, now: Timestamp) {
        self.0.slots.retain(|_, slot| {
            let state = slot.lock();
            let serves = state.held.as_ref().is_some_and(|held| held.schedule.serves(now));
            serves || state.flight.as_ref().is_some_and(Flight::is_under_way) || state.blames(Instant::now()).is_some()
        });
    }

    /// What was issued under `key`, if it may be handed out and is not due to be renewed.
    pub(super) fn at_hand(&self, key: &Key, now: Timestamp) -> Option<Arc<Issued>> {
        let slot = self.0.slots.get(key)?;
        let state = slot.lock();
        let held = state.held.as_ref()?;
        (held.schedule.serves(now) && !held.schedule.is_due(now)).then(|| held.issued.clone())
    }

    /// What is issued under `key`, fetched if it must be, within `patience`.
    ///
    /// # Errors
    /// The issuer's own error, for a while after it; [`SourceError`] `credential_timeout`, `credential_overloaded`.
    pub(super) async fn obtain(
        &self,
        key: Key,
        patience: Duration,
        fetch: &Arc<impl Fetch>,
    ) -> Result<Found, SourceError> {
        let slot = match self.0.slots.get(&key) {
            Some(slot) => slot,
            None => self.slot(key),
        };
        let flight = match slot.next(&self.0.clock, fetch, &self.0.flights) {
            Next::Take(issued) => return Ok(Found { issued, fresh: false }),
            Next::Fail(error) => return Err(error),
            Next::Wait(flight) => flight,
        };
        let issued = flight.land(patience).await?;
        Ok(Found { issued, fresh: true })
    }

    /// What is issued under `key` in place of what has this public identifier, which serves everybody else until then.
    /// What was issued a moment ago is believed, and comes back.
    ///
    /// # Errors
    /// As [`IssuedCache::obtain`].
    pub(super) async fn replace(
        &self,
        key: Key,
        id: &str,
        patience: Duration,
        fetch: &Arc<impl Fetch>,
    ) -> Result<Arc<Issued>, SourceError> {
        let slot = self.slot(key);
        let flight = match slot.after(id, &self.0.clock, fetch, &self.0.flights) {
            Next::Take(issued) => return Ok(issued),
            Next::Fail(error) => return Err(error),
            Next::Wait(flight) => flight,
        };
        flight.land(patience).await
    }

    /// The upstream says that what is kept under `key`, by this public identifier, is of no use any more.
    /// What was issued a moment ago is believed; else `tell` is called before anybody can ask for the next one.
    pub(super) fn drop_expired(&self, key: &Key, id: &str, tell: impl FnOnce()) {
        let Some(slot) = self.0.slots.get(key) else { return };
        let mut state = slot.lock();
        let now = self.0.clock.now();
        if state.held.as_ref().is_some_and(|held| held.may_be_dropped(id, now)) {
            tell();
            state.held = None;
            state.renew_after = None;
        }
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let made = self.0.slots.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match made {
            Ok(slot) => slot,
            Err(never) => match never {},
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(self: &Arc<Self>, clock: &Clock, fetch: &Arc<impl Fetch>, flights: &Arc<Semaphore>) -> Next {
        let (now, instant) = (clock.now(), Instant::now());
        let mut state = self.lock();
        if let Some(held) = state.held.as_ref().filter(|held| held.schedule.serves(now)) {
            let issued = held.issued.clone();
            if held.schedule.is_due(now) && state.may_renew(instant) {
                state.flight = self.start(clock.clone(), fetch.clone(), flights);
            }
            return Next::Take(issued);
        }
        self.wait(state, clock, fetch, flights)
    }

    fn after(self: &Arc<Self>, id: &str, clock: &Clock, fetch: &Arc<impl Fetch>, flights: &Arc<Semaphore>) -> Next {
        let (now, state) = (clock.now(), self.lock());
        let good = state.held.as_ref().filter(|held| held.schedule.serves(now) && !held.may_be_dropped(id, now));
        match good.map(|held| held.issued.clone()) {
            Some(issued) => Next::Take(issued),
            None => self.wait(state, clock, fetch, flights),
        }
    }

    fn wait(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        clock: &Clock,
        fetch: &Arc<impl Fetch>,
        flights: &Arc<Semaphore>,
    ) -> Next {
        if let Some(error) = state.blames(Instant::now()) {
            return Next::Fail(error.clone());
        }
        if let Some(flight) = state.flight.as_ref().filter(|flight| flight.is_under_way()) {
            return match flight.join(MOST_WAITING) {
                Some(flight) => Next::Wait(flight),
                None => Next::Fail(SourceError::overloaded("too many requests wait for one credential")),
            };
        }
        let Some(flight) = self.start(clock.clone(), fetch.clone(), flights) else {
            return Next::Fail(SourceError::overloaded("too many credentials are being fetched at once"));
        };
        state.flight = Some(flight.clone());
        Next::Wait(flight)
    }

    /// Begins a fetch that ends by itself, whoever still waits for it. `None` when too many are under way: they outlive
    /// the requests that began them, so nothing else bounds them.
    fn start(self: &Arc<Self>, clock: Clock, fetch: Arc<impl Fetch>, flights: &Arc<Semaphore>) -> Option<Flight> {
        let permits = (flights.clone().try_acquire_owned().ok()?, fetch.places().0.clone().try_acquire_owned().ok()?);
        let slot = self.clone();
        Some(Flight::start(async move {
            let outcome = flight::with_retries(&*fetch, LONGEST_FETCH).await;
            drop(permits);
            let now = clock.now();
            let mut outcome = outcome.and_then(|issued| {
                let schedule = Schedule::new(now, issued.expires_at, issued.renew_at, jitter());
                if schedule.serves(now) { Ok((issued, schedule)) } else { Err(SourceError::ended_at_once()) }
            });
            if let Err(unrecorded) = fetch.record(outcome.as_ref().map(|(issued, _)| issued)) {
                outcome = outcome.and(Err(unrecorded));
            }
            slot.landed(outcome)
        }))
    }

    /// Keeps what a fetch brought.
    fn landed(&self, outcome: Result<(Issued, Schedule), SourceError>) -> Result<Arc<Issued>, SourceError> {
        let instant = Instant::now();
        let mut state = self.lock();
        state.flight = None;
        match outcome {
            Ok((issued, schedule)) => {
                let issued = Arc::new(issued);
                state.held = Some(Held { issued: issued.clone(), schedule });
                state.failed = None;
                state.renew_after = Some(instant + RENEWAL_PAUSE);
                Ok(issued)
            }
            Err(error) => {
                let pause = error.pause().map_or(if error.may_pass() { FAILED } else { REFUSED }, |asked| {
                    asked.clamp(FAILED, LONGEST_PAUSE)
                });
                state.failed = Some((error.clone(), instant + pause));
                state.renew_after = Some(instant + pause.max(REFUSED));
                Err(error)
            }
        }
    }
}

impl State {
    fn may_renew(&self, instant: Instant) -> bool {
        let rests = self.renew_after.is_some_and(|after| instant < after);
        !rests && !self.flight.as_ref().is_some_and(Flight::is_under_way)
    }

    fn blames(&self, instant: Instant) -> Option<&SourceError> {
        self.failed.as_ref().filter(|(_, until)| instant < *until).map(|(error, _)| error)
    }
}

fn jitter() -> u8 {
    let mut random = [0_u8];
    // Without randomness all are renewed at the same time, which harms nobody but their issuer.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    random
}
