//! Sessions on the server: a small index in memory, one sealed file a session on disk.
//!
//! A session that is not here does not exist, whatever cookie names it; so an ended one stays ended after a
//! restart. Ended sessions leave a record without tokens until their cookies could not be valid any more.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ages::Ages;
use super::disk;
use super::seal::Sealer;
use crate::clock::Timestamp;
use crate::hex::hex;

/// Claims of recent sessions kept at hand, for requests whose cookie is a generation behind.
const FACTS_AT_HAND: usize = 10_000;

/// Refreshed sessions that wait in memory for a disk that takes no writes.
const MOST_UNSAVED: usize = 1_000;

/// Longest wait of a request for the disk.
pub(super) const DISK: Duration = Duration::from_secs(5);

/// What names a session on the server: SHA-256 of the identifier that only the cookie holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionKey(pub(super) [u8; 32]);

impl SessionKey {
    pub(super) fn of(id: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id);
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(key)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (to, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *to = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Display for SessionKey {
    /// Enough to tell sessions apart in records; no secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a login or a refresh found out, as claims; they are projected with the configuration of the day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Verified claims of the ID token.
    pub(super) claims: Map<String, Value>,
    /// When role sessions began: fixed at login, so that a refresh does not renew them.
    pub(super) began_at: Timestamp,
}

impl Facts {
    /// Tells users apart, however the configuration of the day names them.
    fn owner(&self) -> Option<[u8; 32]> {
        let [issuer, subject] = ["iss", "sub"].map(|name| self.claims.get(name).and_then(Value::as_str));
        Some(SessionKey::of(format!("{}\n{}", issuer?, subject?).as_bytes()).0)
    }
}

/// A session as it lies on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) issuer: Arc<str>,
    pub(super) generation: u64,
    pub(super) started_at: Timestamp,
    pub(super) ends_at: Timestamp,
    /// When the claims were given, and when they end.
    pub(super) claims_from: Timestamp,
    pub(super) claims_until: Timestamp,
    pub(super) refresh_token: Option<String>,
    pub(super) id_token: Option<String>,
    pub(super) facts: Option<Facts>,
    pub(super) ended: bool,
    #[serde(default)]
    pub(super) replaced: bool,
}

/// A session as it is asked about on every request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) issuer: Arc<str>,
    pub(super) generation: u64,
    pub(super) started_at: Timestamp,
    pub(super) ends_at: Timestamp,
    pub(super) claims_from: Timestamp,
    pub(super) claims_until: Timestamp,
    pub(super) refreshable: bool,
    /// No refresh before this, after one that failed.
    pub(super) retry_at: Timestamp,
    pub(super) ended: bool,
    /// A newer session took its place in the browser; what is under way may still use it for a moment.
    pub(super) replaced: bool,
    /// Digest of whose it is.
    pub(super) owner: Option<[u8; 32]>,
}

impl Entry {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            owner: record.facts.as_ref().and_then(Facts::owner),
            issuer: record.issuer.clone(),
            generation: record.generation,
            started_at: record.started_at,
            ends_at: record.ends_at,
            claims_from: record.claims_from,
            claims_until: record.claims_until,
            refreshable: record.refresh_token.is_some(),
            retry_at: Timestamp::default(),
            ended: record.ended,
            replaced: record.replaced,
        }
    }

    /// Whether the session may be used at `now`.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        !self.ended && now < self.ends_at
    }
}

