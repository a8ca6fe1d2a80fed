//! `signed_assertion`: a short-lived JWT about the caller, signed by Doorward, verifiable by its documents.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::caller_cache::{Caller, CallerCache, CallerKey};
use super::keys::SigningKeys;
use super::signing_key::{Algorithm, SigningKey};
use super::{Ask, Credential, CredentialError, CredentialProvider, Proof, SettingsError, settable};
use crate::clock::Timestamp;
use crate::policy::{Grant, RoleSession};

/// Longest life of an assertion.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(300);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);
/// Most groups that an assertion names.
pub const MOST_GROUPS: usize = 100;
/// Most bytes of an assertion's claims, as JSON: a header of 5.5 KiB, below what common servers take.
pub const MOST_CLAIM_BYTES: usize = 4096;
/// Longest wait for a signature: RSA is made by threads that other work may hold up.
const DEADLINE: Duration = Duration::from_secs(5);
const KIND: &str = "signed_assertion";

/// How one route's assertions look.
#[derive(Clone, Debug)]
pub struct AssertionSettings {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// `iss`: the URL that the documents stand below.
    pub issuer: Arc<str>,
    /// `aud`: the route's own, else its upstream's origin.
    pub audience: Arc<str>,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// How long it holds, unless the grant or a role that it names ends earlier; at most [`LONGEST_LIFETIME`].
    pub lifetime: Duration,
    /// Where it is put. `Authorization` gets `Bearer` before it, any other header the bare token.
    pub header: HeaderName,
}

/// Mints assertions for one credential and one audience.
pub struct SignedAssertion {
    settings: AssertionSettings,
    keys: Arc<SigningKeys>,
    cache: AssertionCache,
    profile: [u8; 32],
}

/// Assertions in use, for every route and credential.
pub type AssertionCache = CallerCache<Minted>;

/// An assertion and how long it may be handed out.
#[derive(Clone, Debug)]
pub struct Minted {
    credential: Credential,
    kid: Arc<str>,
    issued_at: Timestamp,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
    kind: &'static str,
    roles: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
}

