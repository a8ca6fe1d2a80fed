//! Project Wycheproof's signatures, verified as those of tokens are: by a key of a JWK set, in a JWS's encoding.
//!
//! It has no set for JOSE. A JWS signs text, and these sign bytes, so they come in below the token's form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

use crate::identity::jwt::{Algorithm, Header};
use crate::identity::keys::set::KeySet;

/// What became of a set's vectors.
#[derive(Debug, Default)]
struct Tally {
    valid: usize,
    invalid: usize,
    acceptable: usize,
    faults: Vec<String>,
}

impl Tally {
    fn judge(&mut self, jwk: &Value, algorithm: Algorithm, vector: &Vector<'_>) {
        let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        let header = Header { algorithm, key_id: None, media_type: None };
        let is_made = set.verify(&header, vector.message, &URL_SAFE_NO_PAD.encode(vector.signature)).is_ok();
        let expected = match vector.result {
            TestResult::Valid => {
                self.valid += 1;
                true
            }
            TestResult::Invalid => {
                self.invalid += 1;
                false
            }
            TestResult::Acceptable => {
                self.acceptable += 1;
                // The hash's parameters are left out. RFC 8017 appendix A.2.4 lets no signer do that.
                assert!(vector.flags.contains("MissingNull"), "{}: {}", vector.id, vector.flags);
                false
            }
        };
        if is_made != expected {
            self.faults.push(format!("{algorithm} {}: {}, {}", vector.id, vector.comment, vector.flags));
        }
    }

    /// Fails unless there were so many vectors, good and bad ones, and each was judged right.
    fn holds(&self, name: &str, vectors: usize) {
        assert!(self.faults.is_empty(), "{name}: {:#?}", self.faults);
        assert_eq!(self.valid + self.invalid + self.acceptable, vectors, "{name}: {self:?}");
        assert!(self.valid > 0 && self.invalid > 0, "{name}: {self:?}");
    }
}

struct Vector<'a> {
    id: usize,
    comment: &'a str,
    flags: String,
    message: &'a [u8],
    signature: &'a [u8],
    result: TestResult,
}

/// The same of each set's own type of vector.
macro_rules! vector {
    ($test:expr) => {
        Vector {
            id: $test.tc_id,
            comment: &$test.comment,
            flags: format!("{:?}", $test.flags),
            message: &$test.msg,
            signature: &$test.sig,
            result: $test.result,
        }
    };
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn ecdsa_signatures_are_judged_as_wycheproof_says() {
    use ecdsa::TestName::{EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384P1363};
    for (name, algorithm, curve, vectors) in [
        (EcdsaSecp256r1Sha256P1363, Algorithm::ES256, "P-256", 252),
        (EcdsaSecp384r1Sha384P1363, Algorithm::ES384, "P-384", 270),
    ] {
        let mut tally = Tally::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let (x, y) = group.key.key[1..].split_at(group.key.key.len() / 2);
            let jwk = json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) });
            group.tests.iter().for_each(|test| tally.judge(&jwk, algorithm, &vector!(test)));
        }
        tally.holds(algorithm.as_str(), vectors);
    }
}

#[test]
fn ed25519_signatures_are_judged_as_wycheproof_says() {
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(&group.key.pk) });
        group.tests.iter().for_each(|test| tally.judge(&jwk, Algorithm::EdDSA, &vector!(test)));
    }
    tally.holds("EdDSA", 150);
}

#[test]
fn rsa_signatures_of_pkcs1_are_judged_as_wycheproof_says() {
    use rsa_pkcs1_verify::TestName as Name;
    for (algorithm, names, vectors) in [
        (
            Algorithm::RS256,
            [Name::Rsa2048Sha256, Name::Rsa3072Sha256, Name::Rsa4096Sha256, Name::Rsa8192Sha256],
            259 + 259 + 258 + 258,
        ),
        (
            Algorithm::RS384,
            [Name::Rsa2048Sha384, Name::Rsa3072Sha384, Name::Rsa4096Sha384, Name::Rsa8192Sha384],
            258 + 259 + 259 + 259,
        ),
        (
            Algorithm::RS512,
            [Name::Rsa2048Sha512, Name::Rsa3072Sha512, Name::Rsa4096Sha512, Name::Rsa8192Sha512],
            259 + 260 + 259 + 259,
        ),
    ] {
        let mut tally = Tally::default();
        for group in names.into_iter().flat_map(|name| rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups) {
            let jwk = json!({ "kty": "RSA", "n": encoded(&group.key.n), "e": encoded(&group.key.e) });
            group.tests.iter().for_each(|test| tally.judge(&jwk, algorithm, &vector!(test)));
        }
        tally.holds(algorithm.as_str(), vectors);
        assert_eq!(tally.acceptable, 4, "one a set");
    }
}

