//! A certificate and its key by which Doorward is the client of a TLS server.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroize as _;

use crate::clock::Timestamp;
use crate::hex::hex;

/// A client certificate with its chain and its private key, which belong together. `Debug` shows no key.
///
/// Two are equal when they show the same chain.
#[derive(Clone)]
pub struct ClientIdentity {
    certified: Arc<CertifiedKey>,
    fingerprint: [u8; 32],
    serial: Arc<str>,
    begins_at: Timestamp,
    expires_at: Timestamp,
}

/// Why a certificate and a key are no identity. Shows nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdentityError {
    /// Nothing to show.
    #[error("there is no certificate")]
    NoCertificate,
    /// No X.509 certificate.
    #[error("the certificate is malformed")]
    Certificate,
    /// The certificate's extended key usage leaves clients out (RFC 5280 section 4.2.1.12).
    #[error("the certificate is not one for TLS clients")]
    Purpose,
    /// No private key of a kind that TLS can use.
    #[error("there is no private key that can be used")]
    Key,
    /// Certificate and key are of two pairs.
    #[error("the private key is not the certificate's")]
    Mismatch,
}

impl ClientIdentity {
    /// An identity by `chain`, leaf first, and the leaf's `key`, whose text is wiped.
    ///
    /// # Errors
    /// [`ClientIdentityError`]. Its validity in time is for [`ClientIdentity::serves`] to say.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        mut key: PrivateKeyDer<'static>,
    ) -> Result<Self, ClientIdentityError> {
        // What it gives holds a key of the library's own, which wipes itself.
        let signing_key = any_supported_type(&key);
        key.zeroize();
        let signing_key = signing_key.map_err(|_| ClientIdentityError::Key)?;
        let leaf = chain.first().ok_or(ClientIdentityError::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| ClientIdentityError::Certificate)?;
        let usage = parsed.extended_key_usage().map_err(|_| ClientIdentityError::Certificate)?;
        if usage.is_some_and(|usage| !usage.value.client_auth && !usage.value.any) {
            return Err(ClientIdentityError::Purpose);
        }
        let fingerprint = fingerprint(leaf);
        // DER begins a number with a zero byte where it would be negative else; nobody prints that.
        let serial = match parsed.raw_serial() {
            [0, rest @ ..] if !rest.is_empty() => hex(rest),
            whole => hex(whole),
        };
        let (begins_at, expires_at) = validity(&parsed);
        let certified = CertifiedKey::new(chain, signing_key);
        certified.keys_match().map_err(|_| ClientIdentityError::Mismatch)?;
        Ok(Self { certified: Arc::new(certified), fingerprint, serial: serial.into(), begins_at, expires_at })
    }

    /// An identity by PEM texts: certificates, leaf first, and a private key.
    ///
    /// # Errors
    /// [`ClientIdentityError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ClientIdentityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|_| ClientIdentityError::Certificate)?;
        Self::new(chain, PrivateKeyDer::from_pem_slice(key).map_err(|_| ClientIdentityError::Key)?)
    }

    /// Chain and key, as TLS takes them.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// SHA-256 of the leaf certificate.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The leaf's serial number, in hexadecimal digits: its public identifier.
    #[must_use]
    pub fn serial(&self) -> &Arc<str> {
        &self.serial
    }

    /// When the leaf certificate ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether the leaf certificate is valid at `now`.
    #[must_use]
    pub fn serves(&self, now: Timestamp) -> bool {
        self.begins_at <= now && now < self.expires_at
    }
}

/// The key is the leaf's, so the chain tells.
impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.chain() == other.chain()
    }
}

impl Eq for ClientIdentity {}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientIdentity").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate, by which others know it too.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest(&SHA256, certificate).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// From when until when a certificate is valid.
#[must_use]
pub fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let validity = certificate.validity();
    let at = |time: &x509_parser::time::ASN1Time| Timestamp::from_unix_seconds(time.timestamp());
    // A certificate is valid through the second that it names (RFC 5280 section 4.1.2.5); not relied on.
    (at(&validity.not_before), at(&validity.not_after))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        change(&mut parameters);
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_an_identity_and_nothing_else_is() {
        let (certificate, key) = pair(|_| {});
        let (other, _) = pair(|_| {});
        let (server, server_key) =
            pair(|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let read = |chain: &str, key: &str| ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).map(drop);
        assert_eq!(read(&certificate, &key), Ok(()));
        assert_eq!(read(&other, &key), Err(ClientIdentityError::Mismatch));
        assert_eq!(read("", &key), Err(ClientIdentityError::NoCertificate));
        assert_eq!(read(&certificate, &certificate), Err(ClientIdentityError::Key));
        assert_eq!(read(&server, &server_key), Err(ClientIdentityError::Purpose));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(read(nonsense, &key), Err(ClientIdentityError::Certificate));
    }

    #[test]
    fn it_serves_between_its_two_ends_and_does_not_print_its_key() {
        let (certificate, key) = pair(|parameters| {
            parameters.not_before = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
            parameters.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_060).unwrap();
            parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x81, 0x02]));
        });
        let identity = ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_800_000_000 + seconds);
        let serves = [-1, 0, 59, 60].map(|seconds| identity.serves(at(seconds)));
        assert_eq!((serves, identity.expires_at()), ([false, true, true, false], at(60)));
        assert_eq!(format!("{identity:?}"), "ClientIdentity { serial: \"8102\", .. }");
        assert_eq!(*identity.fingerprint(), fingerprint(&identity.chain()[0]));
    }

    #[test]
    fn the_same_leaf_with_another_chain_behind_it_is_another_identity() {
        let (certificate, key) = pair(|_| {});
        let (issuer, _) = pair(|_| {});
        let read = |chain: &str| ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(read(&certificate), read(&certificate));
        assert_ne!(read(&certificate), read(&format!("{certificate}{issuer}")));
    }
}
