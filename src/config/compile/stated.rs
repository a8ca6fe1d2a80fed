//! Callers that somebody states, to explain by. Nobody verified them, so nothing that serves may use these.
//!
//! The rules are the ones that serve; what a statement leaves out is taken as good, and said.

use serde_json::{Map, Value, json};

use super::issuers::{certificate_settings, identity_of_user, projection, times, token_type};
use crate::clock::Timestamp;
use crate::config::checked::{CertificateIssuer, Issuer};
use crate::identity::bearer::{ClaimRules, TokenType};
use crate::identity::jwt::UnverifiedToken;
use crate::identity::projection::Projection;
use crate::identity::token::{check_algorithm, check_audience, check_issuer};
use crate::identity::{IdentityError, Principal};

/// Life of a token whose claims do not say.
const TAKEN_LIFE_SECONDS: i64 = 60;

/// A caller that was stated.
#[derive(Debug)]
pub struct Stated {
    /// The principal, or why no evidence would make one.
    pub principal: Result<Principal, IdentityError>,
    /// Claims that were not stated and were taken as good.
    pub taken_as_good: Vec<&'static str>,
}

/// A caller by claims of a token that `issuer` would have signed.
#[must_use]
pub fn by_claims(issuer: &Issuer, claims: Map<String, Value>, now: Timestamp) -> Stated {
    let mut checked = claims.clone();
    let mut taken_as_good = Vec::new();
    let mut take = |name: &'static str, value: Value| {
        if !checked.contains_key(name) {
            checked.insert(name.to_owned(), value);
            taken_as_good.push(name);
        }
    };
    take("iss", json!(issuer.issuer));
    take("aud", json!(issuer.audience));
    take("exp", json!(now.unix_seconds().saturating_add(TAKEN_LIFE_SECONDS)));
    if token_type(issuer) == TokenType::AccessToken {
        take("iat", json!(now.unix_seconds()));
        take("jti", json!("-"));
        take("client_id", json!("-"));
    }
    let principal = projected(issuer, |rules| {
        check_issuer(&checked, &issuer.issuer)?;
        let times = rules.check(&checked, now)?;
        // The principal is made of what was stated only: a claim taken as good must not meet a role's trust.
        rules.principal(claims, &times, || now, [0; 32])
    });
    Stated { principal, taken_as_good }
}

/// A caller by a token whose signature nobody looks at.
#[must_use]
pub fn by_token(issuer: &Issuer, token: &UnverifiedToken<'_>, now: Timestamp) -> Stated {
    let principal = projected(issuer, |rules| {
        let algorithms: Vec<_> = issuer.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
        check_issuer(token.unverified_claims(), &issuer.issuer)?;
        check_algorithm(token.header(), &algorithms)?;
        rules.check_header(token.header())?;
        let times = rules.check(token.unverified_claims(), now)?;
        rules.principal(token.unverified_claims().clone(), &times, || now, [0; 32])
    });
    Stated { principal, taken_as_good: Vec::new() }
}

/// A user with a browser session, by claims of the ID token that began it.
#[must_use]
pub fn by_session(issuer: &Issuer, claims: &Map<String, Value>, now: Timestamp) -> Stated {
    let mut taken_as_good = vec!["the session"];
    let client_id = issuer.login.as_ref().map(|login| login.client_id.clone());
    let principal = made(issuer).and_then(|projection| {
        if claims.contains_key("iss") {
            check_issuer(claims, &issuer.issuer)?;
        }
        match client_id {
            Some(client_id) if claims.contains_key("aud") => check_audience(claims, &[client_id])?,
            _ => taken_as_good.push("aud"),
        }
        identity_of_user(&projection, issuer.leeway, claims, now).map(Principal::verified)
    });
    Stated { principal, taken_as_good }
}

/// A workload by the one name of its client certificate, valid from now on.
#[must_use]
pub fn by_certificate(issuer: &CertificateIssuer, name: &str, now: Timestamp) -> Stated {
    let until = Timestamp::from_unix_seconds(now.unix_seconds().saturating_add(TAKEN_LIFE_SECONDS));
    let principal = certificate_settings(issuer).stated(name, now, until);
    Stated { principal, taken_as_good: vec!["chain", "revocation", "validity"] }
}

fn projected(
    issuer: &Issuer,
    judge: impl FnOnce(ClaimRules<'_>) -> Result<Principal, IdentityError>,
) -> Result<Principal, IdentityError> {
    let projection = made(issuer)?;
    judge(ClaimRules {
        audiences: &issuer.audience,
        token_type: token_type(issuer),
        times: times(issuer),
        projection: &projection,
    })
}

/// Its paths were checked with the configuration, so that this never fails.
fn made(issuer: &Issuer) -> Result<Projection, IdentityError> {
    let unusable = |detail| IdentityError::Unavailable { issuer: issuer.name.as_str().into(), detail };
    projection(issuer).map_err(unusable)
}
