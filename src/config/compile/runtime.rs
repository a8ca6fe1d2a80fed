//! What lives beside the snapshot and survives a reload. All of it is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::audit::{Audit, OtherEvent};
use crate::clock::Clock;
use crate::config::checked::Checked;
#[cfg(feature = "spiffe")]
use crate::credential::WorkloadApis;
use crate::credential::{
    AssertionCache, BodyMemory, CredentialSource, EventUnwritten, Events, IdentityHeaderCache, IssueEvent, IssuedCache,
    KeyError, Leases, Outcome, PATIENCE, Remote, RemoteSettings, SigningKeys, VaultLeases,
};
use crate::identity::bearer::FirstSights;
use crate::identity::keys::{KeyStore, KeyStoreError, KeyStoreSettings};
use crate::login::{EventRefused, LoginError, LoginState, LoginStateSettings, SessionEvent};
use crate::policy::RoleUses;
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, UpstreamSettings, UpstreamSettingsError};

const REMEMBERED_ROLE_USES: usize = 100_000;
const REMEMBERED_FIRST_SIGHTS: usize = 100_000;
/// Credentials of other issuers, at most.
const CACHED_ISSUED: usize = 10_000;
/// Of each of the two caches by caller.
const CACHED_CREDENTIAL_BYTES: u64 = 64 * 1024 * 1024;

/// Why the process cannot start although its configuration is sound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The signing keys.
    #[error("the signing keys cannot be used")]
    Keys(#[from] KeyError),
    /// The state of browser login.
    #[error("the state of browser login cannot be used")]
    Login(#[from] LoginError),
}

/// What lives beside the snapshot.
pub struct Runtime {
    clock: Clock,
    metrics: Arc<Metrics>,
    role_uses: Arc<RoleUses>,
    first_sights: Arc<FirstSights>,
    assertions: AssertionCache,
    identity_headers: IdentityHeaderCache,
    issued: IssuedCache,
    /// `None` where nothing is served.
    audit: Option<Audit>,
    body_memory: BodyMemory,
    leases: Leases,
    vault_leases: VaultLeases,
    #[cfg(feature = "spiffe")]
    workload_apis: WorkloadApis,
    signing_keys: Option<Arc<SigningKeys>>,
    login_state: Option<Arc<LoginState>>,
    key_stores: Mutex<Kept<KeyStore>>,
    upstreams: Mutex<Kept<Upstream>>,
}

/// Parts by name: those in use, and those made for a configuration that is not in force yet and may never be.
struct Kept<T> {
    in_use: BTreeMap<Arc<str>, Arc<T>>,
    made: BTreeMap<Arc<str>, Arc<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { in_use: BTreeMap::new(), made: BTreeMap::new() }
    }
}

impl<T> Kept<T> {
    /// The part of this name in use, if it is `the_same`, else the one that `make` gives.
    fn part<E>(
        &mut self,
        name: &Arc<str>,
        the_same: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        // Whatever an earlier configuration wanted by this name was refused with it.
        self.made.remove(name);
        if let Some(known) = self.in_use.get(name).filter(|known| the_same(known)) {
            return Ok(known.clone());
        }
        let part = make()?;
        self.made.insert(name.clone(), part.clone());
        Ok(part)
    }

