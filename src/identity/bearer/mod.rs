//! `Authorization: Bearer` with a JWT of one of several issuers.
//!
//! The order of the checks is part of the contract: form, header, issuer by exact text, algorithm, type, key and
//! signature, times, audience, kind of token, then the issuer's own rules. Each refuses by itself.

mod recall;
mod rules;
#[cfg(test)]
mod tests;

pub use recall::FirstSights;
pub use rules::ClaimRules;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::jwt::{Algorithm, UnverifiedToken};
use super::keys::{KeyStore, sha256};
use super::projection::Projection;
use super::token::{TimeRules, check_algorithm};
use super::{IdentityError, IdentityVerifier, Presented, Principal};
use crate::clock::Timestamp;
use crate::route::{EvidenceKind, Route, aws};
use recall::{Basis, Recall};

/// Tokens that a verifier remembers unless told otherwise, 40 MiB of them at most.
pub const REMEMBERED_TOKENS: usize = 20_000;

/// Longest leeway that makes sense.
const LONGEST_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// Which types of token (`typ`) an issuer's API callers show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenType {
    /// `JWT`, `at+jwt` or none; what looks like an ID token is refused.
    #[default]
    Any,
    /// `at+jwt` only, with the claims that RFC 9068 asks for.
    AccessToken,
}

impl TokenType {
    const fn media_types(self) -> &'static [Option<&'static str>] {
        match self {
            Self::Any => &[None, Some("jwt"), Some("jose"), Some("at+jwt")],
            Self::AccessToken => &[Some("at+jwt")],
        }
    }
}

/// One issuer of bearer tokens.
#[derive(Clone, Debug)]
pub struct BearerIssuer {
    /// Exact `iss` of its tokens.
    pub issuer: String,
    /// Audiences of which a token must hold one.
    pub audiences: Vec<String>,
    /// Algorithms that it signs by.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: Arc<KeyStore>,
    /// Types of token.
    pub token_type: TokenType,
    /// How a token's times are judged.
    pub times: TimeRules,
    /// How its claims become a principal.
    pub projection: Projection,
}

impl BearerIssuer {
    fn rules(&self) -> ClaimRules<'_> {
        ClaimRules {
            audiences: &self.audiences,
            token_type: self.token_type,
            times: self.times,
            projection: &self.projection,
        }
    }
}

/// Why a verifier cannot be made: each of these would let in more than anybody meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("issuer `{issuer}`: {fault}")]
pub struct BearerSettingsError {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    /// What is wrong.
    pub fault: &'static str,
}

/// Recognises callers by bearer tokens.
#[derive(Debug)]
pub struct BearerVerifier {
    issuers: Vec<BearerIssuer>,
    recall: Recall,
    first_sights: Arc<FirstSights>,
}

impl BearerVerifier {
    /// A verifier for these issuers that remembers `remembered_tokens` tokens at most. Verifiers that follow one
    /// another share `first_sights`.
    ///
    /// # Errors
    /// [`BearerSettingsError`].
    pub fn new(
        issuers: Vec<BearerIssuer>,
        remembered_tokens: usize,
        first_sights: Arc<FirstSights>,
    ) -> Result<Self, BearerSettingsError> {
        for (position, issuer) in issuers.iter().enumerate() {
            let twice = issuers.iter().take(position).any(|earlier| earlier.issuer == issuer.issuer);
            let fault = if twice {
                "another entry has the same `issuer`, and a token could belong to either"
            } else if issuer.projection.issuer.is_empty() || issuer.projection.issuer.contains('|') {
                "the name is empty or holds `|`, which ends it in a principal's id"
            } else if issuer.issuer.is_empty() {
                "`issuer` is empty"
            } else if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
                "`audience` is empty"
            } else if issuer.algorithms.is_empty() {
                "`algorithms` is empty"
            } else if issuer.projection.principal.is_empty() {
                "`principal` is empty"
            } else if issuer.times.leeway > LONGEST_LEEWAY {
                "`leeway` is longer than 5m"
            } else {
                continue;
            };
            return Err(BearerSettingsError { issuer: issuer.projection.issuer.clone(), fault });
        }
        Ok(Self { issuers, recall: Recall::new(remembered_tokens), first_sights })
    }

    fn generation(&self, issuer: usize, now: Timestamp) -> Option<u64> {
        self.issuers.get(issuer).and_then(|issuer| issuer.keys.generation(now))
    }

    async fn verify_unknown(
        &self,
        token: &str,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Arc<Principal>, IdentityError> {
        let token_bytes = token.len();
        let token = UnverifiedToken::parse(token)?;
        let stated = token.unverified_issuer();
        let known = self.issuers.iter().enumerate().find(|(_, known)| Some(known.issuer.as_str()) == stated);
        let (index, issuer) = known.ok_or_else(|| {
            IdentityError::invalid("issuer_unknown", "the token is by an issuer that is not configured")
        })?;
        check_algorithm(token.header(), &issuer.algorithms)?;
        issuer.rules().check_header(token.header())?;
        let generation = match issuer.keys.verify(&token, now).await {
            Ok(generation) => generation,
            Err(error) => {
                if error.code() == "signature_invalid"
                    && let Some(generation) = issuer.keys.generation(now)
                {
                    self.recall.refused(fingerprint, error.clone(), Basis { issuer: index, generation }, now);
                }
                return Err(error);
            }
        };
        let basis = Basis { issuer: index, generation };
        let (signed, _) = token.signed_and_signature();
        let (_, claims) = token.into_parts();
        match self.judge(issuer, claims, (fingerprint, signed), now) {
            Ok((principal, ends)) => {
                self.recall.verified((fingerprint, token_bytes), principal.clone(), basis, now, ends);
                Ok(principal)
            }
            Err(error) => {
                self.recall.refused(fingerprint, error.clone(), basis, now);
                Err(error)
            }
        }
    }

    /// Judges the claims of a token whose signature holds; also answers when the token ends.
    fn judge(
        &self,
        issuer: &BearerIssuer,
        claims: Map<String, Value>,
        (fingerprint, signed): ([u8; 32], &str),
        now: Timestamp,
    ) -> Result<(Arc<Principal>, Timestamp), IdentityError> {
        let rules = issuer.rules();
        let times = rules.check(&claims, now)?;
        let first_sight = || self.first_sights.of(sha256(signed.as_bytes()), now);
        let principal = rules.principal(claims, &times, first_sight, fingerprint)?;
        Ok((Arc::new(principal), times.expires_at))
    }
}

