//! IAM Service Account Credentials API, version 1: a service account's token for one that may impersonate it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{GcpToken, Obtained, identity_token};
use crate::clock::{Clock, Timestamp};
use crate::credential::exchange::{said, send};
use crate::credential::source::{KeyDigest, SourceError};
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// A service account that is impersonated.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// Base URL of the API, without a slash at its end.
    pub url: Arc<str>,
    /// How to reach it.
    pub client: OutboundClient,
    /// Time.
    pub clock: Clock,
    /// Its address.
    pub email: Arc<str>,
    /// Addresses of the service accounts between, each allowed to impersonate the next.
    pub delegates: Vec<String>,
    /// What is asked for.
    pub token: GcpToken,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccessToken {
    access_token: Secret,
    expire_time: String,
}

#[derive(Deserialize)]
struct IdToken {
    token: Secret,
}

#[derive(Deserialize)]
struct Refusal {
    error: Status,
}

/// `google.rpc.Status`, as far as it is of use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    message: String,
}

impl ServiceAccount {
    pub(super) async fn obtain(&self, federated: &Secret) -> Result<Obtained, SourceError> {
        let asked_at = self.clock.now();
        let answer = send(&self.client, self.request(federated)?).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer.status(), answer.body()));
        }
        read(&self.token, answer.body(), asked_at)
    }

    fn request(&self, federated: &Secret) -> Result<Request<Bytes>, SourceError> {
        let refused = |detail: &str| SourceError::lasting(SourceError::REFUSED, detail);
        let delegates: Vec<String> =
            self.delegates.iter().map(|email| format!("projects/-/serviceAccounts/{email}")).collect();
        let (method, body) = match &self.token {
            GcpToken::Access { scopes, lifetime } => (
                "generateAccessToken",
                json!({ "delegates": delegates, "scope": scopes, "lifetime": format!("{}s", lifetime.as_secs()) }),
            ),
            GcpToken::Identity { audience, include_email } => (
                "generateIdToken",
                json!({ "delegates": delegates, "audience": &**audience, "includeEmail": include_email }),
            ),
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", federated.expose()))
            .map_err(|_| SourceError::lasting(SourceError::UNREADABLE, "the federated token is no header value"))?;
        bearer.set_sensitive(true);
        Request::post(format!("{}/v1/projects/-/serviceAccounts/{}:{method}", self.url, self.email))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, bearer)
            .body(body.to_string().into())
            .map_err(|_| refused("the endpoint of IAM Credentials is no URL"))
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        key.part("iam_credentials", self.url.as_bytes()).part("service_account", self.email.as_bytes());
        for delegate in &self.delegates {
            key.part("delegate", delegate);
        }
        self.token.digest(key);
    }

    pub(super) fn shown(&self) -> Value {
        json!({
            "endpoint": &*self.url,
            "email": &*self.email,
            "delegates": self.delegates,
            "token": self.token.shown(),
        })
    }
}

fn read(asked: &GcpToken, body: &[u8], asked_at: Timestamp) -> Result<Obtained, SourceError> {
    let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
    // The parser's own message would quote the answer, token and all.
    let obtained = match asked {
        GcpToken::Identity { audience, .. } => {
            let answer: IdToken = serde_json::from_slice(body)
                .map_err(|_| unreadable("the answer of IAM Credentials holds no ID token"))?;
            identity_token(answer.token, audience)?
        }
        GcpToken::Access { lifetime, .. } => {
            let answer: AccessToken = serde_json::from_slice(body)
                .map_err(|_| unreadable("the answer of IAM Credentials holds no access token"))?;
            let end = OffsetDateTime::parse(answer.expire_time.trim(), &Rfc3339)
                .map_err(|_| unreadable("the answer of IAM Credentials does not say when its token ends"))?;
            // Never believed to hold longer than was asked.
            let end = Timestamp::from_unix_seconds(end.unix_timestamp()).min(asked_at.plus(*lifetime));
            Obtained { token: answer.access_token, expires_at: end, renew_at: None }
        }
    };
    if obtained.token.expose().is_empty() {
        return Err(unreadable("IAM Credentials gave an empty token"));
    }
    if obtained.expires_at <= asked_at {
        return Err(SourceError::ended_at_once());
    }
    Ok(obtained)
}

fn refusal(status: StatusCode, body: &[u8]) -> SourceError {
    let refusal = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.error).unwrap_or_default();
    let detail = match (&*refusal.status, &*refusal.message) {
        ("", "") => "it does not say why".to_owned(),
        ("", message) => said(message),
        (status, "") => said(status),
        (status, message) => said(format!("{status}: {message}")),
    };
    SourceError::lasting(SourceError::REFUSED, format!("IAM Credentials answered {}: {detail}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn access(lifetime_seconds: u64) -> GcpToken {
        GcpToken::Access { scopes: Vec::new(), lifetime: Duration::from_secs(lifetime_seconds) }
    }

    #[test]
    fn an_access_token_holds_until_it_says_and_never_longer_than_was_asked() {
        // 1_800_000_000 is 2027-01-15T08:00:00Z.
        let body = br#"{"accessToken":"ya29.x","expireTime":"2027-01-15T08:10:00Z"}"#;
        for (asked, seconds) in [(3600, 600), (300, 300)] {
            let obtained = read(&access(asked), body, NOW).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                (obtained.token.expose(), obtained.expires_at.since(NOW)),
                ("ya29.x", Duration::from_secs(seconds))
            );
        }
    }

    #[test]
    fn an_answer_that_is_not_what_was_asked_for_is_refused_without_being_quoted() {
        for body in [
            "",
            "[]",
            r#"{"accessToken":"ya29.secret"}"#,
            r#"{"accessToken":"ya29.secret","expireTime":"soon"}"#,
            r#"{"accessToken":"","expireTime":"2027-01-15T08:10:00Z"}"#,
            r#"{"accessToken":"ya29.secret","expireTime":"2027-01-15T08:00:00Z"}"#,
            r#"{"token":"ya29.secret"}"#,
        ] {
            let error = read(&access(600), body.as_bytes(), NOW).err().unwrap_or_else(|| panic!("{body} was taken"));
            assert_eq!((error.code, error.may_pass()), (SourceError::UNREADABLE, false), "{body}");
            assert!(!error.to_string().contains("ya29"), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_told_as_google_says_it() {
        let body = br#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.getAccessToken' denied","status":"PERMISSION_DENIED"}}"#;
        let error = refusal(StatusCode::FORBIDDEN, body);
        assert_eq!(
            error.to_string(),
            "IAM Credentials answered 403: PERMISSION_DENIED: Permission 'iam.serviceAccounts.getAccessToken' denied"
        );
        assert!(error.code == SourceError::REFUSED && !error.may_pass());
        assert!(refusal(StatusCode::NOT_FOUND, b"<html>").to_string().ends_with("404: it does not say why"));
    }
}
