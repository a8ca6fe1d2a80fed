//! Every credential that somebody else issues, whoever that is: one cache, one behaviour, one set of events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::Value;

use super::cache::{Fetch, IssuedCache, Key};
use super::event::{Events, IssueEvent, Outcome};
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::{Ask, Credential, CredentialError, CredentialProvider};
use crate::clock::Clock;

/// How long a request waits for its credential.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What every remote credential is told by configuration.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// Longest time that a request is given it for, whatever its issuer says.
    pub lifetime: Option<Duration>,
    /// How long a request waits for it.
    pub patience: Duration,
}

/// A provider that asks `S`, through the one cache.
pub struct Remote<S> {
    source: Arc<S>,
    settings: RemoteSettings,
    cache: IssuedCache,
    events: Events,
    clock: Clock,
    profile: [u8; 32],
}

impl<S: fmt::Debug> fmt::Debug for Remote<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remote").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<S: CredentialSource> Remote<S> {
    /// A provider that keeps what `source` issues in `cache`, and tells `events` of it.
    pub fn new(source: S, settings: RemoteSettings, cache: IssuedCache, events: Events, clock: Clock) -> Self {
        let mut digest = KeyDigest::default();
        digest.part("kind", source.kind()).part("name", settings.name.as_bytes());
        source.digest(&mut digest);
        Self { source: Arc::new(source), settings, cache, events, clock, profile: digest.finish() }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<S::Request, CredentialError> {
        self.source.request(ask).map_err(|error| CredentialError { name: self.settings.name.clone(), ..error })
    }

    fn key(&self, request: &S::Request) -> Key {
        let mut digest = KeyDigest::default();
        digest.part("profile", self.profile);
        request.digest(&mut digest);
        digest.finish()
    }

    /// One fetch, and the record of what came of it. Without the record there is no credential.
    fn fetch(&self, request: Arc<S::Request>, ask: &Ask<'_>) -> Fetch {
        let (source, events, clock) = (self.source.clone(), self.events.clone(), self.clock.clone());
        let about = IssueEvent::of(ask, self.settings.name.clone(), source.kind());
        Arc::new(move || {
            let fetching = source.clone().fetch(request.clone());
            let (events, about, clock) = (events.clone(), about.clone(), clock.clone());
            async move {
                let fetched = fetching.await;
                let outcome = match &fetched {
                    Ok(issued) => Outcome::Issued(issued),
                    Err(error) => Outcome::Refused(error),
                };
                let recorded = events.tell(&about, &outcome, clock.now());
                let issued = fetched?;
                recorded.map_err(|_| SourceError::passing("audit_full", "its record could not be written"))?;
                Ok(issued)
            }
            .boxed()
        })
    }

    fn credential(&self, issued: &Issued, key: Key, fresh: bool, ask: &Ask<'_>) -> Credential {
        let own = self.settings.lifetime.map(|lifetime| ask.now.plus(lifetime));
        let ends = [Some(issued.expires_at), ask.grant.expires_at(), own];
        Credential {
            id: issued.id.clone(),
            name: self.settings.name.clone(),
            kind: self.source.kind(),
            expires_at: ends.into_iter().flatten().min(),
            fresh,
            proof: issued.proof.clone(),
            key: Some(key),
        }
    }

    fn failed(&self, error: SourceError) -> CredentialError {
        CredentialError { name: self.settings.name.clone(), code: error.code, detail: error.detail }
    }
}

impl<S: CredentialSource> CredentialProvider for Remote<S> {
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        async move {
            let request = self.request(ask)?;
            let key = self.key(&request);
            // The common case: nothing to fetch, nothing to copy.
            if let Some(issued) = self.cache.at_hand(&key, ask.now) {
                self.events.reused();
                return Ok(self.credential(&issued, key, false, ask));
            }
            let fetch = self.fetch(Arc::new(request), ask);
            let found = self.cache.obtain(key, self.settings.patience, &fetch).await;
            let found = found.map_err(|error| self.failed(error))?;
            Ok(self.credential(&found.issued, key, found.fresh, ask))
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        self.source.headers()
    }

    fn drop_expired(&self, credential: &Credential) {
        if let Some(key) = &credential.key {
            self.source.dropped(&credential.id);
            self.cache.drop_expired(key, &credential.id);
        }
    }

    fn shown(&self, ask: &Ask<'_>) -> Result<Value, CredentialError> {
        Ok(self.request(ask)?.shown())
    }
}