impl IdentityVerifier for BearerVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Bearer
    }

    fn presents(&self, presented: &Presented<'_>) -> Result<bool, IdentityError> {
        Ok(evidence(presented.headers, presented.route)?.is_some())
    }

    fn verify<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>> {
        let token = match bearer_token(presented.headers, presented.route) {
            Ok(token) => token,
            Err(error) => return ready(Err(error)).boxed(),
        };
        let (fingerprint, now) = (sha256(token.as_bytes()), presented.now);
        // Apart from the future's own box, a remembered token allocates nothing.
        match self.recall.verdict(&fingerprint, now, |issuer| self.generation(issuer, now)) {
            Some(verdict) => ready(verdict).boxed(),
            None => self.verify_unknown(token, fingerprint, now).boxed(),
        }
    }

    fn recognise_again(&self, principal: &Arc<Principal>, now: Timestamp) -> Option<Arc<Principal>> {
        let issuer = self.issuers.iter().find(|issuer| issuer.projection.issuer == principal.issuer)?;
        let stated = principal.claims.get("iss").and_then(Value::as_str);
        if stated != Some(issuer.issuer.as_str()) {
            return None;
        }
        let rules = issuer.rules();
        let times = rules.check(&principal.claims, now).ok()?;
        let claims = principal.claims.clone();
        let again = rules.principal(claims, &times, || principal.began_at, principal.fingerprint).ok()?;
        (again.id() == principal.id()).then(|| Arc::new(again))
    }
}

/// The token of a request whose caller came by one.
#[must_use]
pub fn shown_token<'a>(headers: &'a HeaderMap, route: &Route) -> Option<&'a str> {
    bearer_token(headers, route).ok()
}

/// Where a token comes.
enum Evidence<'a> {
    /// After its scheme.
    Authorization(&'a HeaderValue),
    /// By itself, in place of a session token.
    SecurityToken(&'a HeaderValue),
}

/// The one place where the request shows a token.
fn evidence<'a>(headers: &'a HeaderMap, route: &Route) -> Result<Option<Evidence<'a>>, IdentityError> {
    let one = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(IdentityError::TwoKinds),
        }
    };
    let authorization = one(AUTHORIZATION.as_str())?;
    if !route.speaks_aws {
        return Ok(authorization.map(Evidence::Authorization));
    }
    let authorization = authorization.filter(|value| !aws::is_signature(value));
    match (authorization, one(aws::SECURITY_TOKEN)?) {
        (Some(_), Some(_)) => Err(IdentityError::TwoKinds),
        (Some(value), None) => Ok(Some(Evidence::Authorization(value))),
        (None, token) => Ok(token.map(Evidence::SecurityToken)),
    }
}

/// The token that the request shows. In `Authorization`: scheme in any case, exactly one space (RFC 6750 section 2.1).
fn bearer_token<'a>(headers: &'a HeaderMap, route: &Route) -> Result<&'a str, IdentityError> {
    let malformed = || IdentityError::invalid("token_malformed", "the header that carries the token is malformed");
    let evidence = evidence(headers, route)?.ok_or(IdentityError::Missing)?;
    let (Evidence::Authorization(value) | Evidence::SecurityToken(value)) = evidence;
    // What `to_str` refuses, found many bytes at a time: a header value holds no control character but the tab.
    let ascii = Some(value.as_bytes()).filter(|bytes| bytes.is_ascii());
    let text = ascii.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(malformed)?;
    let token = match evidence {
        Evidence::SecurityToken(_) => text,
        Evidence::Authorization(_) => {
            let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") {
                let detail = "the `Authorization` scheme is not Bearer";
                return Err(IdentityError::invalid("unsupported_scheme", detail));
            }
            token
        }
    };
    let separates = token.bytes().fold(false, |found, byte| found | matches!(byte, b' ' | b'\t' | b','));
    if token.is_empty() || separates {
        return Err(malformed());
    }
    Ok(token)
}