/// The sessions of one state directory. Clones share it.
#[derive(Clone)]
pub(super) struct Store(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    sealer: Arc<Sealer>,
    limit: usize,
    index: DashMap<SessionKey, Entry>,
    ages: Mutex<Ages>,
    /// One writer at a time: the order of files is the order of the index.
    writing: Mutex<()>,
    unsaved: Mutex<HashMap<SessionKey, Record>>,
    facts: Cache<(SessionKey, u64), Arc<Facts>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("sessions", &self.0.index.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Reads the sessions under `directory`. Blocks on the disk.
    pub(super) fn open(directory: &Path, sealer: Arc<Sealer>, limit: usize, now: Timestamp) -> io::Result<Self> {
        disk::private_directory(directory)?;
        let inner = Inner {
            directory: directory.to_owned(),
            sealer,
            limit: limit.max(1),
            index: DashMap::new(),
            ages: Mutex::default(),
            writing: Mutex::default(),
            unsaved: Mutex::default(),
            facts: Cache::new(FACTS_AT_HAND),
        };
        for file in std::fs::read_dir(directory)? {
            inner.take_in(&file?.path(), now);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The session, live or ended.
    pub(super) fn entry(&self, key: SessionKey) -> Option<Entry> {
        self.0.index.get(&key).map(|entry| entry.value().clone())
    }

    /// Claims that are at hand without reading the disk.
    pub(super) fn facts_at_hand(&self, key: SessionKey, generation: u64) -> Option<Arc<Facts>> {
        self.0.facts.get(&(key, generation))
    }

    /// Keeps claims at hand.
    pub(super) fn remember(&self, key: SessionKey, generation: u64, facts: Arc<Facts>) {
        self.0.facts.insert((key, generation), facts);
    }

    /// Adds a session, durably. Past a limit sessions are given up; the live ones among them are returned.
    pub(super) async fn insert(&self, key: SessionKey, record: Record) -> io::Result<Vec<(SessionKey, Entry)>> {
        self.durably(move |inner| {
            let _order = lock(&inner.writing);
            inner.write(key, &record)?;
            inner.admit(key, &record);
            Ok(inner.evict(key, record.facts.as_ref().and_then(Facts::owner)))
        })
        .await
    }

    /// The session's file, tokens and all.
    pub(super) async fn load(&self, key: SessionKey) -> io::Result<Record> {
        self.durably(move |inner| inner.read(key)).await
    }

    /// Writes a newer generation of a live session; `false` when it has ended meanwhile.
    ///
    /// A disk that takes no writes does not end sessions: the record waits in memory.
    pub(super) async fn advance(&self, key: SessionKey, mut record: Record) -> io::Result<bool> {
        self.blocking(move |inner| {
            let _order = lock(&inner.writing);
            match inner.index.get(&key) {
                // The end may have been brought forward since the record was read.
                Some(entry) if !entry.ended => {
                    record.ends_at = record.ends_at.min(entry.ends_at);
                    record.replaced |= entry.replaced;
                }
                _ => return Ok(false),
            }
            match inner.write(key, &record) {
                Ok(()) => drop(lock(&inner.unsaved).remove(&key)),
                Err(error) => inner.postpone(key, &record, &error)?,
            }
            if let Some(facts) = record.facts.clone() {
                inner.facts.insert((key, record.generation), Arc::new(facts));
            }
            if let Some(mut entry) = inner.index.get_mut(&key) {
                // An end that came meanwhile stays.
                let newer = Entry::of(&record);
                let (ended, replaced) = (entry.ended, entry.replaced || newer.replaced);
                *entry = Entry { ended, replaced, ends_at: entry.ends_at.min(newer.ends_at), ..newer };
            }
            Ok(true)
        })
        .await
    }

    /// Ends a session: at once for every request, then durably. `false` when it had ended before.
    pub(super) async fn end(&self, key: SessionKey) -> io::Result<bool> {
        let was_live = match self.0.index.get_mut(&key) {
            Some(mut entry) => !std::mem::replace(&mut entry.ended, true),
            None => false,
        };
        if !was_live {
            return Ok(false);
        }
        self.durably(move |inner| {
            let _order = lock(&inner.writing);
            lock(&inner.unsaved).remove(&key);
            let Some(entry) = inner.index.get(&key).map(|entry| entry.value().clone()) else { return Ok(true) };
            {
                let mut ages = lock(&inner.ages);
                ages.remove(key, &entry);
                ages.add(key, &entry);
            }
            inner.write_or_queue(key, tombstone(&entry)).map(|()| true)
        })
        .await
    }

    /// Marks a live session as replaced and brings its end forward to `at`: at once for every request, then durably.
    /// `false` when it was replaced or had ended before.
    pub(super) async fn replace_by(&self, key: SessionKey, at: Timestamp) -> io::Result<bool> {
        let was_live = match self.0.index.get_mut(&key) {
            Some(mut entry) if !entry.ended && !entry.replaced => {
                entry.replaced = true;
                entry.ends_at = entry.ends_at.min(at);
                true
            }
            _ => false,
        };
        if !was_live {
            return Ok(false);
        }
        self.durably(move |inner| {
            let _order = lock(&inner.writing);
            let mut record = inner.read(key)?;
            if record.ended {
                return Ok(true);
            }
            record.replaced = true;
            record.ends_at = record.ends_at.min(at);
            inner.write_or_queue(key, record).map(|()| true)
        })
        .await
    }

    /// Asks for no refresh before `at`.
    pub(super) fn defer(&self, key: SessionKey, at: Timestamp) {
        if let Some(mut entry) = self.0.index.get_mut(&key) {
            entry.retry_at = at;
        }
    }

    /// Forgets sessions whose end has passed, and saves what could not be saved before. Blocks on the disk.
    pub(super) fn sweep(&self, now: Timestamp) {
        let past = self.0.index.iter().filter(|entry| entry.ends_at <= now).map(|entry| *entry.key());
        let past: Vec<SessionKey> = past.collect();
        let _order = lock(&self.0.writing);
        for key in past {
            self.0.forget(key);
        }
        let waiting: Vec<_> = lock(&self.0.unsaved).iter().map(|(key, record)| (*key, record.clone())).collect();
        for (key, record) in waiting {
            if self.0.write(key, &record).is_ok() {
                lock(&self.0.unsaved).remove(&key);
            }
        }
    }

    /// Disk work that somebody waits for, but not for ever.
    async fn durably<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the disk did not answer in time");
        tokio::time::timeout(DISK, self.blocking(work)).await.map_err(late)?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = self.0.clone();
        // A disk task runs to its end even when the caller is gone.
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(io::Error::other)?
    }
}

impl Inner {
    fn path(&self, key: SessionKey) -> PathBuf {
        self.directory.join(hex(&key.0))
    }

    fn purpose(key: SessionKey) -> String {
        format!("session-record|1|{}", hex(&key.0))
    }

    fn write(&self, key: SessionKey, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other)?;
        let sealed = self.sealer.seal(&Self::purpose(key), text).map_err(io::Error::other)?;
        disk::replace(&self.path(key), &sealed)
    }

    /// Writes an end, and queues it where the disk takes no writes: without it a restart would revive the session. An
    /// end is worth more than a refresh, so it counts against no limit.
    fn write_or_queue(&self, key: SessionKey, record: Record) -> io::Result<()> {
        self.write(key, &record).inspect_err(|_| drop(lock(&self.unsaved).insert(key, record)))
    }

    fn read(&self, key: SessionKey) -> io::Result<Record> {
        if let Some(record) = lock(&self.unsaved).get(&key) {
            return Ok(record.clone());
        }
        let sealed = std::fs::read(self.path(key))?;
        let text = self.sealer.open(&Self::purpose(key), &sealed).map_err(io::Error::other)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    fn take_in(&self, path: &Path, now: Timestamp) {
        let key = path.file_name().and_then(|name| name.to_str()).and_then(SessionKey::parse);
        let Some(key) = key else {
            if path.extension().is_some_and(|extension| extension == disk::UNFINISHED) {
                let _gone_already = std::fs::remove_file(path);
            }
            return;
        };
        match self.read(key) {
            Ok(record) if record.ends_at <= now => drop(std::fs::remove_file(path)),
            Ok(record) => self.admit(key, &record),
            Err(error) => tracing::warn!(session = %key, %error, "a session file cannot be read; its session is over"),
        }
    }

    fn admit(&self, key: SessionKey, record: &Record) {
        let entry = Entry::of(record);
        lock(&self.ages).add(key, &entry);
        self.index.insert(key, entry);
    }

    fn evict(&self, newest: SessionKey, owner: Option<[u8; 32]>) -> Vec<(SessionKey, Entry)> {
        let mut evicted = Vec::new();
        loop {
            let full = self.index.len() > self.limit;
            let ages = lock(&self.ages);
            let own = owner.and_then(|owner| ages.too_many_of(owner, newest));
            let given_up = own.or_else(|| ages.least_worth(newest).filter(|_| full));
            drop(ages);
            let Some((key, entry)) = given_up.and_then(|key| Some((key, self.forget(key)?))) else { break };
            if !entry.ended {
                evicted.push((key, entry));
            }
        }
        evicted
    }

    fn forget(&self, key: SessionKey) -> Option<Entry> {
        let (_, entry) = self.index.remove(&key)?;
        lock(&self.ages).remove(key, &entry);
        lock(&self.unsaved).remove(&key);
        if let Err(error) = std::fs::remove_file(self.path(key)) {
            tracing::warn!(session = %key, %error, "the file of a session that is over cannot be removed");
        }
        Some(entry)
    }

    fn postpone(&self, key: SessionKey, record: &Record, error: &io::Error) -> io::Result<()> {
        let mut unsaved = lock(&self.unsaved);
        if unsaved.len() >= MOST_UNSAVED && !unsaved.contains_key(&key) {
            return Err(io::Error::other("too many sessions wait for the disk"));
        }
        tracing::error!(session = %key, %error, "a session cannot be written; it is kept in memory");
        unsaved.insert(key, record.clone());
        Ok(())
    }
}

fn tombstone(entry: &Entry) -> Record {
    Record {
        issuer: entry.issuer.clone(),
        generation: entry.generation,
        started_at: entry.started_at,
        ends_at: entry.ends_at,
        claims_from: entry.claims_from,
        claims_until: entry.claims_until,
        refresh_token: None,
        id_token: None,
        facts: None,
        ended: true,
        replaced: entry.replaced,
    }
}

/// Locks, whatever a panic elsewhere left: every value here is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
