//! `gcp`: tokens of Google Cloud, by workload identity federation or from the instance's metadata server.
//!
//! Federation is two exchanges at most: Security Token Service gives a federated token for a token of ours or of the
//! caller's, and IAM Credentials gives a service account's token for that one.

mod federation;
mod metadata;
mod service_account;

pub use federation::{Federation, GcpProof};
pub use metadata::{GOOGLE_METADATA, MetadataServer};
pub use service_account::ServiceAccount;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::bearer::{public_id, stated_end};
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::{Ask, CredentialError, Proof, is_plain};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Longest `google.subject`, bytes (IAM, "Configure Workload Identity Federation": attribute mappings).
pub const LONGEST_SUBJECT: usize = 127;
/// The project whose quota and bill a request counts on (Google Cloud APIs, "System parameters").
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// Cloud Run and IAP read it before `Authorization`, in the same form.
const SERVERLESS_AUTHORIZATION: HeaderName = HeaderName::from_static("x-serverless-authorization");

/// What kind of token goes upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcpToken {
    /// For Google's APIs.
    Access {
        /// OAuth scopes, as URLs.
        scopes: Vec<String>,
        /// How long it is asked for; metadata servers choose themselves.
        lifetime: Duration,
    },
    /// For what verifies Google's ID tokens: Cloud Run, IAP, or an API of one's own. It lives an hour.
    Identity {
        /// Its `aud`.
        audience: Arc<str>,
        /// Whether it says the service account's address.
        include_email: bool,
    },
}

/// Who issues.
#[derive(Clone, Debug)]
pub enum GcpOrigin {
    /// Workload identity federation.
    Federation(Box<Federation>),
    /// The metadata server of the instance that Doorward runs on.
    Metadata(Box<MetadataServer>),
}

/// Everything configured about one credential of Google Cloud.
#[derive(Clone, Debug)]
pub struct GcpSettings {
    /// Who issues.
    pub origin: GcpOrigin,
    /// `X-Goog-User-Project`
    pub user_project: Option<HeaderValue>,
    /// The header that carries the token.
    pub header: HeaderName,
}

/// Obtains tokens of Google Cloud.
#[derive(Debug)]
pub struct GcpSource(GcpSettings);

/// A token that is about to become a credential.
struct Obtained {
    token: Secret,
    expires_at: Timestamp,
    renew_at: Option<Timestamp>,
}

impl GcpSource {
    /// A source of these tokens.
    #[must_use]
    pub fn new(settings: GcpSettings) -> Self {
        Self(settings)
    }

    fn proof(&self, token: &str) -> Option<Proof> {
        let bearer = [AUTHORIZATION, SERVERLESS_AUTHORIZATION].contains(&self.0.header);
        let text = if bearer { format!("Bearer {token}") } else { token.to_owned() };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        let project = self.0.user_project.clone().map(|project| (USER_PROJECT, project));
        Some(Proof::Headers([(self.0.header.clone(), value)].into_iter().chain(project).collect()))
    }

    fn facts(&self, request: &GcpRequest) -> Vec<(&'static str, Value)> {
        let mut facts = Vec::new();
        if let Some(subject) = &request.subject {
            facts.push(("subject", Value::from(&**subject)));
        }
        let token = match &self.0.origin {
            GcpOrigin::Metadata(server) => {
                facts.push(("metadata_account", Value::from(&*server.account)));
                Some(&server.token)
            }
            GcpOrigin::Federation(federation) => {
                facts.push(("provider", Value::from(&*federation.audience)));
                if let Some(account) = &federation.service_account {
                    facts.push(("service_account", Value::from(&*account.email)));
                }
                federation.service_account.as_ref().map(|account| &account.token)
            }
        };
        if let Some(GcpToken::Identity { audience, .. }) = token {
            facts.push(("audience", Value::from(&**audience)));
        }
        facts
    }
}

/// One token to ask for.
pub struct GcpRequest {
    subject: Option<Arc<str>>,
    token: Option<Secret>,
    shown: Value,
}

