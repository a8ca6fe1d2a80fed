//! An issuer's verification keys: fetched, kept fresh, and kept while the issuer is away.
//!
//! One background task a store does all fetching, so that there is never more than one fetch at a time, and a caller
//! that hangs up cancels none. The store aborts it on drop.

mod set;
mod source;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::IdentityError;
use super::jwt::{Header, UnverifiedToken};
use crate::clock::{Clock, Timestamp};
use crate::outbound::{OutboundClient, OutboundError, OutboundSettings};
#[cfg(any(test, fuzzing))]
pub(crate) use set::is_made_by;
use set::{KeySet, Refusal};
use source::FileReader;
pub use source::KeySource;

/// A file is looked at this often.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// A caller waits so long at most for keys: while it waits it holds a place that another caller could use.
const PATIENCE: Duration = Duration::from_secs(2);

/// At most one fetch within this for keys that nobody knows.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);

/// For so long a key id that a fetch did not bring asks for no other.
const UNKNOWN_KEY_MEMORY: Duration = Duration::from_secs(60);

/// Key ids remembered as unknown.
const UNKNOWN_KEYS: usize = 1000;

const LONGEST_BACKOFF_SECONDS: u64 = 30;

/// What a store is made of. Stores of equal settings are interchangeable, so a reload keeps the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStoreSettings {
    /// Configured name of the issuer.
    pub name: Arc<str>,
    /// Where its keys come from.
    pub source: KeySource,
    /// How long past their freshness keys serve on while the issuer is away.
    pub stale_limit: Duration,
    /// The client that fetches them.
    pub outbound: OutboundSettings,
}

impl KeyStoreSettings {
    /// With defaults: keys serve for 24 hours past their freshness; the default client.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, source: KeySource) -> Self {
        let stale_limit = Duration::from_secs(24 * 3600);
        Self { name: name.into(), source, stale_limit, outbound: OutboundSettings::default() }
    }
}

/// Why a store cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The source's address cannot be called.
    #[error("the keys of issuer `{issuer}` cannot be fetched: {reason}")]
    Source {
        /// Configured name of the issuer.
        issuer: Arc<str>,
        /// What is wrong with the address.
        reason: &'static str,
    },
    /// The client cannot be made.
    #[error("the keys of issuer `{issuer}` cannot be fetched")]
    Client {
        /// Configured name of the issuer.
        issuer: Arc<str>,
        /// Why.
        #[source]
        source: OutboundError,
    },
}

/// The state of an issuer's keys, for readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAge {
    /// Time since they were fetched, or seen unchanged.
    pub age: Duration,
    /// Usable keys.
    pub keys: usize,
    /// What went wrong at the latest attempt, while older keys serve on.
    pub fault: Option<String>,
}

/// An issuer's keys.
#[derive(Debug)]
pub struct KeyStore {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    settings: KeyStoreSettings,
    client: OutboundClient,
    clock: Clock,
    current: ArcSwapOption<Current>,
    fault: ArcSwapOption<String>,
    progress: watch::Sender<Progress>,
    wake: Notify,
    fetches: AtomicU64,
    unknown_keys: Cache<[u8; 32], Timestamp>,
}

/// The keys in force.
#[derive(Debug)]
struct Current {
    keys: Arc<KeySet>,
    digest: [u8; 32],
    generation: u64,
    fetched_at: Timestamp,
    refresh_at: Timestamp,
    usable_until: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// A fetch is under way, or has been asked for.
    busy: bool,
    /// Fetches that ended.
    completed: u64,
    /// Those of them that brought keys.
    answered: u64,
    /// When a fetch was last asked for a key that nobody knew.
    unknown_key_asked_at: Option<Timestamp>,
}

/// What is done for a token whose key is not in force, and how far the fetches had come.
#[derive(Clone, Copy, Debug)]
enum Search {
    /// A fetch begins for it.
    Begun(Progress),
    /// One is under way already. The issuer may have answered it before it published the key.
    Joined(Progress),
    /// Too soon after the latest such fetch, or this key was asked for not long ago.
    Refused,
}