    /// The configuration that the latest parts were made for is sound, and these are its names.
    fn keep(&mut self, names: &BTreeSet<&str>) {
        self.in_use.append(&mut self.made);
        self.in_use.retain(|name, _| names.contains(&**name));
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens the state that `checked` needs: keys and sessions in its state directory. Blocks on the disk.
    ///
    /// # Errors
    /// [`StartError`]; nothing that cannot be read is made anew.
    pub fn open(checked: &Checked, clock: Clock, metrics: Arc<Metrics>, audit: &Audit) -> Result<Self, StartError> {
        let (mut signing_keys, mut login_state) = (None, None);
        if let Some(directory) = &checked.state_dir {
            signing_keys = open_keys(checked, directory)?;
            let audit = audit.clone();
            let events = Arc::new(move |event: SessionEvent| record(&audit, event));
            login_state = Some(LoginState::open(LoginStateSettings::new(directory.clone()), clock.clone(), events)?);
        }
        let issued = IssuedCache::new(CACHED_ISSUED, clock.clone());
        let leases = Leases::new(clock.clone());
        Ok(Self {
            clock,
            metrics,
            role_uses: Arc::new(RoleUses::new(REMEMBERED_ROLE_USES)),
            first_sights: Arc::new(FirstSights::new(REMEMBERED_FIRST_SIGHTS)),
            assertions: AssertionCache::new(CACHED_CREDENTIAL_BYTES),
            identity_headers: IdentityHeaderCache::new(CACHED_CREDENTIAL_BYTES),
            issued,
            audit: Some(audit.clone()),
            body_memory: BodyMemory::default(),
            vault_leases: VaultLeases::new(leases.clone()),
            leases,
            #[cfg(feature = "spiffe")]
            workload_apis: WorkloadApis::default(),
            signing_keys,
            login_state,
            key_stores: Mutex::default(),
            upstreams: Mutex::default(),
        })
    }

    /// For questions about a configuration that nobody serves by: it opens no state, signs nothing and records nothing.
    #[must_use]
    pub fn of_nothing() -> Self {
        let clock = Clock::system();
        let leases = Leases::new(clock.clone());
        Self {
            metrics: Arc::new(Metrics::new()),
            role_uses: Arc::new(RoleUses::new(0)),
            first_sights: Arc::new(FirstSights::new(0)),
            assertions: AssertionCache::new(0),
            identity_headers: IdentityHeaderCache::new(0),
            issued: IssuedCache::new(0, clock.clone()),
            audit: None,
            body_memory: BodyMemory::default(),
            vault_leases: VaultLeases::new(leases.clone()),
            leases,
            #[cfg(feature = "spiffe")]
            workload_apis: WorkloadApis::default(),
            signing_keys: None,
            login_state: None,
            key_stores: Mutex::default(),
            upstreams: Mutex::default(),
            clock,
        }
    }

    /// Whether anybody is served by it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.audit.is_some()
    }

    /// Time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Doorward's own signing keys, where there is a state directory.
    #[must_use]
    pub fn signing_keys(&self) -> Option<&Arc<SigningKeys>> {
        self.signing_keys.as_ref()
    }

    /// State of browser login, where there is a state directory.
    #[must_use]
    pub fn login_state(&self) -> Option<&Arc<LoginState>> {
        self.login_state.as_ref()
    }

    /// Key sets in use, by issuer.
    #[must_use]
    pub fn key_stores(&self) -> Vec<Arc<KeyStore>> {
        locked(&self.key_stores).in_use.values().cloned().collect()
    }

