//! Secrets that are kept in a key-value engine, version 2
//! (<https://openbao.org/api-docs/secret/kv/kv-v2/#read-secret-version>).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::source::{Issued, SourceError};
use super::super::{Proof, Template};
use super::login::LoginToken;
use super::server::{Answer, Field, Refusal, VaultServer};
use super::{fits_header, public_text, unfit};

/// A secret of a key-value engine, and where it goes.
#[derive(Clone, Debug)]
pub struct KvSecret {
    /// Where the engine is mounted.
    pub mount: Arc<str>,
    /// The secret's path there.
    pub path: Template,
    /// Which of its fields.
    pub field: Arc<str>,
    /// The header that carries it.
    pub header: HeaderName,
    /// Text before it.
    pub prefix: Arc<str>,
    /// When it is read again at the latest.
    pub refresh: Duration,
}

#[derive(Deserialize)]
struct Version {
    data: Option<BTreeMap<String, Field>>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    version: u64,
}

impl KvSecret {
    /// Where the API has the secret at `path`.
    pub(super) fn api_path(&self, path: &str) -> Arc<str> {
        format!("{}/data/{path}", self.mount).into()
    }

    pub(super) async fn read(&self, server: &VaultServer, path: &str, token: &LoginToken) -> Result<Issued, Refusal> {
        let asked_at = server.clock.now();
        let answer: Answer<Version> = server.read(path, &token.header).await?;
        let request_id = public_text(answer.request_id);
        let version = answer.data.ok_or_else(|| unfit(path, "gives no secret"))?;
        let fields = version.data.ok_or_else(|| unfit(path, "gives no secret of a key-value engine of version 2"))?;
        let text = match fields.get(&*self.field) {
            Some(Field::Text(text)) => text,
            Some(Field::Other) => return Err(unfit(path, &format!("has a field `{}` that is no text", self.field))),
            None => return Err(unfit(path, &format!("has no field `{}`", self.field))),
        };
        if !fits_header(text.expose()) {
            return Err(unfit(path, &format!("has a field `{}` that fits no header", self.field)));
        }
        let text = Zeroizing::new(format!("{}{}", self.prefix, text.expose()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| unfit(path, "fits no header"))?;
        value.set_sensitive(true);
        let number = version.metadata.version;
        let mut facts = vec![("path", Value::from(path)), ("version", number.into())];
        if let Some(id) = request_id {
            facts.push(("vault_request_id", id.into()));
        }
        Ok(Issued {
            id: format!("{path}@{number}").into(),
            proof: Proof::Headers(Arc::from([(self.header.clone(), value)])),
            expires_at: asked_at.plus(self.refresh).min(token.ends_at),
            renew_at: None,
            facts,
        })
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        Self::Other(error)
    }
}