impl KeyStore {
    /// A store without keys yet: the first token, or [`KeyStore::start`], makes it fetch them.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn new(settings: KeyStoreSettings, clock: Clock) -> Result<Self, KeyStoreError> {
        // With one backend compiled in, the library would choose it by itself and panic at the first token with two.
        // To name it here holds whatever another crate turns on; a second call changes nothing.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let issuer = settings.name.clone();
        if let Err(reason) = settings.source.check(settings.outbound.plain_http) {
            return Err(KeyStoreError::Source { issuer, reason });
        }
        let client =
            OutboundClient::new(&settings.outbound).map_err(|source| KeyStoreError::Client { issuer, source })?;
        let shared = Shared {
            settings,
            client,
            clock,
            current: ArcSwapOption::empty(),
            fault: ArcSwapOption::empty(),
            // The task begins with a fetch: whoever asks before it has run waits for that one.
            progress: watch::Sender::new(Progress { busy: true, ..Progress::default() }),
            wake: Notify::new(),
            fetches: AtomicU64::new(0),
            unknown_keys: Cache::new(UNKNOWN_KEYS),
        };
        Ok(Self { shared: Arc::new(shared), task: OnceLock::new() })
    }

    /// Begins to fetch, and goes on by itself: again after failures, and before the keys grow old. A second call, and
    /// one outside a runtime, does nothing.
    pub fn start(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.task.get_or_init(|| runtime.spawn(keep_fetching(self.shared.clone())).abort_handle());
        }
    }

    /// The settings that it was made of.
    #[must_use]
    pub fn settings(&self) -> &KeyStoreSettings {
        &self.shared.settings
    }

    /// How often keys were fetched, successfully or not. A file counts when its content changed.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.shared.fetches.load(Ordering::Relaxed)
    }

    /// How the keys are.
    ///
    /// # Errors
    /// Why no token of this issuer can be verified now.
    pub fn readiness(&self, now: Timestamp) -> Result<KeyAge, String> {
        let fault = self.shared.fault.load_full().map(|fault| fault.to_string());
        match self.shared.usable(now) {
            Some(current) if current.keys.len() == 0 => Err("the issuer publishes no usable key".to_owned()),
            Some(current) => Ok(KeyAge { age: now.since(current.fetched_at), keys: current.keys.len(), fault }),
            None => Err(fault.unwrap_or_else(|| "the keys have not been fetched yet".to_owned())),
        }
    }

    /// Time since keys were fetched, or seen unchanged, usable or not; `None` before the first.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.shared.current.load().as_ref().map(|current| now.since(current.fetched_at))
    }

    /// A number that changes when the keys do; `None` while none are usable.
    pub(super) fn generation(&self, now: Timestamp) -> Option<u64> {
        let current = self.shared.current.load();
        current.as_ref().filter(|current| now < current.usable_until).map(|current| current.generation)
    }

    /// Verifies a token's signature, and returns the generation of the keys that did.
    ///
    /// # Errors
    /// `key_unknown`, `key_unfit`, `key_ambiguous`, `signature_invalid`; [`IdentityError::Unavailable`] while keys are
    /// out of reach, and when they do not come within two seconds.
    pub(super) async fn verify(&self, token: &UnverifiedToken<'_>, now: Timestamp) -> Result<u64, IdentityError> {
        let until = Instant::now() + PATIENCE;
        let current = self.current(now, until).await?;
        self.verify_from(current, token, now, until).await
    }

    /// Verifies by the keys that were read, and by newer ones where those lack the token's.
    async fn verify_from(
        &self,
        mut current: Arc<Current>,
        token: &UnverifiedToken<'_>,
        now: Timestamp,
        until: Instant,
    ) -> Result<u64, IdentityError> {
        let (signed, signature) = token.signed_and_signature();
        let mut outcome = current.keys.verify(token.header(), signed.as_bytes(), signature);
        let mut has_joined = false;
        while outcome == Err(Refusal::UnknownKey) {
            let search = self.shared.search(token.header());
            let answered = match search {
                Search::Begun(seen) | Search::Joined(seen) => {
                    let ended = self.shared.ended_since(seen, until).await.ok_or_else(|| self.unavailable())?;
                    ended.answered != seen.answered
                }
                Search::Refused => false,
            };
            // Whatever the search was: another caller's fetch may have brought the key since `current` was read.
            let newest = self.shared.usable(now).ok_or_else(|| self.unavailable())?;
            if newest.generation != current.generation {
                outcome = newest.keys.verify(token.header(), signed.as_bytes(), signature);
                current = newest;
            }
            if matches!(search, Search::Joined(_)) && !has_joined {
                // What is under way the next time began after this token came.
                has_joined = true;
                continue;
            }
            // Remembered by what a fetch brought, never by being asked again: else a caller that keeps trying would
            // keep its new key from ever being fetched.
            if outcome == Err(Refusal::UnknownKey) && answered {
                self.shared.unknown_keys.insert(remembered(token.header()), self.shared.clock.now());
            }
            break;
        }
        match outcome {
            Ok(()) => Ok(current.generation),
            Err(Refusal::UnknownKey) => Err(self.unknown_key()),
            Err(Refusal::UnfitKey) => {
                Err(IdentityError::invalid("key_unfit", "the named key does not serve the token's algorithm"))
            }
            Err(Refusal::AmbiguousKey) => {
                Err(IdentityError::invalid("key_ambiguous", "the token names no key and several could be meant"))
            }
            Err(Refusal::BadSignature) => {
                Err(IdentityError::invalid("signature_invalid", "the signature is not by the issuer's key"))
            }
        }
    }

    /// The keys in force; waits for a fetch that is under way when there are none.
    async fn current(&self, now: Timestamp, until: Instant) -> Result<Arc<Current>, IdentityError> {
        self.start();
        let calm = self.shared.fault.load().is_none();
        if let Some(current) = self.shared.usable(now) {
            // The task's own timer sleeps through a suspended machine; the clock does not.
            if calm && now >= current.refresh_at {
                self.shared.ask_for_fetch();
            }
            return Ok(current);
        }
        if calm {
            self.shared.ask_for_fetch();
        }
        let seen = *self.shared.progress.borrow();
        if seen.busy {
            // Out of time or ended: what counts is what is there.
            let _ = self.shared.ended_since(seen, until).await;
        }
        self.shared.usable(now).ok_or_else(|| self.unavailable())
    }

    fn unknown_key(&self) -> IdentityError {
        // While the issuer is away nobody can say whether it has the key.
        if self.shared.fault.load().is_some() {
            return self.unavailable();
        }
        IdentityError::invalid("key_unknown", "the issuer has no such key")
    }

    fn unavailable(&self) -> IdentityError {
        let fault = self.shared.fault.load_full().map(|fault| fault.to_string());
        let detail = fault.unwrap_or_else(|| "its keys did not come in time".to_owned());
        IdentityError::Unavailable { issuer: self.shared.settings.name.clone(), detail }
    }
}

