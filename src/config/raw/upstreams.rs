use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::Placed;
use crate::config::units::DurationText;

/// An API behind Doorward.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["addresses"]))]
pub struct Upstream {
    /// Its addresses, all of one scheme: `http://10.0.0.7:8080`.
    pub addresses: Option<Placed<Vec<Placed<String>>>>,
    /// `http1` (default), `http2` (h2c on http, ALPN on https) or `auto` (https only: ALPN).
    pub protocol: Option<Placed<Protocol>>,
    /// TLS towards it, for https addresses.
    pub tls: Option<Placed<UpstreamTls>>,
    /// The `Host` that it sees. Default: the address's own; `downstream` keeps the caller's.
    pub host: Option<Placed<String>>,
    /// Timeouts of its connections.
    pub timeouts: Option<UpstreamTimeouts>,
    /// Most idle connections kept for an address. Default 100.
    pub connections: Option<Placed<u64>>,
    /// When an address is left out for a while.
    pub ejection: Option<Ejection>,
}

/// Which HTTP an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS.
    Http2,
    /// What the TLS handshake settles on.
    Auto,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file of the authorities that vouch for it. Default: the system's.
    pub authorities: Option<Placed<String>>,
    /// The name that its certificate must hold. Default: the address's host.
    pub server_name: Option<Placed<String>>,
    /// PEM file of the client certificate that it is shown; needs `key`.
    pub certificate: Option<Placed<String>>,
    /// Private key of the client certificate, PEM: `file:PATH` or `env:NAME`.
    pub key: Option<Placed<String>>,
}

/// Timeouts of an upstream's connections.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeouts {
    /// Connecting, TLS included. Default `5s`.
    pub connect: Option<Placed<DurationText>>,
}

/// When an address is left out for a while.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row. Default 5.
    pub consecutive_failures: Option<Placed<u64>>,
    /// For how long the first time. Default `10s`.
    pub base: Option<Placed<DurationText>>,
}
