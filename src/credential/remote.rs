//! Every credential that somebody else issues, whoever that is: one cache, one behaviour, one set of events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::Value;

use super::cache::{Fetch, IssuedCache, Key, Places};
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
    places: Places,
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
        Self {
            source: Arc::new(source),
            settings,
            cache,
            events,
            clock,
            profile: digest.finish(),
            places: Places::default(),
        }
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

    fn fetch(&self, request: S::Request, ask: &Ask<'_>) -> RemoteFetch<S> {
        RemoteFetch {
            source: self.source.clone(),
            request: Arc::new(request),
            about: IssueEvent::of(ask, self.settings.name.clone(), self.source.kind()),
            events: self.events.clone(),
            clock: self.clock.clone(),
            places: self.places.clone(),
        }
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
        let claims = error.claims().map(Into::into);
        CredentialError { name: self.settings.name.clone(), code: error.code, detail: error.detail, claims }
    }
}

/// One thing to be fetched, and the record of what comes of it.
struct RemoteFetch<S: CredentialSource> {
    source: Arc<S>,
    request: Arc<S::Request>,
    about: IssueEvent,
    events: Events,
    clock: Clock,
    places: Places,
}

impl<S: CredentialSource> Fetch for RemoteFetch<S> {
    fn attempt(&self) -> BoxFuture<'static, Result<Issued, SourceError>> {
        self.source.clone().fetch(self.request.clone())
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn record(&self, outcome: Result<&Issued, &SourceError>) -> Result<(), SourceError> {
        let outcome = match outcome {
            Ok(issued) => Outcome::Issued(issued),
            Err(error) => Outcome::Refused(error),
        };
        let recorded = self.events.tell(&self.about, &outcome, self.clock.now());
        recorded.map_err(|_| SourceError::passing("audit_full", "its record could not be written"))
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
            let fetch = Arc::new(self.fetch(request, ask));
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
            self.cache.drop_expired(key, &credential.id, || self.source.dropped(&credential.id));
        }
    }

    fn shown(&self, ask: &Ask<'_>) -> Result<Value, CredentialError> {
        Ok(self.request(ask)?.shown())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::testing::{Asked, Caller};
    use crate::telemetry::Metrics;

    /// Issues what lives so long.
    #[derive(Debug)]
    struct Issuer {
        clock: Clock,
        life: Duration,
    }

    struct Nothing;

    impl CredentialRequest for Nothing {
        fn digest(&self, _: &mut KeyDigest) {}

        fn shown(&self) -> Value {
            Value::Null
        }
    }

    impl CredentialSource for Issuer {
        type Request = Nothing;

        fn kind(&self) -> &'static str {
            "test"
        }

        fn request(&self, _: &Ask<'_>) -> Result<Nothing, CredentialError> {
            Ok(Nothing)
        }

        fn fetch(self: Arc<Self>, _: Arc<Nothing>) -> BoxFuture<'static, Result<Issued, SourceError>> {
            let expires_at = self.clock.now().plus(self.life);
            let proof = crate::credential::Proof::nothing();
            async move { Ok(Issued { id: "1".into(), proof, expires_at, renew_at: None, facts: Vec::new() }) }.boxed()
        }

        fn headers(&self) -> Vec<HeaderName> {
            Vec::new()
        }

        fn digest(&self, _: &mut KeyDigest) {}
    }

    fn after(now: Timestamp, seconds: Option<u64>) -> Option<Timestamp> {
        seconds.map(|seconds| now.plus(Duration::from_secs(seconds)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever the provider, the route, the caller's evidence and its roles say: the shortest counts, and what has
        /// ended is never handed out.
        #[test]
        fn no_credential_outlives_the_shortest_limit(
            life in 1_u64..100_000,
            lifetime in proptest::option::of(10_u64..100_000),
            evidence in proptest::option::of(1_u64..100_000),
            steps in proptest::collection::vec(0_u64..50_000, 1..4),
        ) {
            let clock = Clock::system();
            let settings = RemoteSettings {
                name: "c".into(),
                lifetime: lifetime.map(Duration::from_secs),
                patience: PATIENCE,
            };
            let events = Events::new(|_, _, _| Ok(()), Metrics::new().credential("c"));
            let source = Issuer { clock: clock.clone(), life: Duration::from_secs(life) };
            let remote = Remote::new(source, settings, IssuedCache::new(10, clock.clone()), events, clock.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                for step in steps {
                    clock.advance(Duration::from_secs(step));
                    let now = clock.now();
                    let asked = Asked::of(Caller { expires_at: after(now, evidence), ..Caller::default() }.grant());
                    let Ok(credential) = remote.issue(&asked.at(now)).await else { continue };
                    let end = credential.expires_at.expect("it ends");
                    prop_assert!(end > now, "it has ended");
                    for limit in [after(now, Some(life)), after(now, lifetime), after(now, evidence)] {
                        // The clock goes on meanwhile.
                        prop_assert!(limit.is_none_or(|limit| end <= limit.plus(Duration::from_secs(1))));
                    }
                }
                Ok(())
            })?;
        }
    }
}
