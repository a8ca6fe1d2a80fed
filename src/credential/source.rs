//! What somebody else issues: the trait of those who know how to ask for it, and what comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::{Ask, CredentialError, Proof};
use crate::clock::Timestamp;

/// What an issuer gave. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its public identifier, as the issuer's own records have it: access key id, `jti`, lease, serial number.
    pub id: Arc<str>,
    /// What goes upstream.
    pub proof: Proof,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When its issuer would have it renewed, where it says so.
    pub renew_at: Option<Timestamp>,
    /// What the audit record says of it besides, such as a session's name and tags. Never a secret.
    pub facts: Vec<(&'static str, Value)>,
}

/// One thing that is asked of an issuer, with all that makes it differ from another.
pub trait CredentialRequest: Send + Sync + 'static {
    /// Writes whatever two requests differ by if what is issued for one must not serve the other. What changes with
    /// each attempt (`iat`, `jti`) stays out.
    fn digest(&self, digest: &mut KeyDigest);

    /// What would be asked of whom, for people: no secret, no token.
    fn shown(&self) -> Value;
}

/// One way of obtaining credentials from somebody else.
pub trait CredentialSource: Send + Sync + fmt::Debug + 'static {
    /// What it asks.
    type Request: CredentialRequest;

    /// Kind, such as `aws`.
    fn kind(&self) -> &'static str;

    /// What is to be asked for this request.
    ///
    /// # Errors
    /// [`CredentialError`] when nothing may be: a value that does not fit a template, a caller without a token.
    fn request(&self, ask: &Ask<'_>) -> Result<Self::Request, CredentialError>;

    /// Asks once. Deadlines and further tries are the cache's.
    fn fetch(self: Arc<Self>, request: Arc<Self::Request>) -> BoxFuture<'static, Result<Issued, SourceError>>;

    /// Names of every header that it may set.
    fn headers(&self) -> Vec<HeaderName>;

    /// The upstream says that what has this public identifier has expired. What is issued next is not that again.
    fn dropped(&self, _id: &str) {}

    /// Writes what of its own settings tells its credentials from those of another: whom it asks, and as whom.
    fn digest(&self, digest: &mut KeyDigest);
}

/// Digests the parts of a cache key, each with its name and its length: no two lists of parts run into one.
pub struct KeyDigest(Context);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyDigest")
    }
}

impl Default for KeyDigest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl KeyDigest {
    /// Adds a part.
    pub fn part(&mut self, name: &'static str, value: impl AsRef<[u8]>) -> &mut Self {
        for bytes in [name.as_bytes(), value.as_ref()] {
            self.0.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// Adds a part that may be absent, which differs from an empty one.
    pub fn optional(&mut self, name: &'static str, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            Some(value) => self.part(name, value),
            None => self,
        }
    }

    /// The key.
    #[must_use]
    pub(super) fn finish(self) -> [u8; 32] {
        let digest = self.0.finish();
        let mut key = [0; 32];
        key.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        key
    }
}

/// Why an issuer gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// Stable code, such as `credential_refused`.
    pub code: &'static str,
    /// What went wrong, as the issuer says it, without any secret.
    pub detail: String,
    retry: Retry,
    claims: Option<Arc<str>>,
}

/// Longest claims challenge that is passed on, bytes of JSON.
const LONGEST_CHALLENGE: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Never,
    Soon,
    After(Duration),
}

impl SourceError {
    /// The issuer refuses, and would again.
    pub const REFUSED: &'static str = "credential_refused";
    /// The issuer cannot be reached, or is not well.
    pub const UNAVAILABLE: &'static str = "credential_issuer_unavailable";
    /// What the issuer answered cannot be used.
    pub const UNREADABLE: &'static str = "credential_answer_unreadable";
    /// The issuer wants the caller to sign in again first, such as with a second factor.
    pub const INTERACTION: &'static str = CredentialError::INTERACTION;

    /// An error that would come again.
    #[must_use]
    pub fn lasting(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry: Retry::Never, claims: None }
    }

    /// An error that may pass.
    #[must_use]
    pub fn passing(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry: Retry::Soon, claims: None }
    }

    /// The issuer asks to be left alone for a while.
    #[must_use]
    pub fn busy(detail: impl Into<String>, pause: Duration) -> Self {
        Self { code: Self::UNAVAILABLE, detail: detail.into(), retry: Retry::After(pause), claims: None }
    }

    /// The issuer wants the caller to sign in again first. `claims` is what it wants of that sign-in (OpenID Connect Core
    /// section 5.5), and is dropped unless it is a JSON object of at most 2 KiB.
    #[must_use]
    pub fn interaction(detail: impl Into<String>, claims: Option<&str>) -> Self {
        let is_object = |claims: &&str| serde_json::from_str::<serde_json::Map<String, Value>>(claims).is_ok();
        let claims = claims.filter(|claims| claims.len() <= LONGEST_CHALLENGE).filter(is_object);
        let (detail, claims) = (detail.into(), claims.map(Into::into));
        Self { code: Self::INTERACTION, detail, retry: Retry::Never, claims }
    }

    /// What the issuer wants of the caller's next sign-in.
    #[must_use]
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }

    pub(super) fn overloaded(detail: &str) -> Self {
        Self::passing("credential_overloaded", detail)
    }

    pub(super) fn timeout(patience: Duration) -> Self {
        Self::passing("credential_timeout", format!("its issuer did not answer within {} ms", patience.as_millis()))
    }

    pub(super) fn ended_at_once() -> Self {
        Self::lasting(Self::UNREADABLE, "what its issuer gave had ended already: do the clocks agree?")
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.retry != Retry::Never
    }

    /// How long the issuer asks to be left alone.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        match self.retry {
            Retry::After(pause) => Some(pause),
            Retry::Never | Retry::Soon => None,
        }
    }
}

/// A header as it carries a token: `Authorization` with `Bearer` before it, any other bare. `None` where the token is no
/// header value.
pub(super) fn token_header(name: &HeaderName, token: &str) -> Option<Proof> {
    let text = if *name == http::header::AUTHORIZATION { format!("Bearer {token}") } else { token.to_owned() };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(Proof::Headers(Arc::from([(name.clone(), value)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(write: impl FnOnce(&mut KeyDigest)) -> [u8; 32] {
        let mut digest = KeyDigest::default();
        write(&mut digest);
        digest.finish()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            key(|digest| _ = digest.part("a", "bc")),
            key(|digest| _ = digest.part("ab", "c")),
            key(|digest| _ = digest.part("a", "b").part("c", "")),
            key(|digest| _ = digest.part("a", "").part("c", "b")),
            key(|digest| _ = digest.optional("a", None::<&str>)),
            key(|digest| _ = digest.optional("a", Some(""))),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "key {place}");
        }
    }
}