impl Drop for KeyStore {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Shared {
    fn usable(&self, now: Timestamp) -> Option<Arc<Current>> {
        self.current.load_full().filter(|current| now < current.usable_until)
    }

    /// Wakes the task, unless it is fetching or has been woken.
    fn ask_for_fetch(&self) {
        self.progress.send_if_modified(|progress| {
            if !progress.busy {
                self.begin(progress);
            }
            false
        });
    }

    /// Begins a fetch for a key that nobody knows, joins the one under way, or does neither. To look and to claim is
    /// one step: between two, another caller's fetch could begin or end. The time is read in it too: by the time of its
    /// arrival, every request that is a little older than the latest fetch would be due another.
    fn search(&self, header: &Header) -> Search {
        let asked = self.unknown_keys.get(&remembered(header));
        if asked.is_some_and(|since| within(self.clock.now(), since, UNKNOWN_KEY_MEMORY)) {
            return Search::Refused;
        }
        let mut search = Search::Refused;
        self.progress.send_if_modified(|progress| {
            let (latest, now) = (progress.unknown_key_asked_at, self.clock.now());
            if progress.busy {
                search = Search::Joined(*progress);
            } else if !latest.is_some_and(|latest| within(now, latest, self.unknown_key_interval())) {
                progress.unknown_key_asked_at = Some(now);
                self.begin(progress);
                search = Search::Begun(*progress);
            }
            false
        });
        search
    }