#[test]
fn rsa_signatures_of_pss_are_judged_as_wycheproof_says() {
    use rsa_pss_verify::TestName as Name;
    for (algorithm, names, vectors) in [
        (
            Algorithm::PS256,
            &[
                Name::RsaPss2048Sha256Mgf1SaltLen32,
                Name::RsaPss3072Sha256Mgf1SaltLen32,
                Name::RsaPss4096Sha256Mgf1SaltLen32,
            ][..],
            3 * 108,
        ),
        (Algorithm::PS384, &[Name::RsaPss2048Sha384Mgf1SaltLen48, Name::RsaPss4096Sha384Mgf1SaltLen48], 2 * 141),
        (Algorithm::PS512, &[Name::RsaPss4096Sha512Mgf1SaltLen64], 179),
    ] {
        let mut tally = Tally::default();
        for group in names.iter().flat_map(|name| rsa_pss_verify::TestSet::load(*name).unwrap().test_groups) {
            let jwk = json!({ "kty": "RSA", "n": encoded(&group.key.n), "e": encoded(&group.key.e) });
            group.tests.iter().for_each(|test| tally.judge(&jwk, algorithm, &vector!(test)));
        }
        tally.holds(algorithm.as_str(), vectors);
    }
}

#[test]
fn a_signature_of_pss_with_another_salt_or_mask_than_a_jws_has_is_refused() {
    use rsa_pss_verify::TestName as Name;
    // RFC 7518 section 3.5: the salt is as long as the hash, and the mask is made by the same hash.
    for (algorithm, name, vectors) in [
        (Algorithm::PS256, Name::RsaPss2048Sha256Mgf1SaltLen0, 61),
        (Algorithm::PS256, Name::RsaPss2048Sha256Mgf1Sha1_20, 63),
        (Algorithm::PS512, Name::RsaPss4096Sha512Mgf1SaltLen32, 132),
    ] {
        let mut tally = Tally::default();
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let jwk = json!({ "kty": "RSA", "n": encoded(&group.key.n), "e": encoded(&group.key.e) });
            // Those that are sound by their own parameters.
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                tally.judge(&jwk, algorithm, &Vector { result: TestResult::Invalid, ..vector!(test) });
            }
        }
        assert!(tally.faults.is_empty(), "{name:?}: {:#?}", tally.faults);
        assert_eq!(tally.invalid, vectors, "{name:?}");
    }
}

#[test]
fn an_ed25519_key_by_which_anybody_signs_is_passed_over() {
    let usable = |point: [u8; 32]| {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(point) });
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap().len()
    };
    let point = |first: u8, middle: u8, last: u8| {
        let mut point = [middle; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    let group = &eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups[0];
    let mut eighth: [u8; 32] = std::array::from_fn(|at| {
        let digits = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
        u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()
    });
    assert_eq!(usable(group.key.pk.to_vec().try_into().unwrap()), 1);
    for low in [
        point(0, 0, 0),
        point(0, 0, 0x80),
        point(1, 0, 0),
        point(1, 0, 0x80),
        point(0xec, 0xff, 0x7f),
        point(0xec, 0xff, 0xff),
        point(0xed, 0xff, 0x7f),
        point(0xed, 0xff, 0xff),
        point(0xee, 0xff, 0x7f),
        point(0xee, 0xff, 0xff),
        eighth,
    ] {
        assert_eq!(usable(low), 0, "{low:02x?}");
    }
    eighth[31] |= 0x80;
    assert_eq!(usable(eighth), 0);
}
