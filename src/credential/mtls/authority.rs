//! `mtls: authority`: a client certificate about the principal, minted here, shown by the connection itself.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::{Value, json};

use super::super::certificate_authority::{CertificateAuthority, LONGEST_COMMON_NAME, Leaf};
use super::super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::super::{Ask, CredentialError, Proof, Template, is_plain};
use super::{KIND, UriTemplate};
use crate::clock::Clock;
use crate::hex::hex;

/// Everything configured about certificates that are minted here.
#[derive(Clone, Debug)]
pub struct MtlsSettings {
    /// Who signs them.
    pub authority: Arc<CertificateAuthority>,
    /// The name that each principal has of its own.
    pub uri: UriTemplate,
    /// A name for people.
    pub common_name: Option<Template>,
    /// How long a certificate lives.
    pub lifetime: Duration,
    /// Time.
    pub clock: Clock,
}

/// Mints a certificate for each principal.
#[derive(Debug)]
pub struct MtlsSource(MtlsSettings);

impl MtlsSource {
    /// A source of these certificates.
    #[must_use]
    pub fn new(settings: MtlsSettings) -> Self {
        Self(settings)
    }
}

/// One certificate to mint.
pub struct MtlsRequest {
    leaf: Leaf,
    authority: String,
}

impl fmt::Debug for MtlsRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MtlsRequest").field(&self.leaf).finish()
    }
}

impl CredentialRequest for MtlsRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.part("uri", self.leaf.uri.as_bytes());
        key.optional("common_name", self.leaf.common_name.as_deref().map(str::as_bytes));
    }

    fn shown(&self) -> Value {
        json!({
            "uri": &*self.leaf.uri,
            "common_name": self.leaf.common_name.as_deref(),
            "lifetime_seconds": self.leaf.lifetime.as_secs(),
            "authority": self.authority,
        })
    }
}

impl CredentialSource for MtlsSource {
    type Request = MtlsRequest;

    fn kind(&self) -> &'static str {
        KIND
    }

    fn request(&self, ask: &Ask<'_>) -> Result<MtlsRequest, CredentialError> {
        let uri = self.0.uri.fill(ask)?;
        let common_name = self.0.common_name.as_ref().map(|name| name.fill(ask, is_plain)).transpose()?;
        if common_name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_COMMON_NAME) {
            let detail = format!("the common name is longer than {LONGEST_COMMON_NAME} characters");
            return Err(CredentialError::unfit(detail));
        }
        Ok(MtlsRequest {
            leaf: Leaf { uri, common_name, lifetime: self.0.lifetime },
            authority: hex(self.0.authority.fingerprint()),
        })
    }

    fn fetch(self: Arc<Self>, request: Arc<MtlsRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let now = self.0.clock.now();
            let (authority, asked) = (self.0.authority.clone(), request.clone());
            // An authority's RSA key takes milliseconds.
            let minted = tokio::task::spawn_blocking(move || authority.mint(&asked.leaf, now)).await;
            let minted = minted.map_err(|_| SourceError::passing("signing_failed", "signing was aborted"))?;
            let identity = minted.map_err(|detail| SourceError::lasting("signing_failed", detail))?;
            Ok(Issued {
                id: identity.serial().clone(),
                expires_at: identity.expires_at(),
                renew_at: None,
                facts: vec![
                    ("serial", Value::from(&**identity.serial())),
                    ("uri", Value::from(&*request.leaf.uri)),
                    ("fingerprint", Value::from(hex(identity.fingerprint()))),
                ],
                proof: Proof::Certificate(Arc::new(identity)),
            })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    fn digest(&self, key: &mut KeyDigest) {
        key.part("authority", self.0.authority.fingerprint()).part("lifetime", self.0.lifetime.as_secs().to_be_bytes());
    }
}
