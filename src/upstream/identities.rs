//! Connections by the identity that they are opened as: what was opened with one certificate never serves a request
//! with another, or with none.
//!
//! Each identity has endpoints of its own, with their own connections and TLS sessions, so there is nothing to confuse.
//! Let go of, its idle connections close at once, and those in use when their exchange ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::credential::ClientIdentity;

use super::error::UpstreamError;
use super::pool::Endpoint;

/// Identities of one upstream, at most; beyond them, the one that was used longest ago is let go of.
const MOST_IDENTITIES: usize = 1000;
/// How long an identity is kept without use.
const UNUSED_LIMIT: Duration = Duration::from_secs(300);

/// The endpoints of one identity, one for each of the upstream's addresses.
type Endpoints = Arc<[Arc<Endpoint>]>;

/// All identities of one upstream.
#[derive(Debug)]
pub(super) struct Identities {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_fingerprint: HashMap<[u8; 32], Kept>,
    /// Counts uses: times may be equal, turns are not.
    turn: u64,
}

#[derive(Debug)]
struct Kept {
    endpoints: Endpoints,
    ends_at: Timestamp,
    turn: u64,
    used_at: Instant,
}

impl Default for Identities {
    fn default() -> Self {
        Self::new(MOST_IDENTITIES)
    }
}

impl Identities {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The endpoints of `identity`; `make` makes them for a new one, where the upstream takes certificates at all.
    ///
    /// # Errors
    /// [`UpstreamError::ClientCertificate`] for a certificate that is not valid at `now`: its connections end with it.
    pub(super) fn endpoints(
        &self,
        identity: &ClientIdentity,
        now: Timestamp,
        make: impl FnOnce() -> Option<Endpoints>,
    ) -> Result<Endpoints, UpstreamError> {
        let fingerprint = identity.fingerprint();
        if !identity.serves(now) {
            let _closed_outside_the_lock = self.lock().by_fingerprint.remove(fingerprint);
            return Err(UpstreamError::ClientCertificate("it is not valid now"));
        }
        if let Some(endpoints) = self.lock().used(fingerprint) {
            return Ok(endpoints);
        }
        // Outside the lock, for it copies TLS settings. Of two that are made at once, the first one counts.
        let made = make().ok_or(UpstreamError::ClientCertificate("the upstream is not reached by tls"))?;
        let mut let_go = Vec::new();
        let endpoints = {
            let mut known = self.lock();
            match known.used(fingerprint) {
                Some(endpoints) => endpoints,
                None => {
                    known.make_room(self.most, now, &mut let_go);
                    known.insert(*fingerprint, made.clone(), identity.expires_at());
                    made
                }
            }
        };
        drop(let_go);
        Ok(endpoints)
    }

    /// Lets go of identities that were not used for a while, or whose certificates have ended.
    pub(super) fn forget_unused(&self, now: Timestamp) {
        let mut let_go = Vec::new();
        self.lock().forget_unused(now, &mut let_go);
        drop(let_go);
    }

    /// Idle connections of all of them; lets go of those that the upstream closed.
    pub(super) fn idle(&self) -> usize {
        self.all().iter().flat_map(|endpoints| endpoints.iter()).map(|endpoint| endpoint.counts().1).sum()
    }

    pub(super) fn all(&self) -> Vec<Endpoints> {
        self.lock().by_fingerprint.values().map(|kept| kept.endpoints.clone()).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_fingerprint.len()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn used(&mut self, fingerprint: &[u8; 32]) -> Option<Endpoints> {
        self.turn += 1;
        let kept = self.by_fingerprint.get_mut(fingerprint)?;
        (kept.turn, kept.used_at) = (self.turn, Instant::now());
        Some(kept.endpoints.clone())
    }

    fn insert(&mut self, fingerprint: [u8; 32], endpoints: Endpoints, ends_at: Timestamp) {
        let kept = Kept { endpoints, ends_at, turn: self.turn, used_at: Instant::now() };
        self.by_fingerprint.insert(fingerprint, kept);
    }

    fn forget_unused(&mut self, now: Timestamp, let_go: &mut Vec<Kept>) {
        let is_over = |kept: &Kept| kept.ends_at <= now || kept.used_at.elapsed() >= UNUSED_LIMIT;
        let_go.extend(self.by_fingerprint.extract_if(|_, kept| is_over(kept)).map(|(_, kept)| kept));
    }

    /// Room for one more: what is of no use goes first, then what was used longest ago.
    fn make_room(&mut self, most: usize, now: Timestamp, let_go: &mut Vec<Kept>) {
        if self.by_fingerprint.len() < most {
            return;
        }
        self.forget_unused(now, let_go);
        while self.by_fingerprint.len() >= most.max(1) {
            let oldest = self.by_fingerprint.iter().min_by_key(|(_, kept)| kept.turn);
            let Some(oldest) = oldest.map(|(fingerprint, _)| *fingerprint) else { return };
            let_go.extend(self.by_fingerprint.remove(&oldest));
        }
    }
}
