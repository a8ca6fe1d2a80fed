//! What the upstream is shown: short-lived proof about the caller, which the caller never sees.

mod assertion;
mod aws;
mod azure;
mod bearer;
mod cache;
mod caller_cache;
mod certificate_authority;
mod documents;
mod event;
mod exchange;
mod fixed;
mod gcp;
mod identity_headers;
mod key_ring;
mod keys;
mod leases;
mod mtls;
mod none;
mod oauth;
mod remote;
mod reread;
mod signing_key;
mod sigv4;
mod source;
mod subject_token;
mod template;
#[cfg(test)]
mod testing;
mod token_endpoint;
mod vault;
mod verdict;

pub use assertion::{
    AssertionCache, AssertionSettings, LONGEST_LIFETIME, MOST_CLAIM_BYTES, MOST_GROUPS, Minted, SignedAssertion,
};
pub use aws::{
    AmbientKeys, AssumedRole, AwsSettings, AwsSource, ContainerToken, INSTANCE_METADATA, LARGEST_POLICY,
    PolicyStatement, RoleProof, SessionPolicy, Sts,
};
pub use azure::{
    Application, AzureOrigin, AzureSettings, AzureSource, INSTANCE_METADATA as AZURE_INSTANCE_METADATA,
    ManagedIdentity, ManagedIdentityHost,
};
pub use cache::{IssuedCache, Places};
pub use caller_cache::CallerCache;
pub use certificate_authority::{
    AuthorityError, CertificateAuthority, LONGEST_COMMON_NAME, LONGEST_LEAF, Leaf, SHORTEST_LEAF,
};
pub use documents::Documents;
pub use event::{EventUnwritten, Events, IssueEvent, Outcome};
pub use fixed::{FixedSecret, FixedSecretSettings, LARGEST_SECRET_BYTES};
pub use gcp::{
    Federation, GOOGLE_METADATA, GcpOrigin, GcpProof, GcpSettings, GcpSource, GcpToken,
    LONGEST_SUBJECT as LONGEST_GOOGLE_SUBJECT, MetadataServer, ServiceAccount,
};
pub use identity_headers::{HeaderLines, IdentityHeaderCache, MOST_VALUE_BYTES, PlainIdentity};
pub use key_ring::{KeyChange, Rotation};
pub use keys::{KeyError, SHORTEST_ROTATION, SigningKeys};
pub use leases::Leases;
pub use mtls::{
    CertificateFiles, CertificateFilesSettings, LONGEST_URI, MtlsSettings, MtlsSource, UriTemplate, UriTemplateError,
};
#[cfg(feature = "spiffe")]
pub use mtls::{WorkloadApiSettings, WorkloadApiSource, WorkloadApis};
pub use none::NoCredential;
pub use oauth::{Actor, OauthGrant, OauthSettings, OauthSource, Subject};
pub use remote::{PATIENCE, Remote, RemoteSettings};
pub use reread::KEPT_WITHOUT_FILE;
pub use signing_key::{Algorithm, Refused, SigningKey};
pub use sigv4::{
    AwsKeys, AwsSigner, BodyMemory, ClockSkew, Payload, RequestSignature, Settled, SigningError, SigningScope,
    drop_presigned,
};
pub use source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
pub use subject_token::{SubjectClaims, SubjectTokens};
pub use template::{Template, TemplateError, ValueError, Variable, is_plain};
pub use token_endpoint::{ClientAuthentication, Form, IssuedToken, TokenEndpoint};
pub use vault::{
    DatabaseSecret, KvSecret, PkiSecret, UserHeaders, VaultLeases, VaultLogin, VaultSecret, VaultServer, VaultSettings,
    VaultSource, VaultSubject, is_vault_path,
};
pub use verdict::{Verdict, judge};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, header};

pub use crate::outbound::{ClientIdentity, ClientIdentityError};

use crate::clock::Timestamp;
use crate::policy::Grant;
use crate::route::PathParameters;

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
    /// What goes upstream.
    pub proof: Proof,
    /// What it is kept under in the cache of what others issue.
    pub(crate) key: Option<[u8; 32]>,
}

/// What goes upstream, and how. `Debug` shows no value.
#[derive(Clone)]
pub enum Proof {
    /// Headers to set on the request, each marked sensitive. Set after everything else, and nothing removes them.
    Headers(Arc<[(HeaderName, HeaderValue)]>),
    /// Keys by which the request is signed.
    AwsKeys(Arc<AwsSigner>),
    /// A certificate that the connection itself shows.
    Certificate(Arc<ClientIdentity>),
}

