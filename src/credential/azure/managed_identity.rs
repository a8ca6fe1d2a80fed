//! Managed identities: what Azure gives the machine or the app that Doorward runs on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::clock::{Clock, Timestamp};
use crate::credential::IssuedToken;
use crate::credential::exchange::{said, send};
use crate::credential::source::{KeyDigest, SourceError};
use crate::credential::token_endpoint::{LONGEST_LIFE, seconds};
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// Base address of the instance metadata service.
pub const INSTANCE_METADATA: &str = "http://169.254.169.254";
const METADATA: HeaderName = HeaderName::from_static("metadata");
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");
/// A managed identity's token is renewed at half of its life where that is at least two hours, as MSAL does.
const HALVED: Duration = Duration::from_secs(2 * 3600);

/// Where a managed identity is asked for.
#[derive(Clone)]
pub enum ManagedIdentityHost {
    /// Instance metadata of a virtual machine.
    Imds {
        /// Base address, without a slash at its end.
        url: Arc<str>,
    },
    /// App Service and Functions.
    AppService {
        /// `IDENTITY_ENDPOINT`
        url: Arc<str>,
        /// `IDENTITY_HEADER`
        header: Secret,
    },
}

impl fmt::Debug for ManagedIdentityHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl ManagedIdentityHost {
    /// Name in configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Imds { .. } => "imds",
            Self::AppService { .. } => "app_service",
        }
    }
}

/// A managed identity.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// Where it is asked for.
    pub host: ManagedIdentityHost,
    /// Which one, where it is user-assigned.
    pub client_id: Option<Arc<str>>,
    /// How to reach the host.
    pub client: OutboundClient,
    /// Time.
    pub clock: Clock,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    /// Seconds since 1970, and the only end that App Service states.
    #[serde(default, deserialize_with = "seconds")]
    expires_on: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    refresh_in: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
    message: String,
}

impl ManagedIdentity {
    pub(super) async fn token(&self, scope: &str) -> Result<IssuedToken, SourceError> {
        let refused = |detail: &str| SourceError::lasting(SourceError::REFUSED, detail);
        let request = Request::get(self.address(scope));
        let request = match &self.host {
            ManagedIdentityHost::Imds { .. } => request.header(METADATA, HeaderValue::from_static("true")),
            ManagedIdentityHost::AppService { header, .. } => {
                let mut value = HeaderValue::from_str(header.expose())
                    .map_err(|_| refused("`IDENTITY_HEADER` cannot stand in a header"))?;
                value.set_sensitive(true);
                request.header(IDENTITY_HEADER, value)
            }
        };
        let request = request.body(Bytes::new()).map_err(|_| refused("the address of managed identity is no URL"))?;
        let asked_at = self.clock.now();
        let answer = send(&self.client, request).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer.status(), answer.body()));
        }
        read(answer.body(), asked_at)
    }

    fn address(&self, scope: &str) -> String {
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let (base, version) = match &self.host {
            ManagedIdentityHost::Imds { url } => (format!("{url}/metadata/identity/oauth2/token"), "2018-02-01"),
            ManagedIdentityHost::AppService { url, .. } => (url.to_string(), "2019-08-01"),
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("api-version", version).append_pair("resource", resource);
        if let Some(client_id) = &self.client_id {
            query.append_pair("client_id", client_id);
        }
        format!("{base}?{}", query.finish())
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        key.part("managed_identity", self.host.name()).optional("client_id", self.client_id.as_deref());
        match &self.host {
            ManagedIdentityHost::Imds { url } | ManagedIdentityHost::AppService { url, .. } => {
                key.part("url", url.as_bytes());
            }
        }
    }

    pub(super) fn shown(&self) -> Value {
        json!({ "managed_identity": self.host.name(), "client_id": self.client_id.as_deref() })
    }
}

