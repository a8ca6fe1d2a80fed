//! The token endpoint of Microsoft Entra ID ("Microsoft identity platform", version 2.0), asked by an application that
//! shows a token of Doorward's as its federated credential.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::credential::exchange::said;
use crate::credential::oauth::JWT_BEARER;
use crate::credential::source::{KeyDigest, SourceError};
use crate::credential::token_endpoint::JWT_BEARER_ASSERTION;
use crate::credential::{Form, IssuedToken, SubjectClaims, SubjectTokens, TokenEndpoint};
use crate::secret::Secret;

/// "No matching federated identity record found": also said for some minutes after one was made.
const NO_RECORD_YET: u64 = 70021;

/// An application, as Entra knows it.
#[derive(Clone, Debug)]
pub struct Application {
    /// Its tenant's token endpoint; the form says who asks.
    pub endpoint: TokenEndpoint,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The application's id.
    pub client_id: Arc<str>,
    /// Who signs what it shows. RS256: Entra takes no other.
    pub tokens: SubjectTokens,
    /// `sub`, which the federated credential names, letter for letter.
    pub subject: Arc<str>,
    /// `aud`, one.
    pub audience: Arc<str>,
    /// Whether it asks on behalf of the caller, by the caller's own token.
    pub on_behalf_of_caller: bool,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u64>,
    #[serde(default)]
    trace_id: String,
    claims: Option<String>,
}

impl Application {
    /// A token for `scope`, on behalf of the caller whose token is given.
    pub(super) async fn token(&self, scope: &str, caller: Option<&Secret>) -> Result<IssuedToken, SourceError> {
        let claims =
            SubjectClaims { subject: self.subject.clone(), audience: self.audience.clone(), further: Map::new() };
        let assertion = self.tokens.mint(claims).await?;
        let mut form = Form::new(&[
            ("client_id", &self.client_id),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", assertion.expose()),
            ("scope", scope),
        ]);
        match (self.on_behalf_of_caller, caller) {
            (false, _) => form.push("grant_type", "client_credentials"),
            (true, Some(token)) => {
                form.push("grant_type", JWT_BEARER);
                form.push("requested_token_use", "on_behalf_of");
                form.push("assertion", token.expose());
            }
            (true, None) => return Err(SourceError::lasting(SourceError::REFUSED, "there is nobody to ask for")),
        }
        self.endpoint.token_or(form, refusal).await
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        self.endpoint.digest(key);
        key.part("application", self.client_id.as_bytes());
        key.part("issuer", self.tokens.issuer().as_bytes());
        key.part("subject", self.subject.as_bytes()).part("audience", self.audience.as_bytes());
        key.part("on_behalf_of", [u8::from(self.on_behalf_of_caller)]);
    }

    pub(super) fn shown(&self) -> Value {
        json!({
            "endpoint": &*self.endpoint.url,
            "client_id": &*self.client_id,
            "by": { "iss": &**self.tokens.issuer(), "sub": &*self.subject, "aud": &*self.audience },
            "on_behalf_of": self.on_behalf_of_caller.then_some("the caller's token"),
        })
    }
}

/// What Entra's codes mean for another try, and for the caller
/// (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>).
fn refusal(status: StatusCode, body: &[u8]) -> SourceError {
    let answered = format!("Entra answered {}", status.as_u16());
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else {
        return SourceError::lasting(SourceError::REFUSED, format!("{answered}: it does not say why"));
    };
    // Trace, correlation and time stand behind the sentence; the first of them is enough to find the other two.
    let sentence = refusal.error_description.split(" Trace ID:").next().unwrap_or_default();
    let mut detail = format!("{answered}: {}", said(&refusal.error));
    for part in [said(sentence), trace(&refusal.trace_id)].iter().filter(|part| !part.is_empty()) {
        detail.push_str(": ");
        detail.push_str(part);
    }
    if refusal.error == "interaction_required" {
        return SourceError::interaction(detail, refusal.claims.as_deref());
    }
    if refusal.error_codes.contains(&NO_RECORD_YET) || refusal.error == "temporarily_unavailable" {
        return SourceError::passing(SourceError::UNAVAILABLE, detail);
    }
    SourceError::lasting(SourceError::REFUSED, detail)
}

fn trace(id: &str) -> String {
    let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if plain { format!("trace {id}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &Value) -> SourceError {
        refusal(StatusCode::BAD_REQUEST, body.to_string().as_bytes())
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_its_trace() {
        let error = refused(&json!({
            "error": "invalid_client",
            "error_description": "AADSTS700213: No matching federated identity record found for presented assertion \
                subject 'x'. Trace ID: 0000-aa Correlation ID: b Timestamp: 2026-11-22 04:00:00Z",
            "error_codes": [700_213], "timestamp": "t", "trace_id": "0000-aa", "correlation_id": "b",
        }));
        assert_eq!(
            error.to_string(),
            "Entra answered 400: invalid_client: AADSTS700213: No matching federated identity record found for \
             presented assertion subject 'x'.: trace 0000-aa"
        );
        assert!(error.code == SourceError::REFUSED && !error.may_pass());
        let error = refusal(StatusCode::UNAUTHORIZED, b"<html>");
        assert_eq!(error.to_string(), "Entra answered 401: it does not say why");
        let odd = refused(&json!({ "error": "invalid_client", "trace_id": "a\r\nb" }));
        assert_eq!(odd.to_string(), "Entra answered 400: invalid_client");
    }

    #[test]
    fn a_record_that_is_not_everywhere_yet_may_be_there_soon() {
        let error = refused(&json!({ "error": "invalid_request", "error_codes": [70_021] }));
        assert!(error.code == SourceError::UNAVAILABLE && error.may_pass());
        for lasting in [700_211, 700_212, 700_213, 700_024, 700_016, 7_000_215, 53_003, 50_027, 700_027] {
            assert!(!refused(&json!({ "error": "invalid_client", "error_codes": [lasting] })).may_pass(), "{lasting}");
        }
    }

    #[test]
    fn a_challenge_is_kept_where_it_is_one() {
        let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
        let error = refused(&json!({ "error": "interaction_required", "error_codes": [50_076], "claims": claims }));
        assert_eq!((error.code, error.claims()), (SourceError::INTERACTION, Some(claims)));
        let too_long = format!("{{\"a\":\"{}\"}}", "x".repeat(4096));
        for none in [json!(null), json!("no json"), json!("[]"), json!(too_long)] {
            let error = refused(&json!({ "error": "interaction_required", "claims": none }));
            assert_eq!((error.code, error.claims(), error.may_pass()), (SourceError::INTERACTION, None, false));
        }
    }
}
