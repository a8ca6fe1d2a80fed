//! A configuration that was checked as a whole: plain settings, every name resolved, every file present.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::faults::{Declared, SourceFile};
use super::secrets::SecretValue;
use crate::credential::{CertificateAuthority, ClientIdentity, SessionPolicy, Template, UriTemplate};
use crate::identity::PrincipalKind;
use crate::peer::Scheme;
use crate::route::Route;
use crate::secret::Secret;

/// A claim's path and the values of which any will do.
pub type ClaimRule = (String, Vec<Value>);

/// A configuration without faults.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The main file as a whole.
    pub main: Declared,
    /// SHA-256 over names and contents of the configuration files: the first 16 hexadecimal digits.
    pub hash: Arc<str>,
    /// Origin that browsers see, such as `https://api.example.com`.
    pub external_origin: Option<String>,
    /// Directory of keys and sessions.
    pub state_dir: Option<PathBuf>,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where callers connect.
    pub listeners: Vec<Listener>,
    /// Limits of connections.
    pub limits: Limits,
    /// Issuers of tokens.
    pub issuers: Vec<Issuer>,
    /// Names for principals that come by client certificate.
    pub certificate_issuers: Vec<CertificateIssuer>,
    /// Doorward as an issuer; present whenever its URL is known.
    pub assertions: Option<Assertions>,
    /// What upstreams are shown.
    pub credentials: Vec<Credential>,
    /// APIs behind Doorward.
    pub upstreams: Vec<Upstream>,
    /// Roles and who holds them.
    pub roles: Vec<Role>,
    /// Routes, in the order of their `index`; [`crate::route::Router::new`] takes them.
    pub routes: Vec<RouteSettings>,
    /// Cedar files, unparsed, in the order of their names.
    pub policies: Vec<PolicySource>,
    /// The record of requests.
    pub audit: Audit,
    /// Listener for health and metrics.
    pub admin: Option<Admin>,
    /// Every file besides the configuration's own that it refers to: certificates, keys, secrets, key sets.
    pub referenced: Referenced,
}

/// Files, each with a digest of what it held just before it was read: whatever is written to it from then on shows.
pub type Referenced = BTreeMap<PathBuf, Vec<u8>>;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name.
    pub name: String,
    /// Address.
    pub address: ListenAddress,
    /// TLS; `None` is plain HTTP.
    pub tls: Option<ListenerTls>,
    /// Peers that must speak the PROXY protocol; empty means that nobody does.
    pub proxy_protocol: Vec<IpNet>,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificates; the first is the default.
    pub certificates: Vec<OwnCertificate>,
    /// Whether TLS 1.2 is refused.
    pub tls13_only: bool,
    /// Client certificates.
    pub client_certificates: Option<ClientCertificates>,
    /// Where its listener is declared.
    pub declared: Declared,
}

/// A certificate of Doorward's own.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// PEM file.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: SecretValue,
    /// Where the file is named.
    pub certificate_at: Declared,
    /// Where the key is referred to.
    pub key_at: Declared,
}

/// Client certificates of a listener.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// Whether a client must show one.
    pub required: bool,
    /// PEM file of authorities.
    pub authorities: PathBuf,
    /// Where that file is named.
    pub authorities_at: Declared,
    /// PEM file of revocation lists, and where it is named.
    pub revocations: Option<(PathBuf, Declared)>,
}

/// Limits of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a request head's first byte to its last.
    pub header_read: Duration,
    /// Largest request head, bytes.
    pub header_bytes: u64,
    /// Most headers.
    pub header_count: usize,
    /// Most connections.
    pub connections: usize,
    /// Most HTTP/2 streams of a connection.
    pub streams_per_connection: u32,
    /// Longest silence of a connection without a request.
    pub connection_idle: Duration,
    /// Longest handshake.
    pub handshake: Duration,
    /// Most requests at once.
    pub concurrent_requests: usize,
    /// Most requests at once of one source.
    pub requests_per_source: Option<usize>,
    /// How long requests may finish at the end.
    pub drain: Duration,
}

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Configured name.
    pub name: String,
    /// Exact `iss`.
    pub issuer: String,
    /// Kind of its callers.
    pub kind: PrincipalKind,
    /// Audiences of which a token must hold one.
    pub audience: Vec<String>,
    /// Names of accepted algorithms.
    pub algorithms: Vec<String>,
    /// Where its keys come from.
    pub keys: Keys,
    /// Whether only access tokens of RFC 9068 (`typ: at+jwt`) are taken.
    pub access_tokens_only: bool,
    /// Paths of the claims that name the principal.
    pub principal: Vec<String>,
    /// Claims that a token must hold.
    pub required_claims: Vec<ClaimRule>,
    /// Claims that a token must not hold; no values means that the claim must be absent.
    pub forbidden_claims: Vec<ClaimRule>,
    /// Path of the claim of groups.
    pub groups: String,
    /// Path of the claim of the e-mail address.
    pub email: String,
    /// Claims that policies can read.
    pub attributes: Vec<AttributeRule>,
    /// Longest life of a token.
    pub longest_token: Duration,
    /// Forgiven difference of clocks.
    pub leeway: Duration,
    /// Browser login.
    pub login: Option<Login>,
    /// Where it is declared.
    pub declared: Declared,
    /// Where the authorities of its keys' server are named.
    pub authorities_at: Option<Declared>,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The discovery document.
    Discovery {
        /// PEM file of authorities; `None` is the system's.
        authorities: Option<PathBuf>,
    },
    /// A URL.
    JwksUri {
        /// The URL.
        uri: String,
        /// PEM file of authorities; `None` is the system's.
        authorities: Option<PathBuf>,
    },
    /// A JWKS file.
    File(PathBuf),
}