    /// Upstreams in use, by name.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        locked(&self.upstreams).in_use.values().cloned().collect()
    }

    /// Entries of the credential cache.
    #[must_use]
    pub fn cached_credentials(&self) -> usize {
        self.assertions.len() + self.issued.len()
    }

    /// Lets go of what is kept for callers whose grants have ended at `now`.
    pub fn forget_ended_callers(&self, now: crate::clock::Timestamp) {
        self.assertions.forget_ended(now);
        self.identity_headers.forget_ended(now);
        self.issued.forget_ended(now);
    }

    pub(super) fn role_uses(&self) -> &Arc<RoleUses> {
        &self.role_uses
    }

    pub(super) fn first_sights(&self) -> &Arc<FirstSights> {
        &self.first_sights
    }

    pub(super) fn assertions(&self) -> AssertionCache {
        self.assertions.clone()
    }

    /// Memory for bodies that are held until they are hashed, of all credentials and configurations together.
    pub(super) fn body_memory(&self) -> BodyMemory {
        self.body_memory.clone()
    }

    pub(super) fn issued(&self) -> IssuedCache {
        self.issued.clone()
    }

    /// What others issued and want back.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(super) fn vault_leases(&self) -> VaultLeases {
        self.vault_leases.clone()
    }

    /// The agents that issue certificates to this workload.
    #[cfg(feature = "spiffe")]
    pub(super) fn workload_apis(&self) -> &WorkloadApis {
        &self.workload_apis
    }

    /// The provider of the credential of this name, which asks `source`. `lifetime` is as long as it may be used.
    pub(super) fn remote<S: CredentialSource>(
        &self,
        name: &Arc<str>,
        source: S,
        lifetime: Option<Duration>,
    ) -> Remote<S> {
        let settings = RemoteSettings { name: name.clone(), lifetime, patience: PATIENCE };
        Remote::new(source, settings, self.issued(), self.credential_events(name), self.clock.clone())
    }

    /// Where what becomes of the credential of this name is recorded and counted.
    pub(super) fn credential_events(&self, name: &str) -> Events {
        let audit = self.audit.clone();
        let record = move |about: &IssueEvent, outcome: &Outcome<'_>, at| {
            let Some(audit) = &audit else { return Ok(()) };
            audit.emit(issue_event(about, outcome, at)).map_err(|_full| EventUnwritten)
        };
        Events::new(record, self.metrics.credential(name))
    }

    pub(super) fn identity_headers(&self) -> IdentityHeaderCache {
        self.identity_headers.clone()
    }

    /// The key set of these settings: the one in use when it has the same, else a new one.
    pub(super) fn key_store(&self, settings: KeyStoreSettings) -> Result<Arc<KeyStore>, KeyStoreError> {
        let the_same = |known: &KeyStore| *known.settings() == settings;
        locked(&self.key_stores).part(&settings.name, the_same, || {
            let store = Arc::new(KeyStore::new(settings.clone(), self.clock.clone())?);
            store.start();
            Ok(store)
        })
    }

    /// The upstream of these settings: the one in use when it has the same, else a new one.
    pub(super) fn upstream(&self, settings: UpstreamSettings) -> Result<Arc<Upstream>, UpstreamSettingsError> {
        let the_same = |known: &Upstream| *known.settings() == settings;
        locked(&self.upstreams).part(&settings.name, the_same, || Upstream::new(settings.clone(), self.clock.clone()))
    }

    /// Takes the parts of the configuration that is now in force into use and lets go of what it no longer names. Requests under way keep
    /// what they hold.
    pub fn take_into_use(&self, checked: &Checked) {
        let issuers: BTreeSet<&str> = checked.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let upstreams: BTreeSet<&str> = checked.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        locked(&self.key_stores).keep(&issuers);
        locked(&self.upstreams).keep(&upstreams);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_keys(checked: &Checked, directory: &Path) -> Result<Option<Arc<SigningKeys>>, StartError> {
    let Some(assertions) = &checked.assertions else { return Ok(None) };
    Ok(Some(Arc::new(SigningKeys::open(directory, assertions.rotate_every)?)))
}

fn issue_event(about: &IssueEvent, outcome: &Outcome<'_>, at: crate::clock::Timestamp) -> OtherEvent {
    let mut fields = vec![
        ("credential", about.credential.as_ref().into()),
        ("kind", about.kind.into()),
        ("route", about.route.as_ref().into()),
        ("environment", about.environment.as_ref().into()),
        ("roles", about.roles.iter().map(|held| Value::from(&*held.role)).collect()),
        ("policy_ids", about.policy_ids.iter().map(|id| Value::from(&**id)).collect()),
    ];
    fields.extend(outcome.fields());
    OtherEvent {
        at,
        name: outcome.name(),
        request_id: Some(about.request_id.clone()),
        principal: Some(about.principal.clone()),
        fields,
    }
}

fn record(audit: &Audit, event: SessionEvent) -> Result<(), EventRefused> {
    let mut fields = vec![("issuer", event.issuer.as_ref().into()), ("reason", event.reason.into())];
    if let Some(session) = event.session {
        fields.push(("session", session.into()));
    }
    let event = OtherEvent {
        at: event.at,
        name: event.kind.as_str(),
        request_id: event.request_id,
        principal: event.principal,
        fields,
    };
    audit.emit(event).map_err(|_full| EventRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kept: &mut Kept<String>, settings: &str) -> Arc<String> {
        let make = || Ok::<_, ()>(Arc::new(settings.to_owned()));
        kept.part(&"okta".into(), |known| *known == settings, make).unwrap()
    }

    #[test]
    fn a_refused_configuration_takes_no_part_from_the_one_in_force() {
        let mut kept = Kept::default();
        let good = part(&mut kept, "good");
        kept.keep(&["okta"].into());
        let _of_a_refused_one = part(&mut kept, "other");
        assert!(Arc::ptr_eq(&good, &part(&mut kept, "good")), "what it knows is not lost");
        kept.keep(&["okta"].into());
        assert!(Arc::ptr_eq(&good, &part(&mut kept, "good")));
        let other = part(&mut kept, "other");
        kept.keep(&["okta"].into());
        assert!(Arc::ptr_eq(&other, &part(&mut kept, "other")));
        kept.keep(&BTreeSet::new());
        assert!(kept.in_use.is_empty() && kept.made.is_empty());
    }
}
