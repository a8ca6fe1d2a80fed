//! What an upstream is told by configuration. Two equal [`UpstreamSettings`] may share one [`super::Upstream`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::peer::Scheme;

use super::error::UpstreamSettingsError;

/// Which HTTP an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, with prior knowledge on a plain connection.
    Http2,
    /// What ALPN settles; over TLS only.
    Auto,
}

/// What the upstream sees as `Host`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The address's own authority.
    #[default]
    Address,
    /// Always this authority.
    Fixed(Authority),
    /// The host that the caller named.
    Downstream,
}

/// One address of an upstream: scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    scheme: Scheme,
    host: String,
    port: u16,
    authority: Authority,
}

impl UpstreamAddress {
    /// Reads `http://host[:port]` or `https://host[:port]`.
    ///
    /// # Errors
    /// [`UpstreamSettingsError::Address`] for anything with a path, a query, a user or another scheme.
    pub fn parse(text: &str) -> Result<Self, UpstreamSettingsError> {
        let fault = || UpstreamSettingsError::Address(text.to_owned());
        let url = url::Url::parse(text).map_err(|_| fault())?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(fault()),
        };
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !bare || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
            return Err(fault());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(fault)?;
        let port = url.port_or_known_default().ok_or_else(fault)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let authority = authority.parse().map_err(|_| fault())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme, host, port, authority })
    }

    /// Plain or TLS.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host[:port]`, the port only when it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

impl fmt::Debug for UpstreamAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Doorward's own certificate for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key; `Debug` does not show it.
    pub key: Arc<PrivateKeyDer<'static>>,
}

/// TLS toward an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities that vouch for the upstream; `None` takes the operating system's.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// Name that the upstream's certificate must bear; `None` takes the address's host.
    pub server_name: Option<String>,
    /// Certificate to show.
    pub certificate: Option<UpstreamCertificate>,
}

/// When an address is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row that set an address aside.
    pub consecutive_failures: u32,
    /// How long, the first time; doubled each further time, five minutes at most.
    pub base: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { consecutive_failures: 5, base: Duration::from_secs(10) }
    }
}

/// Everything configured about one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Configured name.
    pub name: Arc<str>,
    /// Addresses, all of one scheme.
    pub addresses: Vec<UpstreamAddress>,
    /// Which HTTP it speaks.
    pub protocol: UpstreamProtocol,
    /// TLS, for `https` addresses.
    pub tls: UpstreamTls,
    /// What it sees as `Host`.
    pub host: HostHeader,
    /// Longest time for name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Idle HTTP/1.1 connections kept for each address.
    pub idle_connections: usize,
    /// When an address is set aside.
    pub ejection: Ejection,
}

impl UpstreamSettings {
    /// Settings with the defaults of configuration.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, addresses: Vec<UpstreamAddress>) -> Self {
        Self {
            name: name.into(),
            addresses,
            protocol: UpstreamProtocol::default(),
            tls: UpstreamTls::default(),
            host: HostHeader::default(),
            connect_timeout: Duration::from_secs(5),
            idle_connections: 100,
            ejection: Ejection::default(),
        }
    }

    /// The one scheme of all addresses.
    ///
    /// # Errors
    /// What is wrong with these settings as a whole.
    pub(super) fn scheme(&self) -> Result<Scheme, UpstreamSettingsError> {
        let first = self.addresses.first().ok_or(UpstreamSettingsError::NoAddress)?.scheme();
        if self.addresses.iter().any(|address| address.scheme() != first) {
            return Err(UpstreamSettingsError::MixedSchemes);
        }
        if first == Scheme::Http && self.protocol == UpstreamProtocol::Auto {
            return Err(UpstreamSettingsError::AutoWithoutTls);
        }
        if first == Scheme::Http && self.tls != UpstreamTls::default() {
            return Err(UpstreamSettingsError::TlsWithoutTls);
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port_and_nothing_else() {
        let address = UpstreamAddress::parse("https://Billing.internal").unwrap();
        assert_eq!(
            (address.host(), address.port(), address.authority().as_str()),
            ("billing.internal", 443, "billing.internal")
        );
        let address = UpstreamAddress::parse("http://[::1]:8080/").unwrap();
        assert_eq!((address.host(), address.port(), address.authority().as_str()), ("::1", 8080, "[::1]:8080"));
        for bad in ["ftp://a", "http://a/b", "http://u@a", "http://a?b", "http://a#b", "a:80", "http://", ""] {
            assert!(UpstreamAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_two_schemes_are_refused() {
        let addresses = ["http://a", "https://b"].map(|text| UpstreamAddress::parse(text).unwrap()).to_vec();
        let fault = UpstreamSettings::new("a", addresses).scheme().unwrap_err();
        assert!(matches!(fault, UpstreamSettingsError::MixedSchemes));
    }
}
