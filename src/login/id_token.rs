//! The ID token of a token answer: every check of OpenID Connect Core 3.1.3.7, and `at_hash` (3.1.3.8).

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::CoreTokenResponse;
use openidconnect::{
    AccessTokenHash, ClaimsVerificationError, Nonce, OAuth2TokenResponse, SignatureVerificationError, TokenResponse,
};
use serde_json::{Map, Value};

use super::LoginIssuer;
use super::provider::{Metadata, ProviderError, Providers};
use crate::clock::Timestamp;

/// Why an ID token does not hold.
pub(super) enum Fault {
    /// No key of the set made the signature: it may be newer than the set.
    UnknownKey,
    Refused {
        code: &'static str,
        detail: String,
    },
}

impl From<Fault> for ProviderError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::UnknownKey => Self::UnknownKey,
            Fault::Refused { code, detail } => Self::IdToken { code, detail },
        }
    }
}

fn refuse(code: &'static str, detail: impl Into<String>) -> Fault {
    Fault::Refused { code, detail: detail.into() }
}

/// Verified claims, and the token that they came in.
pub(super) type VerifiedToken = (Map<String, Value>, String);

/// The verified claims of the answer's ID token, and the token itself; `None` when the answer holds none.
///
/// `nonce` must match when it is given: at login always, at refresh never (Core 12.2).
pub(super) fn verify(
    issuer: &LoginIssuer,
    metadata: &Metadata,
    answer: &CoreTokenResponse,
    nonce: Option<&str>,
    now: Timestamp,
) -> Result<Option<VerifiedToken>, Fault> {
    let Some(token) = answer.id_token() else { return Ok(None) };
    let (leeway, client) = (issuer.settings.leeway, Providers::client(issuer, metadata));
    let latest = now.plus(leeway).unix_seconds();
    // The library compares `exp` with this time; leeway moves it back.
    let earliest = u64::try_from(now.minus(leeway).unix_millis()).unwrap_or(0);
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs(issuer.algorithms.clone())
        .set_other_audience_verifier_fn(|_| true)
        .set_time_fn(move || (UNIX_EPOCH + Duration::from_millis(earliest)).into())
        .set_issue_time_verifier_fn(move |issued| {
            if issued.timestamp() <= latest { Ok(()) } else { Err("issued in the future".to_owned()) }
        });
    let expected = nonce.map(|nonce| Nonce::new(nonce.to_owned()));
    let matches_nonce = |shown: Option<&Nonce>| match (&expected, shown) {
        (None, _) => Ok(()),
        (Some(expected), Some(shown)) if expected == shown => Ok(()),
        _ => Err("another nonce".to_owned()),
    };
    let claims = token.claims(&verifier, matches_nonce).map_err(fault_of)?;
    if let Some(shown) = claims.access_token_hash() {
        let key = token.signing_key(&verifier).map_err(|_| Fault::UnknownKey)?;
        let algorithm = token.signing_alg().map_err(|error| refuse("id_token_at_hash", error.to_string()))?;
        let hash = AccessTokenHash::from_token(answer.access_token(), algorithm, key);
        if hash.ok().as_ref() != Some(shown) {
            return Err(refuse("id_token_at_hash", "`at_hash` is of another access token"));
        }
    }
    let raw = token.to_string();
    let claims = payload(&raw)?;
    check_further(issuer, &claims, latest)?;
    Ok(Some((claims, raw)))
}

/// What the library leaves to its user: `azp`, `nbf`, and claims of the wrong type, which are never "absent".
fn check_further(issuer: &LoginIssuer, claims: &Map<String, Value>, latest: i64) -> Result<(), Fault> {
    let client_id = issuer.settings.client_id.as_str();
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match claims.get("azp") {
        Some(Value::String(party)) if party == client_id => {}
        None if !several => {}
        _ => return Err(refuse("id_token_azp", "`azp` is not this client")),
    }
    match claims.get("nbf") {
        None => {}
        Some(Value::Number(from)) if from.as_f64().is_some_and(|from| from <= latest as f64) => {}
        Some(_) => return Err(refuse("id_token_nbf", "it is not valid yet")),
    }
    if claims.get("auth_time").is_some_and(|at| !at.is_number())
        || claims.get("acr").is_some_and(|acr| !acr.is_string())
    {
        return Err(refuse("id_token_claims", "`auth_time` or `acr` is of the wrong type"));
    }
    Ok(())
}

fn payload(token: &str) -> Result<Map<String, Value>, Fault> {
    let malformed = || refuse("id_token_malformed", "its payload is no JSON object");
    let encoded = token.split('.').nth(1).ok_or_else(malformed)?;
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
    serde_json::from_slice(&text).map_err(|_| malformed())
}

/// The library's message may quote claims; the code says which check it was, and that is enough.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add checks: all others share a code")]
fn fault_of(error: ClaimsVerificationError) -> Fault {
    let (code, detail) = match error {
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) => {
            return Fault::UnknownKey;
        }
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::DisallowedAlg(_)) => {
            ("id_token_algorithm", "its algorithm is not allowed")
        }
        ClaimsVerificationError::SignatureVerification(_) => ("id_token_signature", "its signature does not hold"),
        ClaimsVerificationError::Expired(_) => ("id_token_expired", "it has expired"),
        ClaimsVerificationError::InvalidAudience(_) => ("id_token_audience", "it is for another client"),
        ClaimsVerificationError::InvalidIssuer(_) => ("id_token_issuer", "it is of another issuer"),
        ClaimsVerificationError::InvalidNonce(_) => ("id_token_nonce", "it answers another login"),
        ClaimsVerificationError::InvalidSubject(_) => ("id_token_subject", "its subject is malformed"),
        _ => ("id_token_claims", "a claim does not hold"),
    };
    refuse(code, detail)
}

/// A `NumericDate` claim.
pub(super) fn time_of(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let value = claims.get(name)?;
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))?;
    Some(Timestamp::from_unix_seconds(seconds))
}
