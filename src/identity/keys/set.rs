//! One published set of keys (RFC 7517), parsed once; and the choice among them for a token.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::identity::json::parse_object;
use crate::identity::jwt::{Algorithm, Header};

/// Most keys in a set.
const KEYS: usize = 100;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Members that only a private key has. A key that was published with them is anybody's.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// What a key is, and so which algorithms it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Shape {
    const fn serves(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => matches!(self, Self::Rsa),
            Algorithm::ES256 => matches!(self, Self::P256),
            Algorithm::ES384 => matches!(self, Self::P384),
            Algorithm::EdDSA => matches!(self, Self::Ed25519),
        }
    }
}

#[derive(Debug)]
struct VerificationKey {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    shape: Shape,
    key: DecodingKey,
}

impl VerificationKey {
    fn serves(&self, algorithm: Algorithm) -> bool {
        self.shape.serves(algorithm) && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// Why no key of a set vouches for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The set has no key of this id, or none at all for a token without one.
    UnknownKey,
    /// The named key serves other algorithms.
    UnfitKey,
    /// The token names no key, and several could be meant.
    AmbiguousKey,
    /// The signature is not by the key.
    BadSignature,
}

/// Verification keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
}

impl KeySet {
    /// Reads a JWK set. Keys that cannot verify signatures here are passed over, so a set may end up empty.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document = parse_object(bytes).map_err(|fault| format!("the key set is refused: {fault}"))?;
        let Some(listed) = document.get("keys").and_then(Value::as_array) else {
            return Err("the key set has no array `keys`".to_owned());
        };
        if listed.len() > KEYS {
            return Err(format!("the key set holds more than {KEYS} keys"));
        }
        let keys = listed.iter().filter_map(Value::as_object).filter_map(usable_key).collect();
        Ok(Self { keys })
    }

    /// How many usable keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key of this set made `signature` over `signed`.
    pub(super) fn verify(&self, header: &Header, signed: &[u8], signature: &str) -> Result<(), Refusal> {
        let fits = |key: &&VerificationKey| key.serves(header.algorithm);
        let candidates: Vec<&VerificationKey> = match &header.key_id {
            Some(id) => {
                let named: Vec<_> = self.keys.iter().filter(|key| key.id.as_ref() == Some(id)).collect();
                if named.is_empty() {
                    return Err(Refusal::UnknownKey);
                }
                named.into_iter().filter(fits).collect()
            }
            None => {
                let possible: Vec<_> = self.keys.iter().filter(fits).collect();
                match possible.len() {
                    0 => return Err(Refusal::UnknownKey),
                    1 => possible,
                    _ => return Err(Refusal::AmbiguousKey),
                }
            }
        };
        if candidates.is_empty() {
            return Err(Refusal::UnfitKey);
        }
        let algorithm = header.algorithm.for_library();
        let made_by = |candidate: &&VerificationKey| {
            jsonwebtoken::crypto::verify(signature, signed, &candidate.key, algorithm).unwrap_or(false)
        };
        if candidates.iter().any(made_by) { Ok(()) } else { Err(Refusal::BadSignature) }
    }
}

/// Whether a key of this JWK set made the token's signature: what a store says of a set that it fetched.
///
/// # Errors
/// Why the document is no key set.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_made_by(jwks: &[u8], token: &crate::identity::jwt::UnverifiedToken<'_>) -> Result<bool, String> {
    let (signed, signature) = token.signed_and_signature();
    Ok(KeySet::parse(jwks)?.verify(token.header(), signed.as_bytes(), signature).is_ok())
}