impl fmt::Debug for GcpRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GcpRequest").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl CredentialRequest for GcpRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.optional("subject", self.subject.as_deref());
        key.optional("token", self.token.as_ref().map(|token| digest(&SHA256, token.expose().as_bytes())));
    }

    fn shown(&self) -> Value {
        self.shown.clone()
    }
}

impl CredentialSource for GcpSource {
    type Request = GcpRequest;

    fn kind(&self) -> &'static str {
        "gcp"
    }

    fn request(&self, ask: &Ask<'_>) -> Result<GcpRequest, CredentialError> {
        let (subject, token) = match &self.0.origin {
            GcpOrigin::Metadata(_) => (None, None),
            GcpOrigin::Federation(federation) => match &federation.proof {
                GcpProof::Caller => (None, Some(Secret::new(ask.caller_token()?))),
                GcpProof::Doorward { subject, .. } => {
                    let subject = subject.fill(ask, is_plain)?;
                    if subject.len() > LONGEST_SUBJECT {
                        let detail = format!("the subject for Google is longer than {LONGEST_SUBJECT} bytes");
                        return Err(CredentialError::unfit(detail));
                    }
                    (Some(subject), None)
                }
            },
        };
        let mut request = GcpRequest { subject, token, shown: Value::Null };
        let from = match &self.0.origin {
            GcpOrigin::Metadata(server) => server.shown(),
            GcpOrigin::Federation(federation) => federation.shown(request.subject.as_deref()),
        };
        let user_project = self.0.user_project.as_ref().and_then(|project| project.to_str().ok());
        request.shown = json!({ "from": from, "user_project": user_project });
        Ok(request)
    }

    fn fetch(self: Arc<Self>, request: Arc<GcpRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let obtained = match &self.0.origin {
                GcpOrigin::Metadata(server) => server.obtain().await?,
                GcpOrigin::Federation(federation) => federation.obtain(&request).await?,
            };
            let token = obtained.token.expose();
            let proof = self
                .proof(token)
                .ok_or_else(|| SourceError::lasting(SourceError::UNREADABLE, "the token is no header value"))?;
            Ok(Issued {
                id: public_id(token),
                proof,
                expires_at: stated_end(token).map_or(obtained.expires_at, |end| end.min(obtained.expires_at)),
                renew_at: obtained.renew_at,
                facts: self.facts(&request),
            })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        // Whose bill a request counts on is not the caller's to say: the token is not the caller's either.
        vec![self.0.header.clone(), USER_PROJECT]
    }

    fn digest(&self, key: &mut KeyDigest) {
        key.part("header", self.0.header.as_str());
        key.optional("user_project", self.0.user_project.as_ref());
        match &self.0.origin {
            GcpOrigin::Metadata(server) => server.digest(key),
            GcpOrigin::Federation(federation) => federation.digest(key),
        }
    }
}

impl GcpToken {
    fn digest(&self, key: &mut KeyDigest) {
        match self {
            Self::Access { scopes, lifetime } => {
                for scope in scopes {
                    key.part("scope", scope);
                }
                key.part("lifetime", lifetime.as_secs().to_be_bytes());
            }
            Self::Identity { audience, include_email } => {
                key.part("id_token_audience", audience.as_bytes()).part("email", [u8::from(*include_email)]);
            }
        }
    }

    fn shown(&self) -> Value {
        match self {
            Self::Access { scopes, lifetime } => {
                json!({ "access_token": { "scopes": scopes, "lifetime_seconds": lifetime.as_secs() } })
            }
            Self::Identity { audience, include_email } => {
                json!({ "id_token": { "audience": &**audience, "include_email": include_email } })
            }
        }
    }
}

/// An ID token as Google issued it: for this audience, and until it says.
fn identity_token(token: Secret, audience: &str) -> Result<Obtained, SourceError> {
    let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
    let expires_at = stated_end(token.expose())
        .ok_or_else(|| unreadable("Google gave an ID token that does not say when it ends"))?;
    if !super::bearer::is_for(token.expose(), audience) {
        return Err(unreadable("Google gave an ID token for another audience than was asked"));
    }
    Ok(Obtained { token, expires_at, renew_at: None })
}

#[cfg(test)]
mod tests;
