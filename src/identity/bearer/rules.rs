//! An issuer's rules for the claims of its tokens: times, audience, kind, and how they become a principal.
//!
//! It takes claims as given. Whether they are the issuer's words is for whoever calls: the verifier checks the
//! signature first, and an explanation says that nobody did.

use serde_json::{Map, Value};

use super::TokenType;
use crate::clock::Timestamp;
use crate::identity::jwt::Header;
use crate::identity::projection::{EvidenceFacts, Projection};
use crate::identity::token::{TimeRules, TokenTimes, check_audience, check_media_type, check_times, missing};
use crate::identity::{IdentityError, Principal};
use crate::route::EvidenceKind;

/// An issuer's rules for the claims of its tokens.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRules<'a> {
    /// Audiences of which a token must hold one.
    pub audiences: &'a [String],
    /// Types of token.
    pub token_type: TokenType,
    /// How times are judged.
    pub times: TimeRules,
    /// How claims become a principal.
    pub projection: &'a Projection,
}

impl ClaimRules<'_> {
    /// The token's type (`typ`) is one that the issuer's callers show.
    ///
    /// # Errors
    /// `token_type_refused`.
    pub fn check_header(&self, header: &Header) -> Result<(), IdentityError> {
        check_media_type(header, self.token_type.media_types())
    }

    /// Times, audience and kind of token.
    ///
    /// # Errors
    /// Codes of [`check_times`] and [`check_audience`], `token_type_refused`, `token_bound`, `id_token_refused`,
    /// `claim_missing`.
    pub fn check(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<TokenTimes, IdentityError> {
        let times = check_times(claims, &self.times, now)?;
        check_audience(claims, self.audiences)?;
        check_kind(claims, self.token_type)?;
        Ok(times)
    }

    /// The principal that checked claims name. Role sessions begin at `first_sight` where they state no time.
    ///
    /// # Errors
    /// Codes of [`Projection::identity`].
    pub fn principal(
        &self,
        claims: Map<String, Value>,
        times: &TokenTimes,
        first_sight: impl FnOnce() -> Timestamp,
        fingerprint: [u8; 32],
    ) -> Result<Principal, IdentityError> {
        let stated = times.authenticated_at.or(times.issued_at);
        let facts = EvidenceFacts {
            kind: EvidenceKind::Bearer,
            authenticated_at: times.authenticated_at,
            began_at: stated.unwrap_or_else(first_sight),
            expires_at: Some(times.accepted_until),
            fingerprint,
        };
        Ok(Principal::verified(self.projection.identity(claims, facts)?))
    }
}

/// Access tokens pass; ID tokens, tokens that tell of events, and tokens bound to a key that a bearer does not show, do
/// not.
fn check_kind(claims: &Map<String, Value>, token_type: TokenType) -> Result<(), IdentityError> {
    // A logout token and every other security event (RFC 8417 section 2.2). Many issuers give them the `typ` of all
    // their tokens, or none.
    if claims.contains_key("events") {
        return Err(IdentityError::invalid("token_type_refused", "the token tells of events and grants nothing"));
    }
    if claims.contains_key("cnf") {
        return Err(IdentityError::invalid("token_bound", "the token is bound to a key and was shown without proof"));
    }
    match token_type {
        TokenType::AccessToken => {
            let text = |name: &str| claims.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
            for name in ["sub", "client_id", "jti"] {
                if !text(name) {
                    return Err(missing(name));
                }
            }
            // Its type has been judged with the times.
            if claims.contains_key("iat") { Ok(()) } else { Err(missing("iat")) }
        }
        TokenType::Any => {
            let id_token = ["nonce", "at_hash", "c_hash"].iter().any(|name| claims.contains_key(*name));
            if id_token {
                return Err(IdentityError::invalid(
                    "id_token_refused",
                    "an ID token is for its client, not for an API",
                ));
            }
            Ok(())
        }
    }
}
