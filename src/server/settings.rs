//! What a server is told: plain values, already checked for form by whoever read them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::tls::TlsSettings;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP socket; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// One listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Its name in configuration, in [`crate::peer::Peer::listener`] and in errors.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// TLS; without it the listener speaks plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Peers that must open with a PROXY protocol header. Nobody else's is read.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// Limits that hold against slow and flooding clients.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Longest time from the first byte of an HTTP/1 request head to its last.
    pub header_read: Duration,
    /// Largest request head, in bytes.
    pub header_bytes: u32,
    /// Most header fields in a request.
    pub header_count: usize,
    /// Most connections over all listeners.
    pub connections: usize,
    /// Most open streams of one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// How long a connection lives without an open request, and how long a client may take no byte of what is sent.
    pub connection_idle: Duration,
    /// Longest time for the PROXY header and the TLS handshake together.
    pub handshake: Duration,
    /// How long open requests may take to finish once the drain begins.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            header_bytes: 64 * 1024,
            header_count: 100,
            connections: 10_000,
            streams_per_connection: 100,
            connection_idle: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}
