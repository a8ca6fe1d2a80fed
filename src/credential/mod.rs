//! What the upstream is shown: short-lived proof about the caller, which the caller never sees.

mod assertion;
mod caller_cache;
mod documents;
mod fixed;
mod identity_headers;
mod key_ring;
mod keys;
mod none;
mod signing_key;
#[cfg(test)]
mod testing;

pub use assertion::{
    AssertionCache, AssertionSettings, LONGEST_LIFETIME, MOST_CLAIM_BYTES, MOST_GROUPS, Minted, SignedAssertion,
};
pub use caller_cache::CallerCache;
pub use documents::Documents;
pub use fixed::{FixedSecret, FixedSecretSettings, KEPT_WITHOUT_FILE, LARGEST_SECRET_BYTES};
pub use identity_headers::{HeaderLines, IdentityHeaderCache, MOST_VALUE_BYTES, PlainIdentity};
pub use key_ring::{KeyChange, Rotation};
pub use keys::{KeyError, SHORTEST_ROTATION, SigningKeys};
pub use none::NoCredential;
pub use signing_key::{Algorithm, Refused, SigningKey};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, header};

use crate::clock::Timestamp;
use crate::policy::Grant;

/// Short-lived proof for the upstream. `Debug` shows no value.
#[derive(Clone)]
pub struct Credential {
    /// Identifier for the audit record: the assertion's `jti`, or the kind's own. Never secret.
    pub id: Arc<str>,
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// Kind, such as `signed_assertion`.
    pub kind: &'static str,
    /// When it ends; `None` for a fixed secret.
    pub expires_at: Option<Timestamp>,
    /// Whether it was made for this request rather than taken from the cache.
    pub fresh: bool,
    /// Headers to set on the request, each marked sensitive. Set after everything else, and nothing removes them.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl Credential {
    /// Nothing, for a request that is let through without anybody behind it: a CORS preflight.
    #[must_use]
    pub fn nobodys() -> Self {
        let none: Arc<str> = "none".into();
        Self { id: none.clone(), name: none, kind: "none", expires_at: None, fresh: false, headers: Arc::from([]) }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Why no credential was to be had; then nothing is forwarded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no credential from `{name}`: {detail}")]
pub struct CredentialError {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// Stable code, such as `secret_unreadable`.
    pub code: &'static str,
    /// What went wrong, without any secret.
    pub detail: String,
}

impl CredentialError {
    /// The `code` of an error that is the caller's own, and stays: what there is to say of it is more than fits.
    pub const PRINCIPAL_TOO_LARGE: &'static str = "principal_too_large";

    /// Whether the caller is refused, rather than the credential out of reach for a moment.
    #[must_use]
    pub fn refuses_caller(&self) -> bool {
        self.code == Self::PRINCIPAL_TOO_LARGE
    }
}

/// One way of proving a caller to an upstream. Never blocks past its own deadline.
pub trait CredentialProvider: Send + Sync + fmt::Debug {
    /// Proof for the upstream about `grant`, valid at `now`.
    fn issue<'a>(&'a self, grant: &'a Grant, now: Timestamp) -> BoxFuture<'a, Result<Credential, CredentialError>>;

    /// Names of every header that it may set: removed from what the caller sent.
    fn headers(&self) -> Vec<HeaderName>;
}

/// Why a credential cannot be configured like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The lifetime is out of bounds.
    #[error("an assertion lives between {shortest:?} and {longest:?}")]
    Lifetime {
        /// At least this.
        shortest: Duration,
        /// At most this.
        longest: Duration,
    },
    /// An assertion without issuer or audience would hold anywhere.
    #[error("an assertion needs an issuer and an audience")]
    Unnamed,
    /// The header frames or routes messages.
    #[error("header `{header}` cannot carry a credential: it frames or routes messages")]
    Header {
        /// The header.
        header: HeaderName,
    },
    /// One header is named for two things.
    #[error("header `{header}` is named twice")]
    Twice {
        /// The header.
        header: HeaderName,
    },
    /// The file holds no secret.
    #[error("no secret in `{}`: {detail}", .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without any of its text.
        detail: String,
    },
    /// The prefix does not fit a header.
    #[error("the prefix is not one line of visible text")]
    Prefix,
    /// No reason was given.
    #[error("showing an upstream nothing needs a reason")]
    NoReason,
}

/// Whether a credential may use `name`: not where it would change a message's frame, its way or its host.
fn settable(name: &HeaderName) -> Result<(), SettingsError> {
    const FRAMING: [HeaderName; 9] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::FORWARDED,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let hop_by_hop = matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings");
    if hop_by_hop || FRAMING.contains(name) {
        return Err(SettingsError::Header { header: name.clone() });
    }
    Ok(())
}