impl Proof {
    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Headers(Arc::default())
    }

    /// Headers to set on the request.
    #[must_use]
    pub fn headers(&self) -> Arc<[(HeaderName, HeaderValue)]> {
        match self {
            Self::Headers(headers) => headers.clone(),
            Self::AwsKeys(_) | Self::Certificate(_) => Arc::default(),
        }
    }

    /// What signs the request.
    #[must_use]
    pub fn signer(&self) -> Option<&Arc<AwsSigner>> {
        match self {
            Self::Headers(_) | Self::Certificate(_) => None,
            Self::AwsKeys(signer) => Some(signer),
        }
    }

    /// What the connection is opened as.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        match self {
            Self::Headers(_) | Self::AwsKeys(_) => None,
            Self::Certificate(identity) => Some(identity),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(headers) => formatter.debug_list().entries(headers.iter().map(|(name, _)| name)).finish(),
            Self::AwsKeys(signer) => signer.fmt(formatter),
            Self::Certificate(identity) => identity.fmt(formatter),
        }
    }
}

impl Credential {
    /// Nothing, for a request that is let through without anybody behind it: a CORS preflight.
    #[must_use]
    pub fn nobodys() -> Self {
        let none: Arc<str> = "none".into();
        Self {
            id: none.clone(),
            name: none,
            kind: "none",
            expires_at: None,
            fresh: false,
            proof: Proof::nothing(),
            key: None,
        }
    }

    /// Whether an upstream that finds it expired may be asked once more, with another.
    #[must_use]
    pub fn is_replaceable(&self) -> bool {
        self.key.is_some()
    }
}

/// What a credential is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The permission.
    pub grant: &'a Grant,
    /// The request's time.
    pub now: Timestamp,
    /// What the route's pattern caught.
    pub parameters: &'a PathParameters,
    /// The JWT by which the caller was recognised, where it was one.
    pub token: Option<&'a str>,
    /// The request's id.
    pub request_id: &'a Arc<str>,
}

impl Ask<'_> {
    /// The caller's own token.
    ///
    /// # Errors
    /// [`CredentialError`] for a caller who came by anything else.
    pub fn caller_token(&self) -> Result<&str, CredentialError> {
        self.token.ok_or_else(|| CredentialError {
            name: "".into(),
            code: CredentialError::NO_CALLER_TOKEN,
            detail: "this credential is made of the caller's own token, and the caller came by something else"
                .to_owned(),
            claims: None,
        })
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
    /// What the issuer wants of the caller's next sign-in, as the JSON object of a claims request.
    pub claims: Option<Arc<str>>,
}

impl CredentialError {
    /// The `code` of an error that is the caller's own, and stays: what there is to say of it is more than fits.
    pub const PRINCIPAL_TOO_LARGE: &'static str = "principal_too_large";

    /// The `code` of an error that is the caller's own: it showed no token to make a credential of.
    pub const NO_CALLER_TOKEN: &'static str = "caller_token_missing";
    /// The `code` of an error that is the request's own: a value of it does not fit where the credential needs it.
    pub const UNFIT_VALUE: &'static str = "credential_value_refused";

    /// The `code` of an error that the caller can mend: the issuer of the credential wants another sign-in first.
    pub const INTERACTION: &'static str = "interaction_required";

    /// A value of the request does not fit where the credential needs it.
    pub(crate) fn unfit(detail: impl Into<String>) -> Self {
        Self { name: "".into(), code: Self::UNFIT_VALUE, detail: detail.into(), claims: None }
    }

    /// Whether the caller is refused, rather than the credential out of reach for a moment.
    #[must_use]
    pub fn refuses_caller(&self) -> bool {
        [Self::PRINCIPAL_TOO_LARGE, Self::NO_CALLER_TOKEN, Self::UNFIT_VALUE, Self::INTERACTION].contains(&self.code)
    }
}

impl From<ValueError> for CredentialError {
    fn from(error: ValueError) -> Self {
        Self::unfit(error.to_string())
    }
}

/// One way of proving a caller to an upstream. Never blocks past its own deadline.
pub trait CredentialProvider: Send + Sync + fmt::Debug {
    /// Proof for the upstream about the grant, valid now.
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>>;

    /// Names of every header that it may set: removed from what the caller sent.
    fn headers(&self) -> Vec<HeaderName>;

    /// The upstream says that `credential` has expired: it is not handed out again.
    fn drop_expired(&self, _credential: &Credential) {}

    /// What would be asked of whom, for people: no secret, no token.
    ///
    /// # Errors
    /// [`CredentialError`] where nothing would be asked.
    fn shown(&self, _ask: &Ask<'_>) -> Result<serde_json::Value, CredentialError> {
        Ok(serde_json::Value::Null)
    }
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
    /// The files hold no client certificate that can be shown.
    #[error("no client certificate in `{}`: {detail}", .path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it or its key, without any of their text.
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
