//! Client certificates: a DNS name or URI in the leaf's subject alternative names is a workload.
//!
//! The listener has verified the chain, the revocation list and the key's possession; this reads the name.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::keys::sha256;
use super::{IdentityError, IdentityVerifier, Presented, Principal, PrincipalKind, VerifiedIdentity};
use crate::clock::Timestamp;
use crate::peer::ClientCertificate;
use crate::route::EvidenceKind;

/// Certificates whose reading is remembered.
const REMEMBERED: usize = 1000;

/// Longest name, bytes.
const NAME_LIMIT_BYTES: usize = 1024;

/// How certificates name workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSettings {
    /// Configured name of the issuer of these principals.
    pub issuer: Arc<str>,
    /// Listeners whose client certificates are read.
    pub listeners: BTreeSet<Arc<str>>,
    /// Whether a DNS name names a workload.
    pub dns: bool,
    /// Whether a URI names a workload; it is preferred where both do.
    pub uri: bool,
}

/// Recognises workloads by client certificates.
#[derive(Debug)]
pub struct CertificateVerifier {
    settings: CertificateSettings,
    read: Cache<[u8; 32], Arc<Named>>,
}

/// What a certificate says.
#[derive(Debug)]
struct Named {
    principal: Arc<Principal>,
    valid_from: Timestamp,
    valid_until: Timestamp,
}

impl CertificateVerifier {
    /// A verifier.
    #[must_use]
    pub fn new(settings: CertificateSettings) -> Self {
        Self { settings, read: Cache::new(REMEMBERED) }
    }

    fn recognise(&self, presented: &Presented<'_>) -> Result<Arc<Principal>, IdentityError> {
        let certificate = presented.peer.certificate.as_ref().ok_or(IdentityError::Missing)?;
        let named = match self.read.get(&certificate.sha256) {
            Some(named) => named,
            None => {
                let named = Arc::new(self.settings.read(certificate)?);
                self.read.insert(certificate.sha256, named.clone());
                named
            }
        };
        // The handshake looked too, but a connection outlives it.
        if presented.now < named.valid_from || presented.now >= named.valid_until {
            return Err(IdentityError::invalid("certificate_expired", "the client certificate is not valid now"));
        }
        Ok(named.principal.clone())
    }
}

impl IdentityVerifier for CertificateVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::ClientCertificate
    }

    fn presents(&self, presented: &Presented<'_>) -> Result<bool, IdentityError> {
        Ok(presented.peer.certificate.is_some() && self.settings.listeners.contains(&presented.peer.listener))
    }

    fn verify<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>> {
        ready(self.recognise(&presented)).boxed()
    }

    fn recognise_again(&self, principal: &Arc<Principal>, _now: Timestamp) -> Option<Arc<Principal>> {
        let names = [("uri", self.settings.uri), ("dns", self.settings.dns)];
        let is_named = names.iter().any(|(kind, taken)| *taken && principal.claims.contains_key(*kind));
        (is_named && principal.issuer == self.settings.issuer).then(|| principal.clone())
    }
}

impl CertificateSettings {
    fn read(&self, certificate: &ClientCertificate) -> Result<Named, IdentityError> {
        let malformed = |detail: &'static str| IdentityError::invalid("certificate_malformed", detail);
        let (rest, leaf) = X509Certificate::from_der(&certificate.der)
            .map_err(|_| malformed("the client certificate cannot be read"))?;
        if !rest.is_empty() {
            return Err(malformed("something follows the client certificate"));
        }
        let names = leaf
            .subject_alternative_name()
            .map_err(|_| malformed("the client certificate's names cannot be read"))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        // What we cannot read another reader may: to pass over it would choose among names without having seen all.
        if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            return Err(malformed("the client certificate has a name that cannot be read"));
        }
        let (kind, name) = self.choose(names)?;
        // `notAfter` is the last second of validity (RFC 5280 section 4.1.2.5).
        let valid_from = Timestamp::from_unix_seconds(leaf.validity().not_before.timestamp());
        let valid_until = Timestamp::from_unix_seconds(leaf.validity().not_after.timestamp().saturating_add(1));
        let principal = Arc::new(self.workload(kind, name, valid_from, valid_until, &certificate.sha256));
        Ok(Named { principal, valid_from, valid_until })
    }

    /// The workload that a certificate with this one name stands for, as if the handshake had verified it: to explain
    /// by, never to let in. A name with a colon is a URI.
    ///
    /// # Errors
    /// `certificate_name_refused`.
    pub fn stated(&self, name: &str, from: Timestamp, until: Timestamp) -> Result<Principal, IdentityError> {
        let name = if name.contains(':') { GeneralName::URI(name) } else { GeneralName::DNSName(name) };
        let (kind, name) = self.choose(&[name])?;
        Ok(self.workload(kind, name, from, until, &[0; 32]))
    }

    fn workload(
        &self,
        kind: &str,
        name: String,
        valid_from: Timestamp,
        valid_until: Timestamp,
        fingerprint: &[u8],
    ) -> Principal {
        let claims = Map::from_iter([(kind.to_owned(), Value::String(name.clone()))]);
        Principal::verified(VerifiedIdentity {
            kind: PrincipalKind::Workload,
            issuer: self.issuer.clone(),
            subject: name.into(),
            evidence: EvidenceKind::ClientCertificate,
            email: None,
            groups: Vec::new(),
            scopes: Vec::new(),
            acr: None,
            amr: Vec::new(),
            authenticated_at: None,
            // As a token's `iat`: replicas agree on it without talking.
            began_at: valid_from,
            expires_at: Some(valid_until),
            environment: None,
            attributes: std::collections::BTreeMap::new(),
            claims,
            fingerprint: sha256(&[fingerprint, self.issuer.as_bytes()].concat()),
        })
    }

    /// The one name of the preferred type. Of two, neither is it.
    fn choose(&self, names: &[GeneralName<'_>]) -> Result<(&'static str, String), IdentityError> {
        let uris: Vec<&str> =
            names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
        let hosts: Vec<&str> = names
            .iter()
            .filter_map(|name| if let GeneralName::DNSName(host) = name { Some(*host) } else { None })
            .collect();
        let (kind, found) = if self.uri && !uris.is_empty() { ("uri", uris) } else { ("dns", hosts) };
        let refused = |detail: &'static str| Err(IdentityError::invalid("certificate_name_refused", detail));
        if kind == "dns" && !self.dns {
            return refused("the client certificate has no name of a type that names a workload");
        }
        match found.as_slice() {
            [] => refused("the client certificate has no name of a type that names a workload"),
            [name] if !is_usable(kind, name) => refused("the client certificate's name is no name of one workload"),
            [name] if kind == "dns" => Ok((kind, name.to_ascii_lowercase())),
            [name] => Ok((kind, (*name).to_owned())),
            _ => refused("the client certificate has several names, and none of them is the one"),
        }
    }
}