fn read(body: &[u8], asked_at: Timestamp) -> Result<IssuedToken, SourceError> {
    let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
    // The parser's own message would quote the answer, token and all.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| unreadable("the answer of managed identity is no token"))?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") || answer.access_token.expose().is_empty() {
        return Err(unreadable("managed identity gave no bearer token"));
    }
    let life = match (answer.expires_in, answer.expires_on) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(on)) => Timestamp::from_unix_seconds(i64::try_from(on).unwrap_or(i64::MAX / 1000)).since(asked_at),
        (None, None) => return Err(unreadable("managed identity does not say when its token ends")),
    };
    let life = life.min(LONGEST_LIFE);
    if life.is_zero() {
        return Err(SourceError::ended_at_once());
    }
    let half = (life >= HALVED).then(|| life / 2);
    let renew_in = answer.refresh_in.map(Duration::from_secs).or(half);
    Ok(IssuedToken {
        token: answer.access_token,
        issued_token_type: None,
        expires_at: asked_at.plus(life),
        renew_at: renew_in.map(|after| asked_at.plus(after)),
        scope: None,
    })
}

/// IMDS says 404 and 410 while it is updated, which takes up to 70 seconds ("How to use managed identities on a virtual
/// machine": retry guidance). 429 and 5xx do not come here.
fn refusal(status: StatusCode, body: &[u8]) -> SourceError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let texts = [refusal.error, refusal.error_description, refusal.message];
    let text = texts.iter().filter(|text| !text.is_empty()).map(said).collect::<Vec<_>>().join(": ");
    let text = if text.is_empty() { "it does not say why".to_owned() } else { text };
    let detail = format!("managed identity answered {}: {text}", status.as_u16());
    if [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status) {
        return SourceError::passing(SourceError::UNAVAILABLE, detail);
    }
    SourceError::lasting(SourceError::REFUSED, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn times(body: &str) -> (u64, Option<u64>) {
        let token = read(body.as_bytes(), NOW).unwrap();
        (token.expires_at.since(NOW).as_secs(), token.renew_at.map(|at| at.since(NOW).as_secs()))
    }

    #[test]
    fn the_end_is_read_as_either_service_states_it_and_a_long_life_is_renewed_half_way() {
        let body = |times: &str| format!(r#"{{"access_token":"t","token_type":"Bearer",{times}}}"#);
        assert_eq!(times(&body(r#""expires_in":"86399","expires_on":"1800086399""#)), (86399, Some(43199)));
        assert_eq!(times(&body(r#""expires_on":"1800003600""#)), (3600, None));
        assert_eq!(times(&body(r#""expires_on":1800172800"#)), (86400, Some(43200)));
        assert_eq!(times(&body(r#""expires_in":"86400","refresh_in":"3000""#)), (86400, Some(3000)));
    }

    #[test]
    fn an_answer_without_a_token_or_an_end_is_refused_without_being_quoted() {
        for body in [
            "",
            r#"{"access_token":"a-secret","token_type":"Bearer"}"#,
            r#"{"access_token":"a-secret","token_type":"pop","expires_in":"60"}"#,
            r#"{"access_token":"","token_type":"Bearer","expires_in":"60"}"#,
            r#"{"access_token":"a-secret","token_type":"Bearer","expires_on":"01/01/2027 00:00:00 +00:00"}"#,
            r#"{"access_token":"a-secret","token_type":"Bearer","expires_on":"1799999999"}"#,
        ] {
            let error = read(body.as_bytes(), NOW).unwrap_err();
            assert_eq!((error.code, error.may_pass()), (SourceError::UNREADABLE, false), "{body}");
            assert!(!error.to_string().contains("a-secret"), "{error}");
        }
    }

    #[test]
    fn a_service_that_is_being_updated_is_asked_again_and_one_without_the_identity_is_not() {
        for (status, passes) in [(404, true), (410, true), (400, false), (403, false)] {
            let body = br#"{"error":"invalid_request","error_description":"Identity not found"}"#;
            let error = refusal(StatusCode::from_u16(status).unwrap(), body);
            assert_eq!(error.may_pass(), passes, "{status}");
            assert_eq!(
                error.to_string(),
                format!("managed identity answered {status}: invalid_request: Identity not found")
            );
        }
    }
}
