//! What outlives a configuration: sealing keys, sessions, provider metadata, work in progress.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::flight::Flights;
use super::provider::Providers;
use super::refresh::RefreshOutcome;
use super::seal::Sealer;
use super::store::{SessionKey, Store};
use super::{EventRefused, LoginError, SessionEvent, SessionEvents, disk};
use crate::clock::{Clock, Timestamp};

/// Time between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_secs(60);

/// Sealing keys are kept at least this long after they are replaced.
const SHORTEST_OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// Login states that were used, remembered until their cookies are too old.
const MOST_USED_STATES: usize = 20_000;

/// Where state lies and how much of it there may be.
#[derive(Clone, Debug)]
pub struct LoginStateSettings {
    /// Directory of the state; login keeps to `login` inside it.
    pub directory: PathBuf,
    /// Most sessions at a time; past it ended ones are forgotten, then the oldest end.
    pub sessions: usize,
    /// Age at which the sealing key is replaced.
    pub rotate_every: Duration,
}

impl LoginStateSettings {
    /// The defaults: 100,000 sessions, a new sealing key every week.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, sessions: 100_000, rotate_every: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// State of browser login. One for a process and its state directory.
pub struct LoginState {
    pub(super) clock: Clock,
    pub(super) sealer: Arc<Sealer>,
    pub(super) store: Store,
    pub(super) providers: Providers,
    pub(super) refreshes: Flights<SessionKey, RefreshOutcome>,
    pub(super) tasks: TaskTracker,
    events: SessionEvents,
    used: Mutex<UsedStates>,
    rotate_every: Duration,
    overlap_millis: AtomicU64,
}

#[derive(Default)]
struct UsedStates {
    by_time: BTreeSet<(Timestamp, [u8; 32])>,
    states: HashSet<[u8; 32]>,
}

impl fmt::Debug for LoginState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoginState").field("store", &self.store).finish_non_exhaustive()
    }
}

impl LoginState {
    /// Opens or creates the state. Blocks on the disk: for start-up.
    ///
    /// # Errors
    /// [`LoginError::Seal`] and [`LoginError::State`]; nothing is made anew over something that cannot be read.
    pub fn open(settings: LoginStateSettings, clock: Clock, events: SessionEvents) -> Result<Arc<Self>, LoginError> {
        let (directory, now) = (settings.directory.join("login"), clock.now());
        let refuse = |source| LoginError::State { path: directory.clone(), source };
        disk::private_directory(&settings.directory).map_err(refuse)?;
        disk::private_directory(&directory).map_err(refuse)?;
        let sealer = Arc::new(Sealer::open_or_create(&directory.join("keys.json"), now)?);
        let sessions = directory.join("sessions");
        let store = Store::open(&sessions, sealer.clone(), settings.sessions, now).map_err(refuse)?;
        let tasks = TaskTracker::new();
        Ok(Arc::new(Self {
            providers: Providers::new(clock.clone(), tasks.clone()),
            refreshes: Flights::new(tasks.clone()),
            clock,
            sealer,
            store,
            tasks,
            events,
            used: Mutex::default(),
            rotate_every: settings.rotate_every,
            overlap_millis: AtomicU64::new(0),
        }))
    }

    /// Upkeep for as long as it is polled: forgets what is over, replaces sealing keys. The caller owns the task.
    pub async fn run(self: Arc<Self>) {
        let mut round = tokio::time::interval(UPKEEP);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let state = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || state.upkeep()).await {
                tracing::error!(%error, "upkeep of login state failed");
            }
        }
    }

    /// One round of upkeep. Blocks on the disk.
    pub fn upkeep(&self) {
        let now = self.clock.now();
        self.store.sweep(now);
        let overlap = Duration::from_millis(self.overlap_millis.load(Ordering::Relaxed)).max(SHORTEST_OVERLAP);
        if let Err(error) = self.sealer.rotate(now, self.rotate_every, overlap) {
            tracing::error!(%error, "the sealing key could not be replaced");
        }
    }

    /// Awaits refreshes in progress: what they bring must reach the disk before the process ends.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sessions may last this long: sealing keys are kept at least as long.
    pub(super) fn lasts(&self, longest: Duration) {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        self.overlap_millis.fetch_max(millis, Ordering::Relaxed);
    }

    /// Puts an event on record.
    pub(super) fn record(&self, event: SessionEvent) -> Result<(), EventRefused> {
        (self.events)(event)
    }

    /// Tells of what has happened already; whoever keeps the records counts one that is lost.
    pub(super) fn tell(&self, event: SessionEvent) {
        let _counted = self.record(event);
    }

    /// Marks a login state as used; `false` when it was used before. `until`: when its cookie is too old anyway.
    pub(super) fn use_once(&self, state: [u8; 32], until: Timestamp) -> bool {
        let now = self.clock.now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(&(end, oldest)) = used.by_time.first() {
            if end > now && used.states.len() < MOST_USED_STATES {
                break;
            }
            used.by_time.pop_first();
            used.states.remove(&oldest);
        }
        used.by_time.insert((until, state));
        used.states.insert(state)
    }
}