    /// Within the watch's lock, so that the task finds the wish and everybody else the task busy.
    fn begin(&self, progress: &mut Progress) {
        progress.busy = true;
        self.wake.notify_one();
    }

    /// Waits until a fetch has ended since `seen`; `None` when none does by `until`.
    async fn ended_since(&self, seen: Progress, until: Instant) -> Option<Progress> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.completed != seen.completed);
        let ended = tokio::time::timeout_at(until, ended).await.ok()?.ok()?;
        Some(*ended)
    }

    fn unknown_key_interval(&self) -> Duration {
        match self.settings.source {
            KeySource::Discovery { .. } | KeySource::JwksUri(_) => UNKNOWN_KEY_INTERVAL,
            KeySource::File(_) => FILE_INTERVAL,
        }
    }

    /// Fetches once and answers when to fetch again.
    async fn fetch(&self, files: &mut FileReader) -> Result<Duration, String> {
        let from_file = matches!(self.settings.source, KeySource::File(_));
        if !from_file {
            self.fetches.fetch_add(1, Ordering::Relaxed);
        }
        let (source, plain_http) = (&self.settings.source, self.settings.outbound.plain_http);
        let published = source.fetch(&self.client, plain_http, files, self.clock.now()).await?;
        let digest = sha256(&published.body);
        let previous = self.current.load_full();
        let (keys, generation) = match previous {
            Some(previous) if previous.digest == digest => (previous.keys.clone(), previous.generation),
            previous => {
                if from_file {
                    self.fetches.fetch_add(1, Ordering::Relaxed);
                }
                let keys = KeySet::parse(&published.body)?;
                (Arc::new(keys), previous.map_or(1, |previous| previous.generation.saturating_add(1)))
            }
        };
        let pause = if from_file { FILE_INTERVAL } else { published.lifetime * 4 / 5 };
        let now = self.clock.now();
        self.current.store(Some(Arc::new(Current {
            keys,
            digest,
            generation,
            fetched_at: now,
            refresh_at: now.plus(pause),
            usable_until: now.plus(published.lifetime).plus(self.settings.stale_limit),
        })));
        Ok(pause)
    }
}

async fn keep_fetching(shared: Arc<Shared>) {
    let (mut failures, mut files) = (0_u32, FileReader::default());
    loop {
        shared.progress.send_modify(|progress| progress.busy = true);
        // A wish that came together with the timer is granted by the fetch that begins here.
        let _ = shared.wake.notified().now_or_never();
        let pause = match shared.fetch(&mut files).await {
            Ok(pause) => {
                if shared.fault.swap(None).is_some() {
                    tracing::info!(issuer = %shared.settings.name, "the issuer's keys are back");
                }
                failures = 0;
                pause
            }
            Err(fault) => {
                if failures == 0 {
                    tracing::warn!(issuer = %shared.settings.name, %fault, "the issuer's keys cannot be fetched");
                }
                shared.fault.store(Some(Arc::new(fault)));
                failures = failures.saturating_add(1);
                backoff(failures)
            }
        };
        shared.progress.send_modify(|progress| {
            progress.busy = false;
            progress.completed = progress.completed.wrapping_add(1);
            progress.answered = progress.answered.wrapping_add(u64::from(failures == 0));
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.wake.notified() => {}
        }
    }
}

/// 1 s, 2 s, 4 s … 30 s, each up to a quarter shorter, so that replicas do not march in step.
fn backoff(failures: u32) -> Duration {
    let seconds = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX).clamp(1, LONGEST_BACKOFF_SECONDS);
    let mut random = [0_u8];
    // Without randomness the pause is the full one.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    Duration::from_millis(seconds * (1000 - u64::from(random)))
}

/// Whether less than `span` has passed. A clock that was set back counts as passed.
fn within(now: Timestamp, since: Timestamp, span: Duration) -> bool {
    now >= since && now.since(since) < span
}

fn remembered(header: &Header) -> [u8; 32] {
    sha256(header.key_id.as_deref().unwrap_or_default().as_bytes())
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
