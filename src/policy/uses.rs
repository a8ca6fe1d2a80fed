//! Which evidence used which roles already, so that `role.assumed` is written once.

use std::convert::Infallible;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;

use super::RoleSession;

/// Evidence and each role that it was granted before. Bounded: what was pushed out counts as new again.
///
/// Lives beside the snapshot, so that a reload does not make every caller assume its roles anew.
pub struct RoleUses {
    seen: Cache<([u8; 32], u64), ()>,
}

impl RoleUses {
    /// Room for `capacity` pairs of evidence and role.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { seen: Cache::new(capacity) }
    }

    /// Which of these roles are granted to this evidence for the first time. Each is told once, to whoever asks first.
    pub(super) fn first_of(&self, fingerprint: &[u8; 32], roles: &Arc<[RoleSession]>) -> Arc<[RoleSession]> {
        let mut first = Vec::new();
        for session in roles.iter() {
            let mut hasher = DefaultHasher::new();
            session.role.hash(&mut hasher);
            let _never_fails = self.seen.get_or_insert_with(&(*fingerprint, hasher.finish()), || {
                first.push(session.clone());
                Ok::<(), Infallible>(())
            });
        }
        if first.is_empty() { Arc::default() } else { first.into() }
    }
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
