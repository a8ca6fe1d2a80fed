//! An embedded certificate authority that mints client certificates of minutes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroize as _;

use super::ClientIdentity;
use crate::clock::Timestamp;
use crate::outbound::{fingerprint, validity};
use crate::secret::Secret;

/// Shortest life of a leaf.
pub const SHORTEST_LEAF: Duration = Duration::from_secs(60);
/// Longest life of a leaf.
pub const LONGEST_LEAF: Duration = Duration::from_secs(24 * 3600);
/// Characters of a common name, at most (`ub-common-name`, RFC 5280 appendix A.1).
pub const LONGEST_COMMON_NAME: usize = 64;
/// Upstreams whose clocks are behind still take a new leaf.
const BACKDATED: Duration = Duration::from_secs(60);

/// What a leaf says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its one subject alternative name, a URI of ASCII.
    pub uri: Arc<str>,
    /// The common name of its subject; without one the subject is empty.
    pub common_name: Option<Arc<str>>,
    /// How long it is to live; never beyond its authority.
    pub lifetime: Duration,
}

/// A certificate authority's certificate and key. `Debug` shows no key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, WipedKey>,
    /// Its own certificate, then those of the authorities above it.
    chain: Vec<CertificateDer<'static>>,
    begins_at: Timestamp,
    /// The earliest end in the chain.
    expires_at: Timestamp,
    fingerprint: [u8; 32],
}

