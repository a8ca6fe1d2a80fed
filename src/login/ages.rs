//! Which session is given up when there are too many.

use std::collections::{BTreeSet, HashMap};

use super::store::{Entry, SessionKey};
use crate::clock::Timestamp;

/// Live sessions of one user at an issuer; past it the user's oldest ends, and nobody else's.
pub(super) const MOST_OF_ONE_USER: usize = 100;

type ByAge = BTreeSet<(Timestamp, SessionKey)>;

/// Sessions in the order in which they began.
#[derive(Default)]
pub(super) struct Ages {
    live: ByAge,
    ended: ByAge,
    of_one: HashMap<[u8; 32], ByAge>,
}

impl Ages {
    pub(super) fn add(&mut self, key: SessionKey, entry: &Entry) {
        let age = (entry.started_at, key);
        if entry.ended {
            self.ended.insert(age);
            return;
        }
        self.live.insert(age);
        if let Some(owner) = entry.owner {
            self.of_one.entry(owner).or_default().insert(age);
        }
    }

    pub(super) fn remove(&mut self, key: SessionKey, entry: &Entry) {
        let age = (entry.started_at, key);
        self.live.remove(&age);
        self.ended.remove(&age);
        if let Some(owner) = entry.owner
            && let Some(own) = self.of_one.get_mut(&owner)
        {
            own.remove(&age);
            if own.is_empty() {
                self.of_one.remove(&owner);
            }
        }
    }

    /// The session to give up when its owner has too many.
    pub(super) fn too_many_of(&self, owner: [u8; 32], newest: SessionKey) -> Option<SessionKey> {
        let own = self.of_one.get(&owner).filter(|own| own.len() > MOST_OF_ONE_USER)?;
        own.iter().map(|(_, key)| *key).find(|key| *key != newest)
    }

    /// The session to give up when there are too many: one that has ended, else the oldest.
    pub(super) fn least_worth(&self, newest: SessionKey) -> Option<SessionKey> {
        self.ended.iter().chain(&self.live).map(|(_, key)| *key).find(|key| *key != newest)
    }
}
