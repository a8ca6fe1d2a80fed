//! What may be remembered about a caller: a bounded cache under everything that goes into a credential.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, UnitWeighter};

use crate::identity::Principal;
use crate::policy::{Grant, RoleSession};

/// A caller as one provider sees it. Two keys are equal exactly when the same claims follow from them.
#[derive(Clone, Debug)]
pub(super) struct CallerKey {
    /// Digest of the provider's own settings.
    profile: [u8; 32],
    /// Whose fingerprint tells most callers apart. What a configuration reads out of the same evidence can change with
    /// a reload, which this cache survives: so everything that is said about the caller is compared too.
    principal: Arc<Principal>,
    roles: Arc<[RoleSession]>,
}

impl CallerKey {
    pub(super) fn new(profile: [u8; 32], grant: &Grant) -> Self {
        Self { profile, principal: grant.principal().clone(), roles: grant.roles().clone() }
    }
}

impl PartialEq for CallerKey {
    fn eq(&self, other: &Self) -> bool {
        // Names only: when a role session ends is the grant's end, which the value is checked against.
        self.principal.fingerprint == other.principal.fingerprint
            && self.profile == other.profile
            && (Arc::ptr_eq(&self.principal, &other.principal) || says_the_same(&self.principal, &other.principal))
            && self.roles.iter().map(|held| &held.role).eq(other.roles.iter().map(|held| &held.role))
    }
}

impl Eq for CallerKey {}

impl Hash for CallerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.principal.fingerprint);
        state.write(&self.profile);
    }
}

/// Whether both are the same to an upstream: what assertions and identity headers tell of a principal.
fn says_the_same(one: &Principal, other: &Principal) -> bool {
    one.id() == other.id()
        && one.issuer == other.issuer
        && one.kind == other.kind
        && one.email == other.email
        && one.groups == other.groups
}

/// A bounded cache by caller. Clones share it; it lives beside the snapshot, and so survives a reload.
pub struct CallerCache<Value>(Arc<Cache<CallerKey, Value>>);

impl<Value> Clone for CallerCache<Value> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Value> fmt::Debug for CallerCache<Value> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CallerCache")
    }
}

impl<Value: Clone> CallerCache<Value> {
    /// A cache of at most `capacity` callers.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        // The first number sizes the table at once, the second bounds it: an idle proxy stays small.
        let bound = u64::try_from(capacity).unwrap_or(u64::MAX);
        let cache = Cache::with(
            capacity.min(1000),
            bound,
            UnitWeighter,
            DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        Self(Arc::new(cache))
    }

    /// How many callers it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn entries(&self) -> &Cache<CallerKey, Value> {
        &self.0
    }
}
