//! Who connected: the socket's facts, before any header is believed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// How the connection reached a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS over TCP.
    Tls,
    /// Plain HTTP over TCP.
    Plain,
    /// Plain HTTP over a Unix socket.
    Unix,
}

/// What the TLS handshake settled.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher_suite: String,
    /// IANA name of the key exchange group, such as `X25519MLKEM768`.
    pub key_exchange_group: Option<String>,
    /// Server name that the client asked for, lower case.
    pub server_name: Option<Arc<str>>,
}

/// A client certificate that the listener's own authority vouches for and no revocation list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The leaf, DER.
    pub der: Vec<u8>,
    /// SHA-256 of the leaf, the thumbprint of RFC 8705.
    pub sha256: [u8; 32],
}

/// What the server found of a request before anybody read it: a fault here is answered and recorded like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing against it.
    Admitted,
    /// The connection's client certificate is worth nothing any more, and its listener requires one.
    CertificateBarred,
    /// More header fields than the server's limit.
    TooManyFields,
}

/// Who connected. One for each connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address of the client: the socket's, or what a named peer said by PROXY protocol.
    /// A Unix socket's peer is `127.0.0.1:0`.
    pub address: SocketAddr,
    /// Address of the socket itself.
    pub socket_address: SocketAddr,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// How it connected.
    pub transport: Transport,
    /// Present exactly when `transport` is [`Transport::Tls`].
    pub tls: Option<Arc<TlsFacts>>,
    /// The verified client certificate, if one was presented.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// `http` or `https`, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The caller as seen past the load balancers in front of Doorward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream {
    /// The caller's address.
    pub address: IpAddr,
    /// The scheme that the caller used.
    pub scheme: Scheme,
}

/// The caller of a request whose `X-Forwarded-For` cannot be read: an address that no network of callers holds.
pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// An entry of `X-Forwarded-For`: an address, bare or with a port, as some balancers write it; one of IPv6 with or
/// without brackets.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse().ok().map(IpAddr::V6);
    }
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port)
}

/// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Networks from configuration; an all-embracing network is refused before it gets here.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `peer` itself is one of them.
    #[must_use]
    pub fn trusts(&self, peer: &Peer) -> bool {
        !self.0.is_empty() && self.contains(peer.address.ip())
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The caller behind `peer`. Walks `X-Forwarded-For` from the right while the hop is trusted and stops at the
    /// first address that is not. Behind an entry that is no address the caller is unknown, and unknown is
    /// [`UNKNOWN`]: never the balancer that wrote the entry, for its address is one of the inside.
    #[must_use]
    pub fn downstream(&self, peer: &Peer, headers: &HeaderMap) -> Downstream {
        let mut address = peer.address.ip().to_canonical();
        let mut scheme = match peer.transport {
            Transport::Tls => Scheme::Https,
            Transport::Plain | Transport::Unix => Scheme::Http,
        };
        if self.0.is_empty() || !self.contains(address) {
            return Downstream { address, scheme };
        }
        if let [only] = headers.get_all("x-forwarded-proto").iter().collect::<Vec<_>>().as_slice() {
            match only.as_bytes() {
                b"https" => scheme = Scheme::Https,
                b"http" => scheme = Scheme::Http,
                _ => {}
            }
        }
        // By bytes: a line that is no text must not hide the hops on it, for the walk would go on to older ones.
        let lines = headers.get_all("x-forwarded-for").iter();
        let hops: Vec<&[u8]> = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).collect();
        for hop in hops.iter().rev() {
            let Some(next) = std::str::from_utf8(hop).ok().and_then(|hop| hop_address(hop.trim())) else {
                address = UNKNOWN;
                break;
            };
            address = next.to_canonical();
            if !self.contains(address) {
                break;
            }
        }
        Downstream { address, scheme }
    }
}

/// Appends `address` as its `Display` writes it, without what that spends on padding each octet.
pub fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        text.push_str(&address.to_string());
        return;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (unit, needed) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if needed {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(address: &str) -> Peer {
        let address = address.parse().unwrap();
        let transport = Transport::Plain;
        Peer { address, socket_address: address, listener: "public".into(), transport, tls: None, certificate: None }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append("x-forwarded-for", line.parse().unwrap());
        }
        map.append("x-forwarded-proto", "https".parse().unwrap());
        map
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let seen = trusted.downstream(&peer("192.0.2.7:1"), &headers(&["10.1.1.1"]));
        assert_eq!(seen, Downstream { address: "192.0.2.7".parse().unwrap(), scheme: Scheme::Http });
    }

    #[test]
    fn a_line_that_is_no_text_hides_no_hop() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut map = headers(&["198.51.100.7"]);
        map.append("x-forwarded-for", http::HeaderValue::from_bytes(b"\xff, 192.0.2.9").unwrap());
        assert_eq!(trusted.downstream(&peer("10.0.0.1:1"), &map).address.to_string(), "192.0.2.9");
        map.append("x-forwarded-for", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(trusted.downstream(&peer("10.0.0.1:1"), &map).address, UNKNOWN);
    }

    #[test]
    fn an_entry_with_a_port_is_an_address() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (entries, caller) in [
            ("203.0.113.9:51234", "203.0.113.9"),
            ("198.51.100.7, 203.0.113.9:51234", "203.0.113.9"),
            ("198.51.100.7, 10.1.1.1:443", "198.51.100.7"),
            ("[2001:db8::9]:51234", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("2001:db8::9", "2001:db8::9"),
            ("192.0.2.1, [fd00::1]:80", "192.0.2.1"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
        ] {
            let seen = trusted.downstream(&peer("10.0.0.1:1"), &headers(&[entries]));
            assert_eq!(seen.address.to_string(), caller, "{entries}");
        }
    }

    #[test]
    fn behind_an_entry_that_cannot_be_read_nobody_looks_internal() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        for entries in
            ["unknown", "", "203.0.113.9, ", "203.0.113.9:70000", "_hidden, 10.1.1.1", "[10.1.1.1]", "10.1.1"]
        {
            let seen = trusted.downstream(&peer("10.0.0.1:1"), &headers(&[entries]));
            assert_eq!(seen.address, UNKNOWN, "{entries:?}");
        }
    }

    #[test]
    fn a_scheme_that_is_said_twice_is_not_believed() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let scheme = |lines: &[&str]| {
            let mut map = HeaderMap::new();
            for line in lines {
                map.append("x-forwarded-proto", line.parse().unwrap());
            }
            trusted.downstream(&peer("10.0.0.1:1"), &map).scheme
        };
        assert_eq!(scheme(&["https"]), Scheme::Https);
        for lines in [&["https", "https"][..], &["https", "http"], &["https, http"], &["https,https"], &["HTTPS"], &[]]
        {
            assert_eq!(scheme(lines), Scheme::Http, "{lines:?}");
        }
    }

    #[test]
    fn the_first_untrusted_hop_from_the_right_is_the_caller() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let seen = trusted.downstream(&peer("10.0.0.1:1"), &headers(&["127.0.0.1, 198.51.100.9", "10.2.2.2"]));
        assert_eq!(seen, Downstream { address: "198.51.100.9".parse().unwrap(), scheme: Scheme::Https });
    }

    proptest! {
        #[test]
        fn an_address_reads_as_it_always_does(v4: [u8; 4], v6: [u8; 16]) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let mut text = String::from("for=");
                push_address(&mut text, address);
                prop_assert_eq!(text, format!("for={address}"));
            }
        }
    }
}
