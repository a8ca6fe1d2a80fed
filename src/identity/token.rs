//! Checks that every verified token passes, whoever asks: signature, times, audience.
//!
//! Bearer tokens, ID tokens and logout tokens share these; what else each must hold is for their own verifier.

use std::time::Duration;

use serde_json::{Map, Value};

use super::IdentityError;
use super::claims::{malformed, numeric_date};
use super::jwt::{Algorithm, Header, UnverifiedToken};
use super::keys::KeyStore;
use crate::clock::Timestamp;

/// How a token's times are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRules {
    /// How far apart the issuer's clock and ours may be.
    pub leeway: Duration,
    /// From `iat` to `exp` at most; from now to `exp` where there is no `iat`.
    pub longest_token: Duration,
}

impl Default for TimeRules {
    fn default() -> Self {
        Self { leeway: Duration::from_secs(60), longest_token: Duration::from_secs(24 * 3600) }
    }
}

/// A token's times, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// When it was issued (`iat`).
    pub issued_at: Option<Timestamp>,
    /// When its subject authenticated (`auth_time`).
    pub authenticated_at: Option<Timestamp>,
    /// When it ends (`exp`).
    pub expires_at: Timestamp,
    /// Until when it is accepted: `exp`, or with leeway once that has passed.
    pub accepted_until: Timestamp,
}

/// Verifies a token's form, algorithm and signature. Its claims are then the issuer's words, and still to be judged:
/// [`check_media_type`], [`check_issuer`], [`check_times`], [`check_audience`], and what the kind of token asks for.
///
/// # Errors
/// [`IdentityError::Invalid`]; [`IdentityError::Unavailable`] while the issuer's keys are out of reach.
pub async fn verify_jws(
    token: &str,
    keys: &KeyStore,
    algorithms: &[Algorithm],
    now: Timestamp,
) -> Result<(Header, Map<String, Value>), IdentityError> {
    let token = UnverifiedToken::parse(token)?;
    check_algorithm(token.header(), algorithms)?;
    keys.verify(&token, now).await?;
    Ok(token.into_parts())
}

/// The token's algorithm is one of `algorithms`.
///
/// # Errors
/// `algorithm_refused`.
pub fn check_algorithm(header: &Header, algorithms: &[Algorithm]) -> Result<(), IdentityError> {
    if algorithms.contains(&header.algorithm) {
        return Ok(());
    }
    let detail = format!("the issuer does not sign by {}", header.algorithm);
    Err(IdentityError::invalid("algorithm_refused", detail))
}

/// The token's type (`typ`, as [`Header::media_type`] has it) is one of `listed`; `None` stands for a token without.
///
/// An issuer signs tokens of many types by one key: logout tokens, security events, proofs. So the ones that may pass
/// are listed, never the ones that may not.
///
/// # Errors
/// `token_type_refused`.
pub fn check_media_type(header: &Header, listed: &[Option<&str>]) -> Result<(), IdentityError> {
    if listed.contains(&header.media_type.as_deref()) {
        return Ok(());
    }
    Err(IdentityError::invalid("token_type_refused", "the token is of another type"))
}

/// The token's `iss` is exactly `issuer`.
///
/// # Errors
/// `issuer_mismatch`.
pub fn check_issuer(claims: &Map<String, Value>, issuer: &str) -> Result<(), IdentityError> {
    if claims.get("iss").and_then(Value::as_str) == Some(issuer) {
        return Ok(());
    }
    Err(IdentityError::invalid("issuer_mismatch", "the token is by another issuer"))
}

