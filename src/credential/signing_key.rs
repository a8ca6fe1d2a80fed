//! One signing key: made, parsed, used, and shown as a JWK (RFC 7517) under its thumbprint (RFC 7638).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// How assertions are signed (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256: 26 µs a signature.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 bits: most of a millisecond a signature.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// Every algorithm, in the order of their documents: some readers look at the first key only, and can use no other
    /// than an RSA key with a certificate.
    pub const ALL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// Name in the `alg` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// The public half of a key, as a JWK's own members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty", deny_unknown_fields)]
pub(super) enum PublicKey {
    #[serde(rename = "EC")]
    Elliptic { crv: String, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

impl PublicKey {
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Elliptic { .. } => Algorithm::Es256,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// RFC 7638: SHA-256 of the required members in the order of their names, without white space.
    pub(super) fn thumbprint(&self) -> String {
        let members = match self {
            Self::Elliptic { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
    }
}

enum Pair {
    Elliptic(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A key that signs. `Debug` shows its public identifier only.
pub struct SigningKey {
    kid: Arc<str>,
    algorithm: Algorithm,
    public: PublicKey,
    pair: Pair,
    private: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The cryptographic library could not do it, or the bytes are no key of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refused")]
pub struct Refused;

impl SigningKey {
    /// A new key. RSA takes up to a second: not for an asynchronous thread.
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self, Refused> {
        let private = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Refused)?;
                pair.to_pkcs8v1().map_err(|_| Refused)?.as_ref().to_vec()
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| Refused)?;
                let document: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| Refused)?;
                document.as_ref().to_vec()
            }
        };
        Self::from_pkcs8(algorithm, Zeroizing::new(private))
    }

    /// The key in a PKCS#8 document.
    pub(super) fn from_pkcs8(algorithm: Algorithm, private: Zeroizing<Vec<u8>>) -> Result<Self, Refused> {
        let (pair, public) = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).map_err(|_| Refused)?;
                // SEC 1, section 2.3.3: 0x04, x, y.
                let (x, y) = match pair.public_key().as_ref().split_first() {
                    Some((4, point)) if point.len() == 64 => point.split_at(32),
                    Some(_) | None => return Err(Refused),
                };
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                (Pair::Elliptic(pair), PublicKey::Elliptic { crv: "P-256".to_owned(), x, y })
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(&private).map_err(|_| Refused)?;
                if pair.public_modulus_len() < 256 {
                    return Err(Refused);
                }
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (URL_SAFE_NO_PAD.encode(public.n), URL_SAFE_NO_PAD.encode(public.e));
                (Pair::Rsa(pair), PublicKey::Rsa { n, e })
            }
        };
        Ok(Self { kid: public.thumbprint().into(), algorithm, public, pair, private })
    }

    /// Identifier in JWT headers and in the published key set.
    #[must_use]
    pub fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// The one algorithm that this key is used with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A certificate of the key by itself, DER in base64, for readers that take a key from `x5c` alone (RFC 7517
    /// section 4.7). It says nothing but the key, and is the same whenever it is made: some pin its thumbprint. `None`
    /// for keys that nobody reads so.
    pub(super) fn certificate(&self) -> Option<String> {
        if self.algorithm != Algorithm::Rs256 {
            return None;
        }
        let private = PrivatePkcs8KeyDer::from(self.private.as_slice());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&private, &rcgen::PKCS_RSA_SHA256).ok()?;
        let mut certificate = rcgen::CertificateParams::default();
        certificate.distinguished_name = rcgen::DistinguishedName::new();
        certificate.distinguished_name.push(rcgen::DnType::CommonName, &*self.kid);
        let digest = digest(&SHA256, self.kid.as_bytes());
        // Positive, and short enough (RFC 5280 section 4.1.2.2).
        let serial: Vec<u8> = [1].iter().chain(digest.as_ref().iter().take(15)).copied().collect();
        certificate.serial_number = Some(serial.into());
        certificate.not_before = rcgen::date_time_ymd(2020, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(9999, 12, 31);
        Some(STANDARD.encode(certificate.self_signed(&pair).ok()?.der()))
    }

    pub(super) const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn private(&self) -> &[u8] {
        &self.private
    }

    /// A JWS signature of `message` (RFC 7518, sections 3.3 and 3.4).
    ///
    /// # Errors
    /// [`Refused`]
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        match &self.pair {
            Pair::Elliptic(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| Refused)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| Refused)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_7638() {
        // The example of RFC 7638, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = PublicKey::Rsa { n: n.to_owned(), e: "AQAB".to_owned() };
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_is_the_same_after_a_round_trip_and_never_prints_its_private_half() {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let again = SigningKey::from_pkcs8(Algorithm::Es256, Zeroizing::new(key.private().to_vec())).unwrap();
        assert_eq!((key.kid(), key.public()), (again.kid(), again.public()));
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ kid: {:?}, .. }}", key.kid()));
    }

    #[test]
    fn the_certificate_of_a_key_is_the_same_whenever_it_is_made() {
        let key = SigningKey::generate(Algorithm::Rs256).unwrap();
        let again = SigningKey::from_pkcs8(Algorithm::Rs256, Zeroizing::new(key.private().to_vec())).unwrap();
        let certificate = key.certificate().unwrap();
        assert_eq!(Some(&certificate), again.certificate().as_ref());
        let der = STANDARD.decode(certificate).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let x509_parser::public_key::PublicKey::RSA(public) = parsed.public_key().parsed().unwrap() else {
            panic!("an RSA key")
        };
        let PublicKey::Rsa { n, .. } = key.public() else { panic!("an RSA key") };
        assert_eq!(URL_SAFE_NO_PAD.encode(public.modulus.strip_prefix(&[0]).unwrap_or(public.modulus)), *n);
        assert_eq!(SigningKey::generate(Algorithm::Es256).unwrap().certificate(), None);
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let private = Zeroizing::new(key.private().to_vec());
        assert_eq!(SigningKey::from_pkcs8(Algorithm::Rs256, private).unwrap_err(), Refused);
    }
}
