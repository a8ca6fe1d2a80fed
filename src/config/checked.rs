//! A configuration that was checked as a whole: plain settings, every name resolved, every file present.

mod clouds;
mod credentials;
mod mtls;
mod vault;

pub use clouds::{
    AzureCredential, AzureHost, AzureOrigin, GcpCredential, GcpEndpoint, GcpFederation, GcpOrigin, GcpProof,
    GcpServiceAccount, GcpToken,
};
pub use credentials::{
    AwsAmbient, AwsCredential, AwsProof, Credential, CredentialKind, OauthClient, OauthCredential, OauthGrant,
    OauthSubject,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::faults::Declared;
use super::secrets::SecretValue;
use super::source_file::SourceFile;
use crate::identity::PrincipalKind;
use crate::peer::Scheme;
use crate::route::Route;

pub use mtls::{MtlsAuthority, MtlsCredential};
pub use vault::{VaultCredential, VaultSubject};

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
    /// The claim that says which environment a caller belongs to, and the environment by its values; none are their own.
    pub environment_claim: Option<(String, BTreeMap<String, String>)>,
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