/// Type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// Text.
    String,
    /// Whole number.
    Long,
    /// Truth value.
    Bool,
    /// Set of texts.
    Set,
}

/// A claim that policies can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeRule {
    /// Name in policies.
    pub name: String,
    /// Path of the claim.
    pub claim: String,
    /// Its type.
    pub kind: AttributeKind,
}

/// Browser login with an issuer.
#[derive(Clone, Debug)]
pub struct Login {
    /// Client id.
    pub client_id: String,
    /// Client secret; `None` is a public client.
    pub client_secret: Option<SecretValue>,
    /// Scopes, `openid` among them.
    pub scopes: Vec<String>,
    /// Further parameters of the authorization request.
    pub parameters: Vec<(String, String)>,
    /// A session ends after this silence.
    pub idle: Duration,
    /// A session ends after this time.
    pub longest: Duration,
}

/// A name for principals that come by client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIssuer {
    /// Configured name.
    pub name: String,
    /// Names of listeners.
    pub listeners: Vec<String>,
    /// Whether DNS names count.
    pub dns: bool,
    /// Whether URIs count.
    pub uri: bool,
}

/// Doorward as an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertions {
    /// `iss` of assertions.
    pub issuer: String,
    /// Name of the listener that serves only the documents.
    pub listener: Option<String>,
    /// How often the signing key is replaced.
    pub rotate_every: Duration,
}

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

/// A client certificate that the connection to the upstream shows.
#[derive(Clone, Debug)]
pub enum MtlsCredential {
    /// The same for every caller.
    Files {
        /// PEM file of its chain, leaf first.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    },
    /// One for each principal.
    Authority(Box<MtlsAuthority>),
}

/// Client certificates that are minted here.
#[derive(Clone, Debug)]
pub struct MtlsAuthority {
    /// Who signs them; it was tried out.
    pub authority: Arc<CertificateAuthority>,
    /// The URI that names the holder.
    pub uri: UriTemplate,
    /// The subject's common name.
    pub common_name: Option<Template>,
    /// How long one lives.
    pub lifetime: Duration,
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

/// Which HTTP an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What ALPN settles on.
    Auto,
}

/// The `Host` that an upstream sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The address's own authority.
    Address,
    /// The caller's.
    Downstream,
    /// This one.
    Fixed(String),
}

/// An API behind Doorward.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Configured name.
    pub name: String,
    /// Scheme of every address.
    pub scheme: Scheme,
    /// Origins such as `http://10.0.0.7:8080`, without a path.
    pub addresses: Vec<String>,
    /// Which HTTP it speaks.
    pub protocol: UpstreamProtocol,
    /// TLS settings; all absent when the file says nothing.
    pub tls: UpstreamTls,
    /// The `Host` that it sees.
    pub host: UpstreamHost,
    /// Timeout of connecting.
    pub connect_timeout: Duration,
    /// Most idle connections of an address.
    pub idle_connections: usize,
    /// Failures in a row that eject an address.
    pub ejection_failures: u32,
    /// For how long the first time.
    pub ejection_base: Duration,
    /// Where it is declared.
    pub declared: Declared,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// PEM file of authorities, and where it is named; `None` is the system's.
    pub authorities: Option<(PathBuf, Declared)>,
    /// Name that its certificate must hold; `None` is the address's host.
    pub server_name: Option<String>,
    /// Client certificate.
    pub client: Option<OwnCertificate>,
}

/// Callers that hold a role: all of it must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// Name of their issuer.
    pub issuer: String,
    /// Groups of which they are in one; empty asks for none.
    pub groups: Vec<String>,
    /// Claims that they hold.
    pub claims: Vec<ClaimRule>,
}

/// A role.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// Configured name.
    pub name: String,
    /// Any entry will do.
    pub trust: Vec<Trust>,
    /// Its environment.
    pub environment: String,
    /// Longest role session.
    pub longest_session: Option<Duration>,
}

/// A route and what hangs on it.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// The route.
    pub route: Route,
    /// Name of its upstream.
    pub upstream: String,
    /// Name of its credential.
    pub credential: String,
    /// Audience of a signed assertion.
    pub audience: String,
    /// Where it is declared.
    pub declared: Declared,
}

/// A Cedar file, unparsed.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// The file, to make faults that point into it.
    pub file: Arc<SourceFile>,
    /// Whether its name begins with `guardrails`: only `forbid` may stand in it.
    pub guardrail: bool,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditDestination {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// A new file is begun at this size.
        rotate_bytes: u64,
        /// How many old files are kept.
        keep: usize,
    },
}

/// The record of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Where records go.
    pub destination: AuditDestination,
    /// Most records that wait.
    pub queue: usize,
    /// Whether a full queue refuses new requests, rather than counting the loss.
    pub refuse_when_full: bool,
    /// Whether a request goes upstream only once a record of its grant has been written.
    pub strict: bool,
}

/// Listener for health and metrics.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address.
    pub address: ListenAddress,
    /// Bearer token that requests must show.
    pub token: Option<SecretValue>,
    /// TLS.
    pub tls: Option<ListenerTls>,
}
