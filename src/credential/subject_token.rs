//! Doorward's own tokens for those who issue credentials: what a cloud's federation, an authorization server or a vault
//! is shown, and verifies by the documents below Doorward's issuer URL.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::keys::SigningKeys;
use super::signing_key::Algorithm;
use super::source::SourceError;
use crate::clock::Clock;
use crate::secret::Secret;

/// Long enough for one request, with clocks that disagree a little.
const LIFETIME: Duration = Duration::from_secs(300);
/// Issuers refuse what comes from their future.
const BACKDATED: Duration = Duration::from_secs(5);

/// Signs tokens about whoever a credential is for.
#[derive(Clone, Debug)]
pub struct SubjectTokens {
    keys: Option<Arc<SigningKeys>>,
    issuer: Arc<str>,
    algorithm: Algorithm,
    clock: Clock,
}

/// What one token says.
#[derive(Clone, Debug, Default)]
pub struct SubjectClaims {
    /// `sub`
    pub subject: Arc<str>,
    /// `aud`, one.
    pub audience: Arc<str>,
    /// Further claims. None of them may be one that a token's validity rests on; those are overwritten.
    pub further: Map<String, Value>,
}

impl SubjectTokens {
    /// Tokens of `issuer`, signed by the active key of `algorithm`.
    #[must_use]
    pub fn new(keys: Arc<SigningKeys>, issuer: Arc<str>, algorithm: Algorithm, clock: Clock) -> Self {
        Self { keys: Some(keys), issuer, algorithm, clock }
    }

    /// Tokens that can be spoken of, and never made.
    #[must_use]
    pub fn unsigned(issuer: Arc<str>, clock: Clock) -> Self {
        Self { keys: None, issuer, algorithm: Algorithm::Rs256, clock }
    }

    /// `iss` of the tokens.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// A token by this issuer.
    ///
    /// # Errors
    /// [`SourceError`] when no key can sign.
    pub async fn mint(&self, claims: SubjectClaims) -> Result<Secret, SourceError> {
        let issuer = self.issuer.clone();
        self.mint_as(&issuer, claims).await
    }

    /// A token whose `iss` is somebody who registered Doorward's keys as its own: an OAuth client (RFC 7523 section 3).
    ///
    /// # Errors
    /// [`SourceError`] when no key can sign.
    pub async fn mint_as(&self, issuer: &str, claims: SubjectClaims) -> Result<Secret, SourceError> {
        let failed = |detail: &str| SourceError::passing("signing_failed", detail);
        let key = self.keys.as_ref().and_then(|keys| keys.active(self.algorithm));
        let key = key.ok_or_else(|| failed("there is no key to sign with"))?;
        let now = self.clock.now();
        let mut all = claims.further;
        for (name, value) in [
            ("iss", Value::from(issuer)),
            ("sub", Value::from(&*claims.subject)),
            ("aud", Value::from(&*claims.audience)),
            ("iat", Value::from(now.minus(BACKDATED).unix_seconds())),
            ("nbf", Value::from(now.minus(BACKDATED).unix_seconds())),
            ("exp", Value::from(now.plus(LIFETIME).unix_seconds())),
            ("jti", Value::from(Uuid::now_v7().to_string())),
        ] {
            all.insert(name.to_owned(), value);
        }
        let (algorithm, kid) = (key.algorithm().as_str(), key.kid());
        let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}","kid":"{kid}"}}"#);
        let claims = Value::Object(all).to_string();
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signed = {
            let (key, input) = (key.clone(), input.clone());
            // RSA takes most of a millisecond.
            tokio::task::spawn_blocking(move || key.sign(input.as_bytes())).await
        };
        let signature = signed.ok().and_then(Result::ok).ok_or_else(|| failed("the signature could not be made"))?;
        Ok(Secret::new(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}
