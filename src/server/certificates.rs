//! The certificates of a listener and the choice among them by server name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::tls::{CertificateSettings, Pem, TlsError};

/// Chooses by SNI: the exact name, else the wildcard of its parent, else the first certificate.
/// Where two certificates hold one name, the one declared first serves it.
#[derive(Debug)]
pub(super) struct Certificates {
    first: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the parent: `*.example.com` is kept as `example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn load(settings: &[CertificateSettings], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut first = None;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for entry in settings {
            let chain = certificates_in(&entry.certificate)?;
            let names = dns_names(&entry.certificate.name, &chain)?;
            if first.is_some() && names.is_empty() {
                return Err(TlsError::NoName { file: entry.certificate.name.clone() });
            }
            let certified = Arc::new(certified_key(entry, chain, provider)?);
            for name in names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent.to_owned()),
                    None => (&mut exact, name),
                };
                map.entry(key).or_insert_with(|| Arc::clone(&certified));
            }
            first.get_or_insert(certified);
        }
        let first = first.ok_or(TlsError::NoCertificates)?;
        Ok(Self { first, exact, wildcard })
    }

    fn choose(&self, server_name: &str) -> &Arc<CertifiedKey> {
        let name = server_name.trim_end_matches('.').to_ascii_lowercase();
        let by_parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(&name).or_else(by_parent).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.first, |name| self.choose(name))))
    }
}

/// Every certificate of a PEM text; at least one.
pub(super) fn certificates_in(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem.text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| TlsError::Pem { file: pem.name.clone(), source: Box::new(source) })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { file: pem.name.clone() });
    }
    Ok(found)
}

fn certified_key(
    entry: &CertificateSettings,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let file = || entry.key_name.clone();
    // The parser's own error could quote a line of the key.
    let key = PrivateKeyDer::from_pem_slice(entry.key.expose().as_bytes());
    let key = key.map_err(|_| TlsError::NoKey { file: file() })?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|source| TlsError::Key { file: file(), source })?;
    let certified = CertifiedKey::new(chain, key);
    let certificate = || entry.certificate.name.clone();
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { file: file(), certificate: certificate() })
        }
        Err(source) => Err(TlsError::Certificate { file: certificate(), source: Box::new(source) }),
    }
}

/// DNS names of the leaf, lower case.
fn dns_names(file: &str, chain: &[CertificateDer<'_>]) -> Result<Vec<String>, TlsError> {
    let Some(leaf) = chain.first() else {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    };
    let bad = |source: x509_parser::error::X509Error| TlsError::Certificate {
        file: file.to_owned(),
        source: Box::new(source),
    };
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| match error {
        x509_parser::nom::Err::Error(source) | x509_parser::nom::Err::Failure(source) => bad(source),
        x509_parser::nom::Err::Incomplete(_) => bad(x509_parser::error::X509Error::InvalidCertificate),
    })?;
    let Some(extension) = leaf.subject_alternative_name().map_err(bad)? else {
        return Ok(Vec::new());
    };
    let names = extension.value.general_names.iter().filter_map(|name| match *name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::self_signed;
    use super::*;

    fn load(settings: &[CertificateSettings]) -> Result<Certificates, TlsError> {
        Certificates::load(settings, &rustls::crypto::aws_lc_rs::default_provider())
    }

    #[test]
    fn the_exact_name_wins_over_the_wildcard_and_the_first_serves_the_rest() {
        let settings =
            [self_signed(&["first.example"]), self_signed(&["*.example.com"]), self_signed(&["API.example.com"])];
        let loaded = load(&settings).unwrap();
        let leaf = |entry: &CertificateSettings| certificates_in(&entry.certificate).unwrap().remove(0);
        for (name, expected) in [
            ("api.example.com", 2),
            ("Api.Example.Com.", 2),
            ("www.example.com", 1),
            ("a.b.example.com", 0),
            ("example.com", 0),
            ("other.example", 0),
        ] {
            assert_eq!(loaded.choose(name).cert[0], leaf(&settings[expected]), "{name}");
        }
    }

    #[test]
    fn a_faulty_certificate_is_named_with_its_fault() {
        let (good, other) = (self_signed(&["a.example"]), self_signed(&["b.example"]));
        let with = |certificate: &str, key: &str| CertificateSettings {
            certificate: Pem { name: "tls/api.pem".into(), text: certificate.into() },
            key_name: "tls/api.key".into(),
            key: crate::secret::Secret::new(key),
        };
        let (certificate, key) = (good.certificate.text.as_str(), good.key.expose());
        for (settings, expected) in [
            (with("", key), "no certificate in `tls/api.pem`"),
            (with(certificate, ""), "no private key in `tls/api.key`"),
            (with(certificate, other.key.expose()), "the key in `tls/api.key` does not match `tls/api.pem`"),
            (with(&certificate.replace("MII", "AAA"), key), "`tls/api.pem` holds a certificate that cannot be read"),
        ] {
            assert_eq!(load(&[settings]).unwrap_err().to_string(), expected);
        }
        assert_eq!(load(&[]).unwrap_err().to_string(), "no certificate is configured");
        let nameless = load(&[good, self_signed(&[])]).unwrap_err();
        assert!(matches!(nameless, TlsError::NoName { .. }), "{nameless}");
    }
}
