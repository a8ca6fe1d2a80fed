//! What may be remembered about a caller: a cache, bounded in bytes, under everything that goes into a credential.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Weighter};

use crate::clock::Timestamp;
use crate::identity::PrincipalKind;
use crate::policy::Grant;

/// A caller as one provider sees it, on the request's way: nothing of it is copied to look something up.
pub(super) struct Caller<'a> {
    /// Digest of the provider's own settings.
    pub(super) profile: [u8; 32],
    pub(super) grant: &'a Grant,
}

/// What is kept of a caller: what it is told apart by, and no more. Two keys are equal exactly when the same claims
/// follow from them.
#[derive(Clone, Debug)]
pub(super) struct CallerKey {
    profile: [u8; 32],
    /// Tells most callers apart. What a configuration reads out of the same evidence can change with a reload, which
    /// this cache survives: so everything that is said about the caller is compared too.
    fingerprint: [u8; 32],
    id: Arc<str>,
    issuer: Arc<str>,
    kind: PrincipalKind,
    email: Option<Box<str>>,
    groups: Box<[String]>,
    /// Names only: when a role session ends is for the value to be checked against.
    roles: Box<[Arc<str>]>,
    /// When the grant ends that it was made for; not compared.
    ends_at: Option<Timestamp>,
}

impl Caller<'_> {
    /// The key to keep something under.
    pub(super) fn key(&self) -> CallerKey {
        let principal = self.grant.principal();
        CallerKey {
            profile: self.profile,
            fingerprint: principal.fingerprint,
            id: principal.id().clone(),
            issuer: principal.issuer.clone(),
            kind: principal.kind,
            email: principal.email.as_deref().map(Into::into),
            groups: principal.groups.as_slice().into(),
            roles: self.grant.roles().iter().map(|held| held.role.clone()).collect(),
            ends_at: self.grant.expires_at(),
        }
    }
}

impl Hash for Caller<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.grant.principal().fingerprint);
        state.write(&self.profile);
    }
}

impl Equivalent<CallerKey> for Caller<'_> {
    fn equivalent(&self, key: &CallerKey) -> bool {
        let principal = self.grant.principal();
        principal.fingerprint == key.fingerprint
            && self.profile == key.profile
            && *principal.id() == key.id
            && principal.issuer == key.issuer
            && principal.kind == key.kind
            && principal.email.as_deref() == key.email.as_deref()
            && *principal.groups == *key.groups
            && self.grant.roles().iter().map(|held| &held.role).eq(&key.roles)
    }
}

impl CallerKey {
    /// Bytes of the entry, roughly: the key, and a value that says the same of the caller in encoded form.
    fn bytes(&self) -> u64 {
        const FIXED: usize = size_of::<CallerKey>() + 1024;
        let groups = self.groups.iter().map(|group| group.len() + size_of::<String>()).sum::<usize>();
        let roles = self.roles.iter().map(|role| role.len() + size_of::<Arc<str>>()).sum::<usize>();
        let told = self.id.len() + self.email.as_ref().map_or(0, |email| email.len()) + groups + roles;
        u64::try_from(FIXED + 4 * told).unwrap_or(u64::MAX)
    }
}

impl PartialEq for CallerKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.profile == other.profile
            && self.id == other.id
            && self.issuer == other.issuer
            && self.kind == other.kind
            && self.email == other.email
            && self.groups == other.groups
            && self.roles == other.roles
    }
}

impl Eq for CallerKey {}

impl Hash for CallerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.fingerprint);
        state.write(&self.profile);
    }
}

/// Weighs entries by their bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes;

impl<Value> Weighter<CallerKey, Value> for Bytes {
    fn weight(&self, key: &CallerKey, _value: &Value) -> u64 {
        key.bytes()
    }
}

type Entries<Value> = Cache<CallerKey, Value, Bytes>;

/// A bounded cache by caller. Clones share it; it lives beside the snapshot, and so survives a reload.
pub struct CallerCache<Value>(Arc<Entries<Value>>);

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
    /// A cache of at most so many bytes, keys and values together; a usual caller takes two to three KiB.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        // The first number sizes the table at once, the second bounds it: an idle proxy stays small.
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        Self(Arc::new(Cache::with(1000, capacity_bytes, Bytes, DefaultHashBuilder::default(), lifecycle)))
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

    /// Lets go of callers whose grant has ended: nobody can ask for them again. Call it every minute or so.
    pub fn forget_ended(&self, now: Timestamp) {
        self.0.retain(|key, _| key.ends_at.is_none_or(|end| now < end));
    }

    pub(super) fn entries(&self) -> &Entries<Value> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::testing::{self, now};

    fn remember(cache: &CallerCache<u8>, caller: &testing::Caller) {
        cache.entries().insert(Caller { profile: [0; 32], grant: &caller.grant() }.key(), 1);
    }

    fn of(fingerprint: u8) -> testing::Caller {
        testing::Caller { fingerprint, ..testing::Caller::default() }
    }

    #[test]
    fn a_caller_is_found_by_what_is_said_of_it_and_by_nothing_less() {
        let (cache, caller) = (CallerCache::new(1 << 20), of(1));
        remember(&cache, &caller);
        let found = |caller: &testing::Caller, profile| {
            cache.entries().get(&Caller { profile, grant: &caller.grant() }).is_some()
        };
        assert!(found(&caller, [0; 32]) && !found(&caller, [1; 32]) && !found(&of(2), [0; 32]));
        for other in [
            testing::Caller { subject: "eve", ..caller.clone() },
            testing::Caller { email: None, ..caller.clone() },
            testing::Caller { groups: Vec::new(), ..caller.clone() },
            testing::Caller { roles: vec!["reader"], ..caller.clone() },
        ] {
            assert!(!found(&other, [0; 32]));
        }
        let later = testing::Caller { expires_at: Some(now()), ..caller };
        assert!(found(&later, [0; 32]), "when a grant ends tells nobody apart");
    }

    #[test]
    fn callers_whose_grant_has_ended_are_let_go() {
        let (cache, start) = (CallerCache::new(1 << 20), now());
        for (fingerprint, seconds) in [(1, Some(60)), (2, Some(600)), (3, None)] {
            let expires_at = seconds.map(|seconds| start.plus(Duration::from_secs(seconds)));
            remember(&cache, &testing::Caller { expires_at, ..of(fingerprint) });
        }
        cache.forget_ended(start.plus(Duration::from_secs(59)));
        assert_eq!(cache.len(), 3);
        cache.forget_ended(start.plus(Duration::from_secs(60)));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn many_large_callers_take_no_more_than_the_cache_may_hold() {
        let cache = CallerCache::new(8 << 20);
        let groups: Vec<String> = (0..100).map(|number| format!("{number:0200}")).collect();
        for number in 0..=u8::MAX {
            remember(&cache, &testing::Caller { groups: groups.clone(), ..of(number) });
        }
        assert!(cache.entries().weight() <= 8 << 20, "{} bytes", cache.entries().weight());
        assert!((1..100).contains(&cache.len()), "{} callers of 90 KiB each", cache.len());
    }
}
