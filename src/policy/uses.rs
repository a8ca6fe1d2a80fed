//! Which evidence used which roles already, so that `role.assumed` is written once.

use std::convert::Infallible;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;

use super::RoleSession;

/// Evidence and each role that it was granted before. Bounded: what was pushed out counts as new again.
///
/// Lives beside the snapshot, so that a reload does not make every caller assume its roles anew.
pub struct RoleUses {
    seen: Cache<([u8; 32], u64), ()>,
    forgettings: AtomicU64,
}

impl RoleUses {
    /// Room for `capacity` pairs of evidence and role.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { seen: Cache::new(capacity), forgettings: AtomicU64::new(0) }
    }

    /// Which of these roles are granted to this evidence for the first time. Each is told once, to whoever asks first.
    pub(super) fn first_of(&self, evidence: &[u8; 32], roles: &Arc<[RoleSession]>) -> Arc<[RoleSession]> {
        let mut first = Vec::new();
        for session in roles.iter() {
            let _never_fails = self.seen.get_or_insert_with(&key(evidence, session), || {
                first.push(session.clone());
                Ok::<(), Infallible>(())
            });
        }
        if first.is_empty() { Arc::default() } else { first.into() }
    }

    /// Takes back that these were told: whoever asks next is told again.
    pub(super) fn forget(&self, evidence: &[u8; 32], roles: &[RoleSession]) {
        for session in roles {
            self.seen.remove(&key(evidence, session));
        }
        self.forgettings.fetch_add(1, Ordering::Release);
    }

    /// How often something was forgotten. What was remembered before the latest time says nothing about first uses.
    pub(super) fn forgettings(&self) -> u64 {
        self.forgettings.load(Ordering::Acquire)
    }
}

fn key(evidence: &[u8; 32], session: &RoleSession) -> ([u8; 32], u64) {
    let mut hasher = DefaultHasher::new();
    session.role.hash(&mut hasher);
    (*evidence, hasher.finish())
}

impl Default for RoleUses {
    fn default() -> Self {
        Self::new(65_536)
    }
}

impl fmt::Debug for RoleUses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RoleUses").field("seen", &self.seen.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn roles(names: &[&str]) -> Arc<[RoleSession]> {
        let began_at = Timestamp::from_unix_seconds(1_700_000_000);
        names.iter().map(|name| RoleSession { role: (*name).into(), began_at, ends_at: None }).collect()
    }

    #[test]
    fn a_role_that_is_added_later_is_told_alone() {
        let uses = RoleUses::default();
        assert_eq!(uses.first_of(&[1; 32], &roles(&["reader"])), roles(&["reader"]));
        assert_eq!(uses.first_of(&[1; 32], &roles(&["reader", "writer"])), roles(&["writer"]));
        assert_eq!(uses.first_of(&[1; 32], &roles(&["reader", "writer"])), roles(&[]));
        assert_eq!(uses.first_of(&[2; 32], &roles(&["reader"])), roles(&["reader"]));
    }
}
