//! An OAuth token endpoint (RFC 6749 section 3.2): who asks, how it shows that it is the one, and what comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroize;

use super::exchange::{said, send};
use super::source::{KeyDigest, SourceError};
use super::subject_token::{SubjectClaims, SubjectTokens};
use crate::clock::{Clock, Timestamp};
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// Assumed where an answer does not say how long its token holds.
const UNSTATED_LIFE: Duration = Duration::from_secs(300);
/// No issuer is believed to give more.
pub(super) const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// `client_assertion_type` of RFC 7523 section 2.2.
pub(super) const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How a client shows that it is the one (RFC 6749 section 2.3, RFC 7523 section 2.2).
#[derive(Clone, Debug)]
pub enum ClientAuthentication {
    /// It does not.
    None,
    /// `client_secret_basic`
    Basic {
        /// Client id.
        id: String,
        /// Client secret.
        secret: Secret,
    },
    /// `client_secret_post`
    Post {
        /// Client id.
        id: String,
        /// Client secret.
        secret: Secret,
    },
    /// `private_key_jwt`, by Doorward's own keys.
    PrivateKeyJwt {
        /// Client id.
        id: String,
        /// `aud` of the assertions: the server's issuer, or its token endpoint.
        audience: Arc<str>,
        /// The keys.
        tokens: SubjectTokens,
    },
    /// `tls_client_auth` (RFC 8705 section 2.1): the connection of [`TokenEndpoint::client`] shows a certificate.
    TlsClientAuth {
        /// Client id.
        id: String,
        /// SHA-256 of the certificate.
        fingerprint: [u8; 32],
    },
    /// `none`, by its id alone.
    Public {
        /// Client id.
        id: String,
    },
}

impl ClientAuthentication {
    /// The client's id, where there is one.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Basic { id, .. }
            | Self::Post { id, .. }
            | Self::PrivateKeyJwt { id, .. }
            | Self::TlsClientAuth { id, .. }
            | Self::Public { id } => Some(id),
        }
    }

    /// The method's name in the OAuth registry.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::None | Self::Public { .. } => "none",
            Self::Basic { .. } => "client_secret_basic",
            Self::Post { .. } => "client_secret_post",
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::TlsClientAuth { .. } => "tls_client_auth",
        }
    }
}

/// One token endpoint and one client of it.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    /// Its URL.
    pub url: Arc<str>,
    /// How to reach it.
    pub client: OutboundClient,
    /// Who asks.
    pub authentication: ClientAuthentication,
    /// Time.
    pub clock: Clock,
}

/// A form, wiped when it is dropped: it holds tokens and secrets.
pub struct Form(String);

impl Drop for Form {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Form")
    }
}

impl Form {
    /// A form of these parameters.
    #[must_use]
    pub fn new(parameters: &[(&str, &str)]) -> Self {
        let mut form = Self(String::new());
        for (name, value) in parameters {
            form.push(name, value);
        }
        form
    }

    /// Adds a parameter. Spaces are `%20`, which every reader decodes; not all decode `+`.
    pub fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&encoded(name));
        self.0.push('=');
        self.0.push_str(&encoded(value));
    }

    /// The request's body.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_bytes())
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A token as the endpoint gave it.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// `access_token`
    pub token: Secret,
    /// `issued_token_type` (RFC 8693 section 2.2.1)
    pub issued_token_type: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Half of its life, where the server asks for renewal by then (`refresh_in`).
    pub renew_at: Option<Timestamp>,
    /// What it may be used for, where that is less than was asked.
    pub scope: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    refresh_in: Option<u64>,
    issued_token_type: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// A number, or a text of one: several servers quote it.
pub(super) fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
    }
    let parsed = match Option::<Seconds>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Seconds::Number(number)) if (0.0..1e12).contains(&number) => number.trunc().to_string().parse(),
        Some(Seconds::Number(_)) => return Err(serde::de::Error::custom("no number of seconds")),
        Some(Seconds::Text(text)) => text.trim().parse(),
    };
    parsed.map(Some).map_err(|_| serde::de::Error::custom("no number of seconds"))
}

