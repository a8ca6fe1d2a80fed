//! `vault`: secrets of HashiCorp Vault or OpenBao, read with a login by JWT. The caller never sees them, and the vault's
//! own record says for whom each was read.

mod database;
mod kv;
mod login;
mod path;
mod pki;
mod server;
#[cfg(test)]
mod tests;

pub use database::{DatabaseSecret, UserHeaders, VaultLeases};
pub use kv::KvSecret;
pub use login::{VaultLogin, VaultSubject};
pub use path::is_vault_path;
pub use pki::PkiSecret;
pub use server::VaultServer;

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::{Value, json};

use super::cache::Key;
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::{Ask, CredentialError, Template};
use login::{LoginToken, Who};
use server::Refusal;

/// Longest text of a secret, bytes.
const LARGEST_SECRET: usize = 8 * 1024;
/// Longest text of the vault's own that goes on record.
const LONGEST_ID: usize = 256;

/// What is read from a vault, and what becomes of it.
#[derive(Clone, Debug)]
pub enum VaultSecret {
    /// What somebody put there.
    Kv(KvSecret),
    /// What an engine makes for a while.
    Database(DatabaseSecret),
    /// What an engine certifies.
    Pki(PkiSecret),
}

impl VaultSecret {
    /// Every path that the API is asked for, below `v1/`, where `filled` says what a template may come to, and what
    /// of it the vault's policy has to allow.
    #[must_use]
    pub fn api_paths(&self, filled: impl Fn(&Template) -> Vec<String>) -> (Vec<Arc<str>>, &'static str) {
        match self {
            Self::Kv(secret) => (filled(&secret.path).iter().map(|path| secret.api_path(path)).collect(), "read"),
            Self::Database(secret) => (filled(&secret.role).iter().map(|role| secret.api_path(role)).collect(), "read"),
            Self::Pki(secret) => (vec![secret.api_path()], "update"),
        }
    }

    /// Names of every header that carries a part of it.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderName> {
        match self {
            Self::Kv(secret) => vec![secret.header.clone()],
            Self::Database(secret) => secret.header_names(),
            Self::Pki(_) => Vec::new(),
        }
    }
}

/// Everything configured about one credential of a vault.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// Whom to ask, and as whom.
    pub login: VaultLogin,
    /// What for.
    pub secret: VaultSecret,
    /// Leases that are held.
    pub leases: VaultLeases,
}

/// Reads secrets of one vault.
#[derive(Debug)]
pub struct VaultSource(VaultSettings);

/// One secret to read.
pub struct VaultRequest {
    who: Arc<Who>,
    path: Arc<str>,
    /// Of a certificate.
    names: Option<pki::Names>,
    shown: Value,
}

impl fmt::Debug for VaultRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VaultRequest").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl CredentialRequest for VaultRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.part("path", self.path.as_bytes());
        if let Some(names) = &self.names {
            names.digest(key);
        }
        self.who.digest(key);
    }

    fn shown(&self) -> Value {
        self.shown.clone()
    }
}

impl VaultSource {
    /// A source of these secrets.
    #[must_use]
    pub fn new(settings: VaultSettings) -> Self {
        Self(settings)
    }

    /// What a lease is renewed under.
    fn key(&self, request: &VaultRequest) -> Key {
        let mut key = KeyDigest::default();
        key.part("name", self.0.name.as_bytes());
        self.digest(&mut key);
        request.digest(&mut key);
        key.finish()
    }

    /// Reads the secret by one token.
    async fn read(&self, request: &VaultRequest, token: &LoginToken) -> Result<Issued, Refusal> {
        let VaultSettings { name, login, secret, leases } = &self.0;
        match secret {
            VaultSecret::Pki(secret) => {
                let names =
                    request.names.as_ref().ok_or_else(|| unfit(&request.path, "was asked for without a name"))?;
                secret.issue(&login.server, &request.path, names, token).await
            }
            VaultSecret::Kv(secret) => secret.read(&login.server, &request.path, token).await,
            VaultSecret::Database(secret) => {
                let about = (name, &*request.path, self.key(request));
                secret.made(&login.server, leases, about, token).await
            }
        }
    }

    async fn obtain(&self, request: &VaultRequest) -> Result<Issued, SourceError> {
        let VaultSettings { login, secret, leases, .. } = &self.0;
        if let VaultSecret::Database(secret) = secret {
            let key = self.key(request);
            if let Some(renewed) = secret.renewed(&login.server, leases, &request.path, &key).await? {
                return Ok(renewed);
            }
        }
        let token = login.token(&request.who).await?;
        let denied = match self.read(request, &token).await {
            Err(Refusal::Denied(error)) => error,
            read => return Ok(read?),
        };
        match login.token_after(&token, &request.who).await? {
            Some(token) => Ok(self.read(request, &token).await?),
            None => Err(denied),
        }
    }
}

impl CredentialSource for VaultSource {
    type Request = VaultRequest;

    fn kind(&self) -> &'static str {
        "vault"
    }

    fn request(&self, ask: &Ask<'_>) -> Result<VaultRequest, CredentialError> {
        let VaultSettings { login, secret, .. } = &self.0;
        let who = login.who(ask)?;
        let (path, names) = match secret {
            VaultSecret::Kv(secret) => (secret.api_path(&path::filled(&secret.path, ask)?), None),
            VaultSecret::Database(secret) => (secret.api_path(&path::filled(&secret.role, ask)?), None),
            VaultSecret::Pki(secret) => (secret.api_path(), Some(secret.names(ask)?)),
        };
        let shown = json!({
            "address": &*login.server.address,
            "namespace": login.server.namespace.as_deref(),
            "login": login.shown(&who),
            "path": &*path,
            "names": names.as_ref().map(pki::Names::shown),
        });
        Ok(VaultRequest { who: Arc::new(who), path, names, shown })
    }

    fn fetch(self: Arc<Self>, request: Arc<VaultRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move { self.obtain(&request).await }.boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        self.0.secret.headers()
    }

    fn digest(&self, key: &mut KeyDigest) {
        self.0.login.digest(key);
        for header in self.headers() {
            key.part("header", header.as_str());
        }
        match &self.0.secret {
            VaultSecret::Kv(secret) => {
                key.part("engine", "kv")
                    .part("field", secret.field.as_bytes())
                    .part("prefix", secret.prefix.as_bytes());
                key.part("refresh", secret.refresh.as_secs().to_be_bytes());
            }
            VaultSecret::Database(_) => _ = key.part("engine", "database"),
            VaultSecret::Pki(secret) => {
                key.part("engine", "pki").part("lifetime", secret.lifetime.as_secs().to_be_bytes());
            }
        }
    }

    fn dropped(&self, id: &str) {
        self.0.leases.mark_stale(id);
    }
}

/// Whether `text` may stand in a header as it is: printable ASCII without spaces at its ends.
fn fits_header(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LARGEST_SECRET
        && text.trim() == text
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A text of the vault's that may go on record.
fn public_text(text: String) -> Option<String> {
    let plain = !text.is_empty() && text.len() <= LONGEST_ID && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(text)
}

/// What the vault gave at `path` is of no use.
fn unfit(path: &str, what: &str) -> Refusal {
    Refusal::Other(SourceError::lasting(SourceError::UNREADABLE, format!("the vault's `{path}` {what}")))
}
