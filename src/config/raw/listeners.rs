use schemars::JsonSchema;
use serde::Deserialize;

use super::Reasoned;
use crate::config::placed::Placed;
use crate::config::units::{DurationText, SizeText};

/// Where callers connect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["address"]))]
pub struct Listener {
    /// `ADDRESS:PORT`, such as `0.0.0.0:8443` or `[::]:8443`, or `unix:PATH`.
    pub address: Option<Placed<String>>,
    /// TLS. Without it the address must be a loopback address or a Unix socket.
    pub tls: Option<ListenerTls>,
    /// Why plain HTTP is spoken on an address that others can reach.
    pub plain: Option<Reasoned>,
    /// PROXY protocol v1 or v2, accepted from these peers only, and required of them.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["certificates"]))]
pub struct ListenerTls {
    /// Certificates, chosen by the server name that the client asks for; the first is the default.
    pub certificates: Option<Placed<Vec<ServerCertificate>>>,
    /// Oldest version that is spoken: `"1.2"` (default) or `"1.3"`.
    pub minimum_version: Option<Placed<String>>,
    /// Client certificates.
    pub client_certificates: Option<ClientCertificates>,
}

/// A server certificate with its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificate {
    /// PEM file: the certificate, then its intermediates.
    pub certificate: Placed<String>,
    /// The private key, PEM: `file:PATH` or `env:NAME`.
    pub key: Placed<String>,
}

/// Client certificates of a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// Whether a client must show one.
    pub mode: ClientCertificateMode,
    /// PEM file of the authorities that sign them.
    pub authorities: Placed<String>,
    /// PEM file of revocation lists.
    pub revocations: Option<Placed<String>>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// It may.
    Optional,
    /// It must.
    Required,
}

/// Peers that speak the PROXY protocol.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks of the load balancers. Never the whole internet.
    pub from: Placed<Vec<Placed<String>>>,
}

/// Limits of connections and request heads.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From the first byte of a request head to its last. Default `10s`.
    pub header_read: Option<Placed<DurationText>>,
    /// Largest request head. Default `64KiB`.
    pub header_bytes: Option<Placed<SizeText>>,
    /// Most headers of a request. Default 100.
    pub header_count: Option<Placed<u64>>,
    /// Most connections at once. Default 10000.
    pub connections: Option<Placed<u64>>,
    /// Most HTTP/2 streams of a connection at once. Default 100.
    pub streams_per_connection: Option<Placed<u64>>,
    /// Longest silence of a connection without a request. Default `60s`.
    pub connection_idle: Option<Placed<DurationText>>,
    /// Longest TLS handshake, PROXY protocol included. Default `10s`.
    pub handshake: Option<Placed<DurationText>>,
    /// Most requests at once, open streams and WebSockets among them. Default 10000.
    pub concurrent_requests: Option<Placed<u64>>,
    /// Most requests at once of one source: an IPv4 address, or 64 bits of IPv6. Without it a source may hold them all.
    pub requests_per_source: Option<Placed<u64>>,
    /// How long requests may finish after SIGTERM. Default `20s`.
    pub drain: Option<Placed<DurationText>>,
}