impl TokenEndpoint {
    /// Writes who is asked, as whom.
    pub(super) fn digest(&self, digest: &mut KeyDigest) {
        digest.part("endpoint", self.url.as_bytes()).part("client_method", self.authentication.method());
        digest.optional("client", self.authentication.client_id());
        if let ClientAuthentication::Basic { secret, .. } | ClientAuthentication::Post { secret, .. } =
            &self.authentication
        {
            digest.part("client_secret", secret.expose());
        }
        // A token may be bound to the certificate that it was given to (RFC 8705 section 3).
        if let ClientAuthentication::TlsClientAuth { fingerprint, .. } = &self.authentication {
            digest.part("client_certificate", fingerprint);
        }
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// [`SourceError`], with the server's `error` and `error_description`.
    pub async fn token(&self, form: Form) -> Result<IssuedToken, SourceError> {
        self.token_or(form, refusal).await
    }

    /// Asks for a token of a server whose refusals say more than RFC 6749 section 5.2.
    pub(super) async fn token_or(
        &self,
        mut form: Form,
        refusal: impl Fn(StatusCode, &[u8]) -> SourceError,
    ) -> Result<IssuedToken, SourceError> {
        let mut request = Request::post(&*self.url)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        match &self.authentication {
            ClientAuthentication::None => {}
            ClientAuthentication::Basic { id, secret } => request = request.header(AUTHORIZATION, basic(id, secret)?),
            ClientAuthentication::Post { id, secret } => {
                form.push("client_id", id);
                form.push("client_secret", secret.expose());
            }
            ClientAuthentication::PrivateKeyJwt { id, audience, tokens } => {
                let claims =
                    SubjectClaims { subject: id.as_str().into(), audience: audience.clone(), ..Default::default() };
                let assertion = tokens.mint_as(id, claims).await?;
                form.push("client_id", id);
                form.push("client_assertion_type", JWT_BEARER_ASSERTION);
                form.push("client_assertion", assertion.expose());
            }
            ClientAuthentication::Public { id } | ClientAuthentication::TlsClientAuth { id, .. } => {
                form.push("client_id", id);
            }
        }
        let request = request.body(form.bytes());
        let request =
            request.map_err(|_| SourceError::lasting(SourceError::REFUSED, "the token endpoint is no URL"))?;
        let asked_at = self.clock.now();
        let answer = send(&self.client, request).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer.status(), answer.body()));
        }
        read(answer.body(), asked_at)
    }
}

/// `client_secret_basic`: both parts are form-encoded first (RFC 6749 section 2.3.1).
fn basic(id: &str, secret: &Secret) -> Result<HeaderValue, SourceError> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut pair = format!("{}:{}", encode(id), encode(secret.expose()));
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(&pair)));
    pair.zeroize();
    let mut value = value.map_err(|_| SourceError::lasting(SourceError::REFUSED, "the client secret is no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads an answer of RFC 6749 section 5.1.
pub(super) fn read(body: &[u8], asked_at: Timestamp) -> Result<IssuedToken, SourceError> {
    let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
    // The parser's own message would quote the answer, token and all.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| unreadable("the token endpoint's answer is no token"))?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") && !answer.token_type.eq_ignore_ascii_case("n_a") {
        return Err(unreadable("the token endpoint gave a token that is no bearer token"));
    }
    if answer.access_token.is_empty() {
        return Err(unreadable("the token endpoint gave an empty token"));
    }
    let life = answer.expires_in.map_or(UNSTATED_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    Ok(IssuedToken {
        token: Secret::new(answer.access_token),
        issued_token_type: answer.issued_token_type,
        expires_at: asked_at.plus(life),
        renew_at: answer.refresh_in.map(|seconds| asked_at.plus(Duration::from_secs(seconds))),
        scope: answer.scope,
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> SourceError {
    let detail = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if refusal.error_description.is_empty() => said(refusal.error),
        Ok(refusal) => said(format!("{}: {}", refusal.error, refusal.error_description)),
        Err(_) => "it does not say why".to_owned(),
    };
    SourceError::lasting(SourceError::REFUSED, format!("the token endpoint answered {}: {detail}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    #[test]
    fn a_form_is_decoded_alike_by_those_who_know_plus_and_those_who_do_not() {
        let form = Form::new(&[("scope", "a b+c"), ("x", "é&=")]);
        assert_eq!(form.bytes(), "scope=a%20b%2Bc&x=%C3%A9%26%3D");
    }

    #[test]
    fn basic_credentials_are_encoded_before_they_are_joined() {
        let value = basic("a:b", &Secret::new("p+ %")).unwrap();
        assert_eq!(value.to_str().unwrap(), format!("Basic {}", STANDARD.encode("a%3Ab:p%2B+%25")));
        assert!(value.is_sensitive());
    }

    #[test]
    fn an_answer_says_how_long_its_token_holds_in_any_of_three_ways() {
        for (life, seconds) in
            [("", 300), (r#","expires_in":60"#, 60), (r#","expires_in":"61""#, 61), (r#","expires_in":1e9"#, 86400)]
        {
            let body = format!(r#"{{"access_token":"t","token_type":"bearer"{life}}}"#);
            let token = read(body.as_bytes(), now()).unwrap();
            assert_eq!(token.expires_at.since(now()).as_secs(), seconds, "{life}");
        }
    }

    #[test]
    fn an_answer_without_a_bearer_token_is_none() {
        for body in [
            "",
            "[]",
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"t","token_type":"DPoP"}"#,
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":-1}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":"soon"}"#,
        ] {
            let error = read(body.as_bytes(), now()).unwrap_err();
            assert_eq!((error.code, error.may_pass()), (SourceError::UNREADABLE, false), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_without_the_token_that_it_quotes() {
        let error =
            refusal(StatusCode::BAD_REQUEST, br#"{"error":"invalid_grant","error_description":"bad eyJh.eyJi.c"}"#);
        assert_eq!(error.to_string(), "the token endpoint answered 400: invalid_grant: bad …");
        assert!(refusal(StatusCode::FORBIDDEN, b"<html>").to_string().ends_with("it does not say why"));
    }
}