fn usable_key(jwk: &Map<String, Value>) -> Option<VerificationKey> {
    if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return None;
    }
    // SPIFFE writes `jwt-svid` where others write `sig` (SPIFFE Trust Domain and Bundle section 4.2.2).
    if jwk.get("use").is_some_and(|purpose| purpose != "sig" && purpose != "jwt-svid") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops")
        && !operations.as_array().is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    {
        return None;
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.to_owned()),
    };
    let algorithm = match jwk.get("alg") {
        None => None,
        Some(name) => Some(name.as_str()?.parse::<Algorithm>().ok()?),
    };
    let bytes = |member: &str| URL_SAFE_NO_PAD.decode(jwk.get(member)?.as_str()?).ok();
    let (shape, key) = match (jwk.get("kty")?.as_str()?, jwk.get("crv").and_then(Value::as_str)) {
        ("RSA", _) => (Shape::Rsa, rsa_key(&bytes("n")?, &bytes("e")?)?),
        ("EC", Some("P-256")) => (Shape::P256, curve_key(&bytes("x")?, &bytes("y")?, Shape::P256)?),
        ("EC", Some("P-384")) => (Shape::P384, curve_key(&bytes("x")?, &bytes("y")?, Shape::P384)?),
        ("OKP", Some("Ed25519")) => (Shape::Ed25519, ed25519_key(&bytes("x")?)?),
        _ => return None,
    };
    algorithm.is_none_or(|algorithm| shape.serves(algorithm)).then_some(VerificationKey { id, algorithm, shape, key })
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Option<DecodingKey> {
    let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
    let bits = modulus.len().checked_mul(8)?.checked_sub(modulus.first()?.leading_zeros() as usize)?;
    let odd = exponent.last().is_some_and(|last| last % 2 == 1);
    let sound = RSA_BITS.contains(&bits) && odd && exponent != [1] && exponent.len() <= 4;
    sound.then(|| DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// Points of an order that divides 8, in every spelling, the sign left out. By such a key anybody signs anything.
const LOW_ORDER: [[u8; 32]; 7] = {
    const fn near_p(first: u8) -> [u8; 32] {
        let mut point = [0xff; 32];
        point[0] = first;
        point[31] = 0x7f;
        point
    }
    let mut one = [0; 32];
    one[0] = 1;
    [
        [0; 32],
        one,
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        near_p(0xec),
        near_p(0xed),
        near_p(0xee),
    ]
};

fn ed25519_key(point: &[u8]) -> Option<DecodingKey> {
    let mut unsigned: [u8; 32] = point.try_into().ok()?;
    if let Some(last) = unsigned.last_mut() {
        *last &= 0x7f;
    }
    ParsedPublicKey::new(&ED25519, point).ok()?;
    (!LOW_ORDER.contains(&unsigned)).then(|| DecodingKey::from_ed_der(point))
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn curve_key(x: &[u8], y: &[u8], shape: Shape) -> Option<DecodingKey> {
    let mut point = vec![4];
    point.extend_from_slice(x);
    point.extend_from_slice(y);
    // Coordinates have their full length (RFC 7518 section 6.2.1.2), and the point lies on the curve.
    let length = if shape == Shape::P256 { 32 } else { 48 };
    if x.len() != length || y.len() != length {
        return None;
    }
    match shape {
        Shape::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()?,
        Shape::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).ok()?,
        Shape::Rsa | Shape::Ed25519 => return None,
    };
    Some(DecodingKey::from_ec_der(&point))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::testing::{Claims, SigningKey, jwks};

    fn usable(jwk: &Value) -> usize {
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap().len()
    }

    fn with(key: &SigningKey, member: &str, value: Value) -> Value {
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().insert(member.to_owned(), value);
        jwk
    }

    fn judge(set: &[Value], token: &str) -> Result<(), Refusal> {
        let set = KeySet::parse(json!({ "keys": set }).to_string().as_bytes()).unwrap();
        let token = crate::identity::jwt::UnverifiedToken::parse(token).unwrap();
        let (signed, signature) = token.signed_and_signature();
        set.verify(token.header(), signed.as_bytes(), signature)
    }

    #[test]
    fn every_kind_of_key_verifies_what_it_signed_and_nothing_else() {
        let keys = [
            SigningKey::es256("a"),
            SigningKey::es384("b"),
            SigningKey::ed25519("c"),
            SigningKey::rsa("d", "RS256"),
            SigningKey::rsa("e", "PS512"),
        ];
        for key in &keys {
            let token = key.sign(&Claims::default());
            assert_eq!(judge(&[key.jwk()], &token), Ok(()), "{}", key.id);
            let (start, signature) = token.rsplit_once('.').unwrap();
            let flipped = if signature.starts_with('A') { "B" } else { "A" };
            let forged = format!("{start}.{flipped}{}", &signature[1..]);
            assert_eq!(judge(&[key.jwk()], &forged), Err(Refusal::BadSignature), "{}", key.id);
        }
    }

    #[test]
    fn a_key_serves_only_algorithms_of_its_own_kind_and_curve() {
        let (p256, p384) = (SigningKey::es256("k"), SigningKey::es384("k"));
        assert_eq!(judge(&[p384.jwk()], &p256.sign(&Claims::default())), Err(Refusal::UnfitKey));
        let rsa = SigningKey::rsa("k", "RS256");
        assert_eq!(judge(&[rsa.jwk()], &p256.sign(&Claims::default())), Err(Refusal::UnfitKey));
        // The key says RS256; a token that asks for PS256 with the same key is refused.
        let token = rsa.sign_as("PS256", &Claims::default());
        assert_eq!(judge(&[rsa.jwk()], &token), Err(Refusal::UnfitKey));
    }

    #[test]
    fn an_unknown_key_id_is_unknown_even_beside_a_fitting_key() {
        let key = SigningKey::es256("a");
        let other = key.named("b");
        assert_eq!(judge(&[other.jwk()], &key.sign(&Claims::default())), Err(Refusal::UnknownKey));
    }

    #[test]
    fn a_token_without_key_id_needs_a_set_with_one_key_for_its_algorithm() {
        let (first, second, rsa) = (SigningKey::es256("a"), SigningKey::es256("b"), SigningKey::rsa("c", "RS256"));
        let token = first.sign_without_key_id(&Claims::default());
        assert_eq!(judge(&[first.jwk(), rsa.jwk()], &token), Ok(()));
        assert_eq!(judge(&[first.jwk(), second.jwk()], &token), Err(Refusal::AmbiguousKey));
        assert_eq!(judge(&[rsa.jwk()], &token), Err(Refusal::UnknownKey));
    }

    #[test]
    fn each_of_several_keys_with_one_id_is_tried() {
        let (first, second, rsa) = (SigningKey::es256("k"), SigningKey::es256("k"), SigningKey::rsa("k", "RS256"));
        let set = [rsa.jwk(), second.jwk(), first.jwk()];
        assert_eq!(judge(&set, &first.sign(&Claims::default())), Ok(()));
        assert_eq!(judge(&set, &SigningKey::es256("k").sign(&Claims::default())), Err(Refusal::BadSignature));
    }

    #[test]
    fn unusable_keys_are_passed_over() {
        let key = SigningKey::es256("a");
        assert_eq!(usable(&key.jwk()), 1);
        for (member, value) in [
            ("use", json!("enc")),
            ("use", json!("x509-svid")),
            ("use", json!(1)),
            ("key_ops", json!(["sign"])),
            ("key_ops", json!("verify")),
            ("alg", json!("HS256")),
            ("alg", json!("RS256")),
            ("alg", json!("none")),
            ("alg", json!(7)),
            ("kid", json!(7)),
            ("kty", json!("oct")),
            ("kty", json!("RSA")),
            ("crv", json!("P-384")),
            ("crv", json!("P-521")),
            ("x", json!("AAAA")),
            ("y", json!(1)),
            ("d", json!("AAAA")),
            ("x", json!(URL_SAFE_NO_PAD.encode([7; 32]))),
        ] {
            assert_eq!(usable(&with(&key, member, value.clone())), 0, "{member}: {value}");
        }
        assert_eq!(usable(&with(&key, "key_ops", json!(["verify"]))), 1);
        assert_eq!(usable(&with(&key, "use", json!("jwt-svid"))), 1);
        assert_eq!(usable(&json!({ "kty": "oct", "k": "AAAA", "kid": "a", "alg": "HS256" })), 0);
        assert_eq!(usable(&json!("not an object")), 0);
    }

    #[test]
    fn rsa_keys_below_2048_bits_or_with_an_odd_exponent_out_of_range_are_passed_over() {
        let rsa = |bytes: usize, first: u8, exponent: &[u8]| {
            let mut modulus = vec![0xff; bytes];
            modulus[0] = first;
            let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
            usable(&json!({ "kty": "RSA", "n": n, "e": e }))
        };
        assert_eq!(rsa(256, 0x80, &[1, 0, 1]), 1);
        assert_eq!(rsa(256, 0x7f, &[1, 0, 1]), 0);
        assert_eq!(rsa(257, 0x00, &[1, 0, 1]), 1);
        assert_eq!(rsa(128, 0xff, &[1, 0, 1]), 0);
        assert_eq!(rsa(1025, 0x01, &[1, 0, 1]), 0);
        for exponent in [&[1][..], &[2], &[0], &[], &[1, 0, 0, 0, 1]] {
            assert_eq!(rsa(256, 0x80, exponent), 0, "{exponent:?}");
        }
    }

    #[test]
    fn a_document_that_is_no_key_set_is_refused() {
        let key = SigningKey::es256("a");
        for wrong in ["<html>", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(KeySet::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let hundred: Vec<_> = std::iter::repeat_n(&key, 100).collect();
        assert_eq!(KeySet::parse(jwks(&hundred).as_bytes()).unwrap().len(), 100);
        let more: Vec<_> = std::iter::repeat_n(&key, 101).collect();
        assert!(KeySet::parse(jwks(&more).as_bytes()).is_err());
    }
}
