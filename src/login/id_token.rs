//! The ID token of a token answer: every check of OpenID Connect Core 3.1.3.7, and `at_hash` (3.1.3.8).
//!
//! Form, signature, times and audience are judged as those of every token, by the issuer's one key store; here is what
//! only ID tokens have.

use std::slice;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::CoreTokenResponse;
use openidconnect::{OAuth2TokenResponse, TokenResponse};
use serde_json::{Map, Value};

use super::LoginIssuer;
use super::provider::ProviderError;
use crate::clock::Timestamp;
use crate::identity::IdentityError;
use crate::identity::jwt::Algorithm;
use crate::identity::token::{TimeRules, check_audience, check_issuer, check_media_type, check_times, verify_jws};

/// Verified claims, and the token that they came in.
pub(super) type VerifiedToken = (Map<String, Value>, String);

fn refuse(code: &'static str, detail: impl Into<String>) -> ProviderError {
    ProviderError::IdToken { code, detail: detail.into() }
}

/// The verified claims of the answer's ID token, and the token itself; `None` when the answer holds none.
///
/// `nonce` must match when it is given: at login always, at refresh never (Core 12.2).
pub(super) async fn verify(
    issuer: &LoginIssuer,
    answer: &CoreTokenResponse,
    nonce: Option<&str>,
    now: Timestamp,
) -> Result<Option<VerifiedToken>, ProviderError> {
    let Some(token) = answer.id_token() else { return Ok(None) };
    let (raw, settings) = (token.to_string(), &issuer.settings);
    let (header, claims) = verify_jws(&raw, &settings.keys, &issuer.algorithms, now).await.map_err(unverified)?;
    let refused = |code| move |error: IdentityError| refuse(code, error.to_string());
    check_media_type(&header, &[None, Some("jwt")]).map_err(refused("id_token_type"))?;
    check_issuer(&claims, &settings.issuer_url).map_err(refused("id_token_issuer"))?;
    check_audience(&claims, slice::from_ref(&settings.client_id)).map_err(refused("id_token_audience"))?;
    // How long a session may last is the session's own setting.
    let times = TimeRules { leeway: settings.leeway, longest_token: Duration::MAX };
    let judged = check_times(&claims, &times, now).map_err(|error| refuse(time_code(&error), error.to_string()))?;
    if judged.issued_at.is_none() {
        return Err(refuse("id_token_claims", "it does not say when it was issued"));
    }
    if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(refuse("id_token_subject", "its subject is malformed"));
    }
    if nonce.is_some() && claims.get("nonce").and_then(Value::as_str) != nonce {
        return Err(refuse("id_token_nonce", "it answers another login"));
    }
    if let Some(shown) = claims.get("at_hash")
        && shown.as_str() != Some(&*at_hash(header.algorithm, answer.access_token().secret()))
    {
        return Err(refuse("id_token_at_hash", "`at_hash` is of another access token"));
    }
    check_party(&settings.client_id, &claims)?;
    if claims.get("acr").is_some_and(|acr| !acr.is_string()) {
        return Err(refuse("id_token_claims", "`acr` is of the wrong type"));
    }
    Ok(Some((claims, raw)))
}

fn check_party(client_id: &str, claims: &Map<String, Value>) -> Result<(), ProviderError> {
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match claims.get("azp") {
        Some(Value::String(party)) if party == client_id => Ok(()),
        None if !several => Ok(()),
        _ => Err(refuse("id_token_azp", "`azp` is not this client")),
    }
}

/// The left half of the access token's digest, by the hash of the ID token's algorithm; Ed25519's is SHA-512.
fn at_hash(algorithm: Algorithm, access_token: &str) -> String {
    let hash = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => &SHA256,
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &SHA512,
    };
    let digest = digest::digest(hash, access_token.as_bytes());
    let half: Vec<u8> = digest.as_ref().iter().take(digest.as_ref().len() / 2).copied().collect();
    URL_SAFE_NO_PAD.encode(half)
}

fn unverified(error: IdentityError) -> ProviderError {
    if let IdentityError::Unavailable { detail, .. } = error {
        return ProviderError::Unreachable(detail);
    }
    let code = match error.code() {
        "key_unknown" => return ProviderError::UnknownKey,
        "algorithm_refused" => "id_token_algorithm",
        "key_unfit" | "key_ambiguous" | "signature_invalid" => "id_token_signature",
        _ => "id_token_malformed",
    };
    refuse(code, error.to_string())
}

fn time_code(error: &IdentityError) -> &'static str {
    match error.code() {
        "token_expired" => "id_token_expired",
        "token_not_yet_valid" => "id_token_nbf",
        _ => "id_token_claims",
    }
}

/// A `NumericDate` claim.
pub(super) fn time_of(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let value = claims.get(name)?;
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))?;
    Some(Timestamp::from_unix_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_an_access_token_is_the_standards() {
        // The example of OpenID Connect Core, A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(at_hash(Algorithm::RS256, token), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
