//! `azure`: tokens of Microsoft Entra ID, for an application that trusts Doorward's own tokens, on behalf of a caller,
//! or for the managed identity of the place where Doorward runs.

mod entra;
mod managed_identity;

pub use entra::Application;
pub use managed_identity::{INSTANCE_METADATA, ManagedIdentity, ManagedIdentityHost};

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::{Value, json};

use super::bearer::{public_id, stated_end};
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError, token_header};
use super::{Ask, CredentialError};
use crate::secret::Secret;

/// Who asks.
#[derive(Clone, Debug)]
pub enum AzureOrigin {
    /// An application with a federated credential.
    Application(Box<Application>),
    /// A managed identity.
    ManagedIdentity(Box<ManagedIdentity>),
}

/// Everything configured about one credential of Azure.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// Who asks.
    pub origin: AzureOrigin,
    /// `scope`, such as `https://storage.azure.com/.default`.
    pub scope: Arc<str>,
    /// The header that carries the token.
    pub header: HeaderName,
}

/// Obtains tokens of Entra ID.
#[derive(Debug)]
pub struct AzureSource(AzureSettings);

impl AzureSource {
    /// A source of these tokens.
    #[must_use]
    pub fn new(settings: AzureSettings) -> Self {
        Self(settings)
    }

    fn facts(&self) -> Vec<(&'static str, Value)> {
        let mut facts = vec![("scope", Value::from(&*self.0.scope))];
        match &self.0.origin {
            AzureOrigin::Application(application) => {
                facts.push(("tenant", Value::from(&*application.tenant)));
                facts.push(("client_id", Value::from(&*application.client_id)));
                facts.push(("on_behalf_of", Value::from(application.on_behalf_of_caller)));
            }
            AzureOrigin::ManagedIdentity(identity) => {
                facts.push(("managed_identity", Value::from(identity.host.name())));
                if let Some(client_id) = &identity.client_id {
                    facts.push(("client_id", Value::from(&**client_id)));
                }
            }
        }
        facts
    }
}

/// One token to ask for.
pub struct AzureRequest {
    /// The caller's, which it is asked on behalf of.
    token: Option<Secret>,
    shown: Value,
}

impl fmt::Debug for AzureRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AzureRequest").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl CredentialRequest for AzureRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.optional("token", self.token.as_ref().map(|token| digest(&SHA256, token.expose().as_bytes())));
    }

    fn shown(&self) -> Value {
        self.shown.clone()
    }
}

impl CredentialSource for AzureSource {
    type Request = AzureRequest;

    fn kind(&self) -> &'static str {
        "azure"
    }

    fn request(&self, ask: &Ask<'_>) -> Result<AzureRequest, CredentialError> {
        let (token, shown) = match &self.0.origin {
            AzureOrigin::ManagedIdentity(identity) => (None, identity.shown()),
            AzureOrigin::Application(application) => {
                let token = if application.on_behalf_of_caller { Some(ask.caller_token()?) } else { None };
                (token.map(Secret::new), application.shown())
            }
        };
        Ok(AzureRequest { token, shown: json!({ "scope": &*self.0.scope, "from": shown }) })
    }

    fn fetch(self: Arc<Self>, request: Arc<AzureRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let issued = match &self.0.origin {
                AzureOrigin::Application(application) => {
                    application.token(&self.0.scope, request.token.as_ref()).await?
                }
                AzureOrigin::ManagedIdentity(identity) => identity.token(&self.0.scope).await?,
            };
            let token = issued.token.expose();
            let proof = token_header(&self.0.header, token)
                .ok_or_else(|| SourceError::lasting(SourceError::UNREADABLE, "the token is no header value"))?;
            Ok(Issued {
                id: public_id(token),
                proof,
                expires_at: stated_end(token).map_or(issued.expires_at, |end| end.min(issued.expires_at)),
                renew_at: issued.renew_at,
                facts: self.facts(),
            })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![self.0.header.clone()]
    }

    fn digest(&self, key: &mut KeyDigest) {
        key.part("header", self.0.header.as_str()).part("scope", self.0.scope.as_bytes());
        match &self.0.origin {
            AzureOrigin::Application(application) => application.digest(key),
            AzureOrigin::ManagedIdentity(identity) => identity.digest(key),
        }
    }
}

#[cfg(test)]
mod tests;