/// `exp` is there and ahead, `nbf`, `iat` and `auth_time` are not, and the token does not live too long.
///
/// # Errors
/// `token_expired`, `token_not_yet_valid`, `token_lives_too_long`, `claim_missing`, `claim_malformed`.
pub fn check_times(
    claims: &Map<String, Value>,
    rules: &TimeRules,
    now: Timestamp,
) -> Result<TokenTimes, IdentityError> {
    let expires_at = numeric_date(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let not_before = numeric_date(claims, "nbf")?;
    let issued_at = numeric_date(claims, "iat")?;
    let authenticated_at = numeric_date(claims, "auth_time")?;
    if now >= expires_at.plus(rules.leeway) {
        return Err(IdentityError::invalid("token_expired", "the token has ended"));
    }
    let horizon = now.plus(rules.leeway);
    for (name, time) in [("nbf", not_before), ("iat", issued_at), ("auth_time", authenticated_at)] {
        if time.is_some_and(|time| time > horizon) {
            return Err(IdentityError::invalid(
                "token_not_yet_valid",
                format!("the token's `{name}` is in the future"),
            ));
        }
    }
    let begins_at = issued_at.unwrap_or(now);
    if expires_at.since(begins_at) > rules.longest_token {
        return Err(IdentityError::invalid("token_lives_too_long", "the token lives longer than its issuer's may"));
    }
    if issued_at.is_some_and(|issued_at| issued_at > expires_at) {
        return Err(IdentityError::invalid("token_expired", "the token ended before it was issued"));
    }
    let accepted_until = if now < expires_at { expires_at } else { expires_at.plus(rules.leeway) };
    Ok(TokenTimes { issued_at, authenticated_at, expires_at, accepted_until })
}

/// `aud` holds one of `accepted`.
///
/// # Errors
/// `audience_mismatch`, `claim_missing`, `claim_malformed`.
pub fn check_audience(claims: &Map<String, Value>, accepted: &[String]) -> Result<(), IdentityError> {
    let ours = |audience: &str| accepted.iter().any(|own| own == audience);
    let held = match claims.get("aud") {
        None => return Err(missing("aud")),
        Some(Value::String(audience)) => ours(audience),
        Some(value) => {
            let audiences = super::claims::array_of_texts(value).ok_or_else(|| malformed("aud"))?;
            audiences.iter().any(|audience| ours(audience))
        }
    };
    if held { Ok(()) } else { Err(IdentityError::invalid("audience_mismatch", "the token is for another audience")) }
}

/// The claim is absent and may not be.
pub(super) fn missing(name: &str) -> IdentityError {
    IdentityError::invalid("claim_missing", format!("the token has no claim `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::clock::Clock;
    use crate::identity::keys::{KeySource, KeyStoreSettings};
    use crate::identity::testing::{Claims, SigningKey, jwks};

    const NOW: i64 = 1_700_000_000;

    fn times(claims: Value) -> Result<TokenTimes, &'static str> {
        let rules = TimeRules { leeway: Duration::from_secs(60), longest_token: Duration::from_secs(3600) };
        let now = Timestamp::from_unix_seconds(NOW);
        check_times(claims.as_object().unwrap(), &rules, now).map_err(|error| error.code())
    }

    fn audience(claim: Value) -> Result<(), &'static str> {
        let claims = json!({ "aud": claim });
        let accepted = ["api://ours".to_owned(), "api://also".to_owned()];
        check_audience(claims.as_object().unwrap(), &accepted).map_err(|error| error.code())
    }

    #[test]
    fn a_token_must_end_and_ends_after_its_leeway() {
        assert_eq!(times(json!({})), Err("claim_missing"));
        assert!(times(json!({ "exp": NOW + 10 })).is_ok());
        assert!(times(json!({ "exp": NOW - 59 })).is_ok());
        assert_eq!(times(json!({ "exp": NOW - 60 })), Err("token_expired"));
        assert_eq!(times(json!({ "exp": 0 })), Err("token_expired"));
    }

    #[test]
    fn a_token_within_its_leeway_is_accepted_until_that_ends() {
        let at = Timestamp::from_unix_seconds;
        assert_eq!(times(json!({ "exp": NOW + 10 })).unwrap().accepted_until, at(NOW + 10));
        let late = times(json!({ "exp": NOW - 10 })).unwrap();
        assert_eq!((late.expires_at, late.accepted_until), (at(NOW - 10), at(NOW + 50)));
    }

    #[test]
    fn times_of_the_future_are_refused_beyond_the_leeway() {
        for name in ["nbf", "iat", "auth_time"] {
            assert!(times(json!({ "exp": NOW + 600, (name): NOW + 60 })).is_ok(), "{name}");
            assert_eq!(times(json!({ "exp": NOW + 600, (name): NOW + 61 })), Err("token_not_yet_valid"), "{name}");
        }
    }

    #[test]
    fn times_of_another_type_are_refused_and_not_skipped() {
        for name in ["exp", "nbf", "iat", "auth_time"] {
            for value in [json!("1699999999"), json!(null), json!(-5), json!(1e40), json!([NOW])] {
                let mut claims = json!({ "exp": NOW + 600 });
                claims[name] = value.clone();
                assert_eq!(times(claims), Err("claim_malformed"), "{name}: {value}");
            }
        }
    }

    #[test]
    fn a_token_lives_no_longer_than_its_issuers_may() {
        assert!(times(json!({ "iat": NOW - 100, "exp": NOW + 3500 })).is_ok());
        assert_eq!(times(json!({ "iat": NOW - 101, "exp": NOW + 3500 })), Err("token_lives_too_long"));
        assert!(times(json!({ "exp": NOW + 3600 })).is_ok());
        assert_eq!(times(json!({ "exp": NOW + 3601 })), Err("token_lives_too_long"));
        assert_eq!(times(json!({ "iat": NOW + 30, "exp": NOW + 20 })), Err("token_expired"));
    }

    #[test]
    fn the_audience_holds_one_of_ours_exactly() {
        assert_eq!(audience(json!("api://ours")), Ok(()));
        assert_eq!(audience(json!(["api://other", "api://also"])), Ok(()));
        for other in [
            json!("api://other"),
            json!("api://ours/"),
            json!("API://ours"),
            json!("api://our"),
            json!([]),
            json!([""]),
        ] {
            assert_eq!(audience(other.clone()), Err("audience_mismatch"), "{other}");
        }
        for malformed in
            [json!(null), json!(1), json!({ "api://ours": 1 }), json!(["api://ours", 1]), json!([["api://ours"]])]
        {
            assert_eq!(audience(malformed.clone()), Err("claim_malformed"), "{malformed}");
        }
        assert_eq!(check_audience(&Map::new(), &["a".to_owned()]).unwrap_err().code(), "claim_missing");
    }

    #[tokio::test]
    async fn a_verified_token_gives_its_header_and_claims_and_a_forged_one_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let key = SigningKey::es256("k1");
        std::fs::write(&path, jwks(&[&key])).unwrap();
        let (name, clock): (Arc<str>, _) = ("okta".into(), Clock::system());
        let keys = KeyStore::new(KeyStoreSettings::new(name, KeySource::File(path)), clock.clone()).unwrap();
        let (claims, allowed) = (Claims::default(), [Algorithm::ES256]);
        let verify = async |token: String, algorithms: &[Algorithm]| {
            verify_jws(&token, &keys, algorithms, clock.now()).await.map_err(|error| error.code())
        };
        let (header, verified) = verify(key.sign(&claims), &allowed).await.unwrap();
        assert_eq!((header.key_id.as_deref(), Value::Object(verified)), (Some("k1"), claims.0.clone()));
        assert_eq!(verify(key.sign(&claims), &[Algorithm::ES384]).await.map(drop), Err("algorithm_refused"));
        assert_eq!(verify(key.sign(&claims), &[]).await.map(drop), Err("algorithm_refused"));
        let forged = SigningKey::es256("k1").sign(&claims);
        assert_eq!(verify(forged, &allowed).await.map(drop), Err("signature_invalid"));
        assert_eq!(verify(String::new(), &allowed).await.map(drop), Err("token_malformed"));
    }

    #[test]
    fn only_listed_types_pass() {
        let header = |media_type: Option<&str>| Header {
            algorithm: Algorithm::ES256,
            key_id: None,
            media_type: media_type.map(str::to_owned),
        };
        assert!(check_media_type(&header(None), &[None, Some("jwt")]).is_ok());
        assert!(check_media_type(&header(Some("jwt")), &[None, Some("jwt")]).is_ok());
        assert!(check_media_type(&header(Some("logout+jwt")), &[None, Some("jwt")]).is_err());
        assert!(check_media_type(&header(None), &[Some("logout+jwt")]).is_err());
    }

    #[test]
    fn the_issuer_is_compared_exactly() {
        let claims = json!({ "iss": "https://issuer.example" });
        assert!(check_issuer(claims.as_object().unwrap(), "https://issuer.example").is_ok());
        for other in ["https://issuer.example/", "https://issuer.exampl", "HTTPS://issuer.example", ""] {
            assert!(check_issuer(claims.as_object().unwrap(), other).is_err(), "{other}");
        }
    }
}
