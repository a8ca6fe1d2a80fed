//! Credentials: what upstreams are shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::clouds::{AzureCredential, GcpCredential};
use super::mtls::MtlsCredential;
use super::vault::VaultCredential;
use crate::config::faults::Declared;
use crate::credential::{ClientIdentity, SessionPolicy, Template};
use crate::secret::Secret;

/// What an upstream is shown.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Configured name.
    pub name: String,
    /// Its kind.
    pub kind: CredentialKind,
    /// Where it is declared.
    pub declared: Declared,
}

/// Kinds of credentials.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// A JWT about the principal.
    SignedAssertion {
        /// `ES256` or `RS256`.
        algorithm: String,
        /// Its life.
        lifetime: Duration,
        /// The header that carries it; `authorization` as a bearer token, any other bare.
        header: http::HeaderName,
    },
    /// A token of an authorization server.
    Oauth(Box<OauthCredential>),
    /// Keys of an AWS role session.
    Aws(Box<AwsCredential>),
    /// A token of Google Cloud.
    Gcp(Box<GcpCredential>),
    /// A token of Microsoft Entra ID.
    Azure(Box<AzureCredential>),
    /// A secret of a vault.
    Vault(Box<VaultCredential>),
    /// A client certificate.
    Mtls(MtlsCredential),
    /// The same secret for every caller.
    Fixed {
        /// The header that carries it.
        header: http::HeaderName,
        /// The file that holds the secret.
        file: PathBuf,
        /// Text before it.
        prefix: String,
    },
    /// Nothing.
    None {
        /// Why.
        reason: String,
    },
}

impl CredentialKind {
    /// Name in configuration and audit records.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::SignedAssertion { .. } => "signed_assertion",
            Self::Oauth(oauth) => oauth.grant.kind(),
            Self::Aws(_) => "aws",
            Self::Gcp(_) => "gcp",
            Self::Azure(_) => "azure",
            Self::Vault(_) => "vault",
            Self::Mtls(_) => "mtls",
            Self::Fixed { .. } => "fixed",
            Self::None { .. } => "none",
        }
    }

    /// Whether somebody else issues it.
    #[must_use]
    pub const fn is_issued(&self) -> bool {
        !matches!(self, Self::SignedAssertion { .. } | Self::Fixed { .. } | Self::None { .. })
    }
}

/// Keys of an AWS role session.
#[derive(Clone, Debug)]
pub struct AwsCredential {
    /// ARN of the role.
    pub role: String,
    /// Regions that are signed for, that of STS first.
    pub regions: Vec<String>,
    /// Services that are signed for.
    pub services: Vec<String>,
    /// By what the role is assumed.
    pub proof: AwsProof,
    /// `sub` of Doorward's token.
    pub token_subject: Template,
    /// The STS endpoint.
    pub sts_url: String,
    /// PEM file of the authorities that vouch for it; `None` is the system's.
    pub authorities: Option<PathBuf>,
    /// How long a session lives.
    pub duration: Duration,
    /// `RoleSessionName`, before it is made to fit.
    pub session_name: Template,
    /// `SourceIdentity`, before it is made to fit.
    pub source_identity: Option<Template>,
    /// Session tags.
    pub tags: BTreeMap<String, Template>,
    /// Those that stay when the session assumes another role.
    pub transitive_tags: Vec<String>,
    /// What a session is narrowed to.
    pub policy: Option<SessionPolicy>,
    /// ARNs of managed policies that it is narrowed to.
    pub policy_arns: Vec<String>,
    /// Whether callers may copy from other objects, set access rights and lift retention by headers.
    pub widening_headers: bool,
    /// Longest body that is held until it is hashed.
    pub signed_body_bytes: usize,
}

/// By what a role is assumed.
#[derive(Clone, Debug)]
pub enum AwsProof {
    /// A token of Doorward's.
    Doorward {
        /// Its `aud`.
        audience: String,
    },
    /// The caller's token.
    Caller,
    /// Keys of the place where Doorward runs.
    Ambient {
        /// The keys.
        keys: AwsAmbient,
        /// `ExternalId`
        external_id: Option<String>,
    },
}

/// Where ambient keys come from.
#[derive(Clone, Debug)]
pub enum AwsAmbient {
    /// The environment.
    Environment {
        /// `AWS_ACCESS_KEY_ID`
        access_key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`
        secret_access_key: Secret,
        /// `AWS_SESSION_TOKEN`
        session_token: Option<Secret>,
    },
    /// An endpoint of the container's host.
    Container {
        /// Its URL.
        url: String,
        /// What `Authorization` says there.
        token: Option<Secret>,
        /// A file of that, which comes first.
        token_file: Option<PathBuf>,
    },
    /// Instance metadata.
    Instance {
        /// Base URL; `None` is the usual one.
        url: Option<String>,
    },
}

/// A token of an authorization server.
#[derive(Clone, Debug)]
pub struct OauthCredential {
    /// The token endpoint.
    pub url: String,
    /// PEM file of the authorities that vouch for it; `None` is the system's.
    pub authorities: Option<PathBuf>,
    /// Where that file is named.
    pub authorities_at: Option<Declared>,
    /// Doorward as its client.
    pub client: Option<OauthClient>,
    /// What is asked for.
    pub grant: OauthGrant,
    /// Further parameters of the form.
    pub parameters: Vec<(String, String)>,
    /// `aud` of Doorward's own tokens.
    pub token_audience: String,
    /// The header that carries the token.
    pub header: http::HeaderName,
    /// Longest time that a request is given it for.
    pub lifetime: Option<Duration>,
}

/// A client of an authorization server, and how it shows that it is the one.
#[derive(Clone, Debug)]
pub enum OauthClient {
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
    /// `private_key_jwt`
    PrivateKeyJwt {
        /// Client id.
        id: String,
        /// `aud` of its assertions; `None` is the token endpoint.
        audience: Option<String>,
    },
    /// `tls_client_auth`
    TlsClientAuth {
        /// Client id.
        id: String,
        /// What the token endpoint is shown.
        certificate: ClientIdentity,
    },
    /// `none`
    Public {
        /// Client id.
        id: String,
    },
}

/// Which grant is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OauthGrant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 8693.
    TokenExchange {
        /// Whose token says who the caller is.
        subject: OauthSubject,
        /// `subject_token_type`
        subject_token_type: Option<String>,
        /// `sub` of the actor's token.
        actor: Option<String>,
        /// `requested_token_type`
        requested_token_type: Option<String>,
    },
    /// RFC 7523 section 2.1.
    JwtBearer {
        /// Whose token says who the caller is.
        subject: OauthSubject,
    },
}

impl OauthGrant {
    /// Name of the credential's kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange { .. } => "token_exchange",
            Self::JwtBearer { .. } => "jwt_bearer",
        }
    }
}

/// Whose token says who a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OauthSubject {
    /// The caller's.
    Caller,
    /// Doorward's.
    Doorward,
}
