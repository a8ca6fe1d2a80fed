//! The metadata server of Compute Engine, GKE, Cloud Run and the like: tokens of the service account that Doorward runs
//! as. It keeps what it gives until some minutes before the end, so renewal may bring the same token once more.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{GcpToken, Obtained, identity_token};
use crate::clock::Clock;
use crate::credential::exchange::{said, send};
use crate::credential::source::{KeyDigest, SourceError};
use crate::credential::token_endpoint;
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// Base address of the metadata server.
pub const GOOGLE_METADATA: &str = "http://metadata.google.internal";
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

/// A metadata server and what is asked of it.
#[derive(Clone, Debug)]
pub struct MetadataServer {
    /// Base address, without a slash at its end.
    pub url: Arc<str>,
    /// How to reach it.
    pub client: OutboundClient,
    /// Time.
    pub clock: Clock,
    /// Which of the instance's service accounts: `default`, or an address.
    pub account: Arc<str>,
    /// What is asked for.
    pub token: GcpToken,
}

impl MetadataServer {
    pub(super) async fn obtain(&self) -> Result<Obtained, SourceError> {
        let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
        let request = Request::get(self.address()).header(FLAVOR, GOOGLE).body(Bytes::new());
        let request = request.map_err(|_| unreadable("the metadata server's address is no URL"))?;
        let asked_at = self.clock.now();
        let answer = send(&self.client, request).await?;
        if answer.status() != StatusCode::OK {
            let detail = format!("the metadata server answered {}: {}", answer.status().as_u16(), said(answer.body()));
            return Err(SourceError::lasting(SourceError::REFUSED, detail));
        }
        // Whatever else answers at such an address does not say this.
        if answer.headers().get(FLAVOR) != Some(&GOOGLE) {
            return Err(unreadable("what answered is no metadata server of Google's"));
        }
        match &self.token {
            GcpToken::Access { .. } => {
                let issued = token_endpoint::read(answer.body(), asked_at)?;
                Ok(Obtained { token: issued.token, expires_at: issued.expires_at, renew_at: None })
            }
            GcpToken::Identity { audience, .. } => {
                let text = std::str::from_utf8(answer.body()).map_err(|_| unreadable("the ID token is no text"))?;
                identity_token(Secret::new(text.trim()), audience)
            }
        }
    }

    fn address(&self) -> String {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let base = format!("{}/computeMetadata/v1/instance/service-accounts/{}", self.url, self.account);
        match &self.token {
            GcpToken::Access { scopes, .. } if scopes.is_empty() => format!("{base}/token"),
            GcpToken::Access { scopes, .. } => format!("{base}/token?scopes={}", encoded(&scopes.join(","))),
            GcpToken::Identity { audience, include_email } => {
                let format = if *include_email { "full" } else { "standard" };
                format!("{base}/identity?audience={}&format={format}", encoded(audience))
            }
        }
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        key.part("metadata_server", self.url.as_bytes()).part("account", self.account.as_bytes());
        self.token.digest(key);
    }

    pub(super) fn shown(&self) -> Value {
        json!({ "endpoint": self.address(), "account": &*self.account })
    }
}