/// Visible ASCII that can stand in a principal's id. A wildcard names many; a URI has a scheme.
fn is_usable(kind: &str, name: &str) -> bool {
    let visible = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'|');
    let shaped = match kind {
        "uri" => url::Url::parse(name).is_ok(),
        _ => {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
            letters && name.split('.').all(|label| !label.is_empty())
        }
    };
    visible && shaped && !name.is_empty() && name.len() <= NAME_LIMIT_BYTES
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use http::HeaderMap;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::identity::testing::route;
    use crate::peer::{Downstream, Peer, Scheme, Transport};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    fn certificate(names: Vec<SanType>) -> Arc<ClientCertificate> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(NOW.unix_seconds() + seconds).unwrap();
        (params.not_before, params.not_after) = (at(-60), at(60));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let sha256 = crate::identity::keys::sha256(&der);
        Arc::new(ClientCertificate { der, sha256 })
    }

    fn peer(certificate: Option<Arc<ClientCertificate>>, listener: &str) -> Peer {
        let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let transport = Transport::Tls;
        Peer { address, socket_address: address, listener: listener.into(), transport, tls: None, certificate }
    }

    fn verifier(dns: bool, uri: bool) -> CertificateVerifier {
        let listeners = BTreeSet::from(["public".into()]);
        CertificateVerifier::new(CertificateSettings { issuer: "mesh".into(), listeners, dns, uri })
    }

    fn recognise_at(
        verifier: &CertificateVerifier,
        certificate: Arc<ClientCertificate>,
        now: Timestamp,
    ) -> Result<Arc<Principal>, &'static str> {
        let (headers, route, peer) = (HeaderMap::new(), route(), peer(Some(certificate), "public"));
        let downstream = Downstream { address: peer.address.ip(), scheme: Scheme::Https };
        let presented =
            Presented { method: &http::Method::GET, headers: &headers, peer: &peer, downstream, route: &route, now };
        assert!(verifier.presents(&presented).unwrap());
        verifier.verify(presented).now_or_never().unwrap().map_err(|error| error.code())
    }

    fn recognise(verifier: &CertificateVerifier, names: Vec<SanType>) -> Result<Arc<Principal>, &'static str> {
        recognise_at(verifier, certificate(names), NOW)
    }

    #[test]
    fn one_uri_or_one_dns_name_is_the_workload() {
        let both = verifier(true, true);
        let spiffe = "spiffe://example.org/ns/a/sa/b";
        let principal = recognise(&both, vec![dns("a.example"), dns("b.example"), uri(spiffe)]).unwrap();
        assert_eq!((&**principal.id(), principal.kind), (format!("mesh|{spiffe}").as_str(), PrincipalKind::Workload));
        assert_eq!(principal.claims["uri"], spiffe);
        assert_eq!(&*recognise(&both, vec![dns("API.a.example")]).unwrap().subject, "api.a.example");
        let hosts_only = verifier(true, false);
        assert_eq!(&*recognise(&hosts_only, vec![dns("a.example"), uri(spiffe)]).unwrap().subject, "a.example");
    }

    #[test]
    fn one_certificate_is_two_callers_to_two_issuers_and_shares_nothing_between_them() {
        let shown = certificate(vec![dns("a.example")]);
        let mesh = recognise_at(&verifier(true, true), shown.clone(), NOW).unwrap();
        let listeners = BTreeSet::from(["public".into()]);
        let settings = CertificateSettings { issuer: "partners".into(), listeners, dns: true, uri: true };
        let partner = recognise_at(&CertificateVerifier::new(settings), shown, NOW).unwrap();
        assert_ne!(mesh.id(), partner.id());
        assert_ne!(mesh.fingerprint, partner.fingerprint, "what is remembered of one would serve the other");
    }

    #[test]
    fn several_names_of_the_preferred_type_are_no_name() {
        let refused = Err("certificate_name_refused");
        let two = vec![uri("spiffe://a/1"), uri("spiffe://a/2"), dns("a.example")];
        assert_eq!(recognise(&verifier(true, true), two).map(drop), refused);
        let two = vec![dns("a.example"), dns("b.example")];
        assert_eq!(recognise(&verifier(true, true), two).map(drop), refused);
    }

    #[test]
    fn names_of_another_type_and_names_of_many_are_refused() {
        let refused = Err("certificate_name_refused");
        let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
        assert_eq!(recognise(&verifier(true, true), vec![]).map(drop), refused);
        assert_eq!(recognise(&verifier(true, true), vec![address]).map(drop), refused);
        assert_eq!(recognise(&verifier(false, true), vec![dns("a.example")]).map(drop), refused);
        assert_eq!(recognise(&verifier(true, false), vec![uri("spiffe://a/1")]).map(drop), refused);
        assert_eq!(recognise(&verifier(false, false), vec![dns("a.example"), uri("spiffe://a/1")]).map(drop), refused);
        for name in ["*.a.example", "", ".", "a.example.", "a b", "a|b", "a\nb", "a/b"] {
            assert_eq!(recognise(&verifier(true, true), vec![dns(name)]).map(drop), refused, "{name:?}");
        }
        for name in ["", "workload", "spiffe://a/b|c", "spiffe://a/b c", "/path"] {
            assert_eq!(recognise(&verifier(true, true), vec![uri(name)]).map(drop), refused, "{name:?}");
        }
    }

    #[test]
    fn a_certificate_ends_while_its_connection_lives_on() {
        let (verifier, certificate) = (verifier(true, true), certificate(vec![dns("a.example")]));
        let principal = recognise_at(&verifier, certificate.clone(), NOW).unwrap();
        assert_eq!(principal.expires_at, Some(NOW.plus(Duration::from_secs(61))));
        assert_eq!(principal.began_at, NOW.minus(Duration::from_secs(60)));
        let late = recognise_at(&verifier, certificate.clone(), NOW.plus(Duration::from_secs(61)));
        assert_eq!(late.map(drop), Err("certificate_expired"));
        let early = recognise_at(&verifier, certificate, NOW.minus(Duration::from_secs(61)));
        assert_eq!(early.map(drop), Err("certificate_expired"));
    }

    #[test]
    fn a_certificate_is_evidence_on_the_named_listeners_only() {
        let (headers, route) = (HeaderMap::new(), route());
        let shows = |peer: &Peer| {
            let downstream = Downstream { address: peer.address.ip(), scheme: Scheme::Https };
            verifier(true, true).presents(&Presented {
                method: &http::Method::GET,
                headers: &headers,
                peer,
                downstream,
                route: &route,
                now: NOW,
            })
        };
        let shown = certificate(vec![dns("a.example")]);
        assert!(shows(&peer(Some(shown.clone()), "public")).unwrap());
        assert!(!shows(&peer(Some(shown), "internal")).unwrap());
        assert!(!shows(&peer(None, "public")).unwrap());
    }

    #[test]
    fn a_certificate_with_a_name_that_cannot_be_read_is_refused_though_another_can() {
        let with_names = |names: &[u8]| {
            let mut params = CertificateParams::default();
            let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(NOW.unix_seconds() + seconds).unwrap();
            (params.not_before, params.not_after) = (at(-60), at(60));
            let length = u8::try_from(names.len()).unwrap();
            let content = [&[0x30, length], names].concat();
            params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            let sha256 = crate::identity::keys::sha256(&der);
            recognise_at(&verifier(true, true), Arc::new(ClientCertificate { der, sha256 }), NOW)
        };
        let good = b"\x82\x09a.example";
        assert_eq!(&*with_names(good).unwrap().subject, "a.example");
        // A URI and a DNS name that are no text.
        for unreadable in [b"\x86\x02\xff\xfe", b"\x82\x02\xff\xfe"] {
            let both = [&good[..], unreadable].concat();
            assert_eq!(with_names(&both).map(drop), Err("certificate_malformed"), "{unreadable:x?}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let mut der = certificate(vec![dns("a.example")]).der.clone();
        der.push(0);
        for der in [der, vec![], vec![0x30, 0x80], b"nonsense".to_vec()] {
            let sha256 = crate::identity::keys::sha256(&der);
            let judged = recognise_at(&verifier(true, true), Arc::new(ClientCertificate { der, sha256 }), NOW);
            assert_eq!(judged.map(drop), Err("certificate_malformed"));
        }
    }
}