/// Why files make no certificate authority. Shows nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No certificate, or one that is malformed.
    #[error("there is no certificate that can be read")]
    Certificate,
    /// Basic constraints say no (RFC 5280 section 4.2.1.9).
    #[error("the certificate is not one of an authority")]
    NoAuthority,
    /// Key usage leaves signing certificates out (RFC 5280 section 4.2.1.3).
    #[error("the certificate's key usage does not allow it to sign certificates")]
    Usage,
    /// Out of its time.
    #[error("a certificate of the chain is not valid now: it begins at {begins} and ends at {ends}")]
    Time {
        /// RFC 3339.
        begins: String,
        /// RFC 3339.
        ends: String,
    },
    /// The certificates that follow do not lead upwards.
    #[error("certificate {0} of the file is not of the authority above the one before it")]
    Chain(usize),
    /// No usable private key.
    #[error("there is no private key that can sign certificates")]
    Key,
    /// Certificate and key are of two pairs.
    #[error("the private key is not the certificate's")]
    Mismatch,
    /// The name cannot be written into leaves byte by byte as it stands.
    #[error("the authority's name holds a part twice, or in a form that leaves cannot repeat")]
    Name,
    /// A leaf of this authority would not be taken.
    #[error("a certificate that it signs does not verify: {0}")]
    Trial(String),
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateAuthority").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// An authority by PEM texts: its certificate, then those above it, and its private key in PKCS #8 or SEC 1.
    /// `trial` is what one of its leaves may say: one is signed and verified before the authority is believed.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn from_pem(certificates: &[u8], key: &Secret, trial: &Leaf, now: Timestamp) -> Result<Self, AuthorityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(|_| AuthorityError::Certificate)?;
        let own = chain.first().ok_or(AuthorityError::Certificate)?;
        let mut parsed = Vec::with_capacity(chain.len());
        for certificate in &chain {
            let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| AuthorityError::Certificate)?;
            parsed.push(certificate);
        }
        let (begins_at, expires_at) = span(&parsed, now)?;
        let authority = parsed.first().ok_or(AuthorityError::Certificate)?;
        may_sign(authority)?;
        // An empty part is no name, and the library that writes leaves would stop at it.
        if authority.subject().iter().any(|part| part.iter().next().is_none()) {
            return Err(AuthorityError::Name);
        }
        let mut text = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| AuthorityError::Key)?;
        let key = KeyPair::try_from(&text).map(WipedKey);
        text.zeroize();
        let key = key.map_err(|_| AuthorityError::Key)?;
        if authority.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(own, key).map_err(|_| AuthorityError::Name)?;
        let fingerprint = fingerprint(own);
        let made = Self { issuer, fingerprint, begins_at, expires_at, chain: chain.clone() };
        let leaf = made.mint(trial, now).map_err(AuthorityError::Trial)?;
        made.try_out(&leaf, authority, now)?;
        Ok(made)
    }

    /// A new certificate with a new P-256 key. Takes a signature's time, which for RSA is milliseconds.
    ///
    /// # Errors
    /// Why it cannot be minted, for people.
    pub fn mint(&self, leaf: &Leaf, now: Timestamp) -> Result<ClientIdentity, String> {
        if now >= self.expires_at {
            return Err(format!("the certificate authority ended at {}", self.expires_at.rfc3339()));
        }
        let failed = |error: rcgen::Error| format!("no certificate can be written: {error}");
        let key = WipedKey(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?);
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        if let Some(name) = &leaf.common_name {
            parameters.distinguished_name.push(DnType::CommonName, &**name);
        }
        parameters.subject_alt_names = vec![SanType::URI(leaf.uri.to_string().try_into().map_err(failed)?)];
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        parameters.serial_number = Some(serial_number()?);
        let (begins, ends) = (now.minus(BACKDATED).max(self.begins_at), now.plus(leaf.lifetime).min(self.expires_at));
        (parameters.not_before, parameters.not_after) = (date(begins)?, date(ends)?);
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        let mut chain = Vec::with_capacity(self.chain.len() + 1);
        chain.push(certificate.der().clone());
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.0.serialize_der()));
        ClientIdentity::new(chain, key).map_err(|error| error.to_string())
    }

    /// SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// When it ends, and its leaves with it.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Verifies `leaf` as an upstream would that trusts this authority alone.
    fn try_out(
        &self,
        leaf: &ClientIdentity,
        authority: &X509Certificate<'_>,
        now: Timestamp,
    ) -> Result<(), AuthorityError> {
        let failed = |error: &dyn fmt::Display| AuthorityError::Trial(error.to_string());
        let (own, leaf) = (self.chain.first(), leaf.chain().first());
        let (own, leaf) = own.zip(leaf).ok_or(AuthorityError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| failed(&error))?;
        // Verifiers compare names byte by byte.
        if parsed.issuer().as_raw() != authority.subject().as_raw() {
            return Err(AuthorityError::Name);
        }
        let mut roots = RootCertStore::empty();
        roots.add(own.clone()).map_err(|error| failed(&error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| failed(&error))?;
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier.verify_client_cert(leaf, &[], time).map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// A key whose text is wiped when it is dropped, as the library's own does not do by itself.
struct WipedKey(KeyPair);

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for WipedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for WipedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// When all of a chain is valid.
fn span(chain: &[X509Certificate<'_>], now: Timestamp) -> Result<(Timestamp, Timestamp), AuthorityError> {
    let mut span = (Timestamp::default(), Timestamp::MAX);
    for (number, certificate) in chain.iter().enumerate() {
        if let Some(below) = number.checked_sub(1).and_then(|index| chain.get(index))
            && below.issuer().as_raw() != certificate.subject().as_raw()
        {
            return Err(AuthorityError::Chain(number + 1));
        }
        let (begins, ends) = validity(certificate);
        if now < begins || now >= ends {
            return Err(AuthorityError::Time { begins: begins.rfc3339(), ends: ends.rfc3339() });
        }
        span = (span.0.max(begins), span.1.min(ends));
    }
    Ok(span)
}

fn may_sign(authority: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    if !authority.is_ca() {
        return Err(AuthorityError::NoAuthority);
    }
    let usage = authority.key_usage().map_err(|_| AuthorityError::Certificate)?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) { Err(AuthorityError::Usage) } else { Ok(()) }
}

/// 126 random bits in 16 bytes. The first two bits are set so that DER neither adds a byte nor leaves one out, and the
/// number reads the same everywhere.
fn serial_number() -> Result<SerialNumber, String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "there is no randomness for a serial number".to_owned())?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(at: Timestamp) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(at.unix_seconds()).map_err(|_| "its time is no date".to_owned())
}