impl fmt::Debug for SignedAssertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignedAssertion").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SignedAssertion {
    /// A provider that signs with `keys`, which must have a key for the algorithm ([`SigningKeys::ensure`]) by the
    /// time of the first request.
    ///
    /// # Errors
    /// [`SettingsError`] for a lifetime out of bounds, an empty issuer or audience, a header that frames messages.
    pub fn new(
        settings: AssertionSettings,
        keys: Arc<SigningKeys>,
        cache: AssertionCache,
    ) -> Result<Self, SettingsError> {
        if settings.lifetime > LONGEST_LIFETIME || settings.lifetime < SHORTEST_LIFETIME {
            return Err(SettingsError::Lifetime { longest: LONGEST_LIFETIME, shortest: SHORTEST_LIFETIME });
        }
        if settings.issuer.is_empty() || settings.audience.is_empty() {
            return Err(SettingsError::Unnamed);
        }
        settable(&settings.header)?;
        let AssertionSettings { name, issuer, audience, algorithm, lifetime, header } = &settings;
        let parts =
            json!([KIND, name, issuer, audience, algorithm.as_str(), lifetime.as_secs(), header.as_str()]).to_string();
        let mut profile = [0; 32];
        profile.copy_from_slice(digest(&SHA256, parts.as_bytes()).as_ref());
        Ok(Self { settings, keys, cache, profile })
    }

    async fn renew(
        &self,
        caller: CallerKey,
        key: Arc<SigningKey>,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Credential, CredentialError> {
        let entries = self.cache.entries();
        entries.remove_if(&caller, |minted| !minted.serves(key.kid(), grant, now));
        let mut fresh = None;
        let minting = async {
            let minted = self.mint(&key, grant, now).await?;
            fresh = Some(minted.clone());
            Ok::<_, CredentialError>(minted)
        };
        let found = entries.get_or_insert_async(&caller, minting).await?;
        if let Some(minted) = fresh {
            return Ok(Credential { fresh: true, ..minted.credential });
        }
        if found.serves(key.kid(), grant, now) {
            return Ok(found.credential);
        }
        // Somebody with a longer grant was quicker: this caller's own is not worth keeping.
        let minted = self.mint(&key, grant, now).await?;
        Ok(Credential { fresh: true, ..minted.credential })
    }

    async fn mint(&self, key: &Arc<SigningKey>, grant: &Grant, now: Timestamp) -> Result<Minted, CredentialError> {
        let issued = now.unix_seconds();
        let lifetime = i64::try_from(self.settings.lifetime.as_secs()).unwrap_or(0);
        let granted = end(grant, now).map_or(i64::MAX, Timestamp::unix_seconds);
        let expires = issued.saturating_add(lifetime).min(granted);
        if expires <= issued {
            return Err(self.refused("grant_expired", "the grant ends within this second"));
        }
        let id: Arc<str> = Uuid::now_v7().to_string().into();
        let input = self.signing_input(key, grant, &id, issued, expires)?;
        let signature = self.sign(key, &input).await?;
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        let text = if self.settings.header == AUTHORIZATION { format!("Bearer {token}") } else { token };
        let mut value = HeaderValue::try_from(text).map_err(|_| self.refused("signing_failed", "no header value"))?;
        value.set_sensitive(true);
        let expires_at = Timestamp::from_unix_seconds(expires);
        let life = expires_at.since(Timestamp::from_unix_seconds(issued));
        let credential = Credential {
            id,
            name: self.settings.name.clone(),
            kind: KIND,
            expires_at: Some(expires_at),
            fresh: false,
            proof: Proof::Headers(Arc::from([(self.settings.header.clone(), value)])),
            key: None,
        };
        let renew_at = expires_at.minus((life / 5).min(Duration::from_secs(30)));
        let issued_at = Timestamp::from_unix_seconds(issued);
        Ok(Minted { credential, kid: key.kid().clone(), issued_at, renew_at, expires_at })
    }

    fn signing_input(
        &self,
        key: &SigningKey,
        grant: &Grant,
        id: &str,
        issued: i64,
        expires: i64,
    ) -> Result<String, CredentialError> {
        let principal = grant.principal();
        if principal.groups.len() > MOST_GROUPS {
            let detail =
                format!("the caller is in {} groups, an assertion names at most {MOST_GROUPS}", principal.groups.len());
            return Err(self.refused(CredentialError::PRINCIPAL_TOO_LARGE, detail));
        }
        let claims = Claims {
            iss: &self.settings.issuer,
            sub: principal.id(),
            aud: &self.settings.audience,
            iat: issued,
            nbf: issued,
            exp: expires,
            jti: id,
            kind: principal.kind.as_str(),
            roles: lasting_roles(grant, issued).map(|held| &*held.role).collect(),
            email: principal.email.as_deref(),
            groups: &principal.groups,
        };
        let claims = serde_json::to_vec(&claims).map_err(|_| self.refused("signing_failed", "no JSON"))?;
        if claims.len() > MOST_CLAIM_BYTES {
            let detail = format!("the claims take {} bytes, at most {MOST_CLAIM_BYTES} fit", claims.len());
            return Err(self.refused(CredentialError::PRINCIPAL_TOO_LARGE, detail));
        }
        let (algorithm, kid) = (key.algorithm().as_str(), key.kid());
        let header = format!(r#"{{"typ":"doorward-assertion+jwt","alg":"{algorithm}","kid":"{kid}"}}"#);
        Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }

    async fn sign(&self, key: &Arc<SigningKey>, input: &str) -> Result<Vec<u8>, CredentialError> {
        let signature = match key.algorithm() {
            Algorithm::Es256 => key.sign(input.as_bytes()).ok(),
            Algorithm::Rs256 => {
                let (key, input) = (key.clone(), input.to_owned());
                let signed = tokio::task::spawn_blocking(move || key.sign(input.as_bytes()));
                signed.await.ok().and_then(Result::ok)
            }
        };
        signature.ok_or_else(|| self.refused("signing_failed", "the signature could not be made"))
    }

    fn refused(&self, code: &'static str, detail: impl Into<String>) -> CredentialError {
        CredentialError { name: self.settings.name.clone(), code, detail: detail.into(), claims: None }
    }
}

impl Minted {
    /// Whether it may be handed out for `grant`: signed by the key in use, not soon to end, not outliving the grant
    /// or a role, and not from a future that a corrected clock has taken back.
    fn serves(&self, kid: &str, grant: &Grant, now: Timestamp) -> bool {
        *self.kid == *kid
            && self.issued_at <= now
            && now < self.renew_at
            && grant
                .roles()
                .iter()
                .filter_map(|held| held.ends_at)
                .chain(grant.expires_at())
                .all(|end| self.expires_at <= end)
    }
}

/// The roles that do not end within the second `issued`: an assertion counts in whole seconds.
fn lasting_roles(grant: &Grant, issued: i64) -> impl Iterator<Item = &RoleSession> {
    grant.roles().iter().filter(move |held| held.ends_at.is_none_or(|end| end.unix_seconds() > issued))
}

/// The end of what an assertion says: of the grant, and of every role that it names.
fn end(grant: &Grant, now: Timestamp) -> Option<Timestamp> {
    let roles = lasting_roles(grant, now.unix_seconds()).filter_map(|held| held.ends_at);
    roles.chain(grant.expires_at()).min()
}

impl CredentialProvider for SignedAssertion {
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        let (grant, now) = (ask.grant, ask.now);
        let Some(key) = self.keys.active(self.settings.algorithm) else {
            return ready(Err(self.refused("signing_key_missing", "no key for the algorithm"))).boxed();
        };
        let caller = Caller { profile: self.profile, grant };
        if let Some(minted) = self.cache.entries().get(&caller)
            && minted.serves(key.kid(), grant, now)
        {
            return ready(Ok(minted.credential)).boxed();
        }
        async move {
            let renewed = tokio::time::timeout(DEADLINE, self.renew(caller.key(), key, grant, now)).await;
            renewed.unwrap_or_else(|_| Err(self.refused("signing_timeout", "the signature took too long")))
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![self.settings.header.clone()]
    }
}

#[cfg(test)]
mod tests;
