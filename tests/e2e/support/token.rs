//! Tokens with any header and any claims, well signed or not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Map, Value, json};

use super::{now, secrets};

/// Base64url without padding, as in a JWT.
pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that an issuer signs with.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    public_pem: String,
}

impl SigningKey {
    pub(crate) fn es256(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { id: id.to_owned(), algorithm: Algorithm::ES256, key, public_pem: pair.public_key_pem() }
    }

    pub(crate) fn rs256(id: &str) -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id: id.to_owned(), algorithm: Algorithm::RS256, key, public_pem: pair.public_key_pem() }
    }

    /// A shared secret, which no issuer of ours has.
    pub(crate) fn hs256(id: &str, secret: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret),
            public_pem: String::new(),
        }
    }

    /// The public half, as a JWKS holds it.
    pub(crate) fn public(&self) -> Value {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        key["kid"] = json!(self.id);
        key["use"] = json!("sig");
        key["alg"] = json!(format!("{:?}", self.algorithm));
        key
    }

    /// The public half as PEM.
    pub(crate) fn public_pem(&self) -> String {
        self.public_pem.clone()
    }

    /// Signs `header.payload`, both given as JSON text, so that even ill-formed JSON can be signed.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        secrets::mark(&signature);
        format!("{signed}.{signature}")
    }
}

/// A token in the making. Begins as a good one; each method spoils or changes something.
#[derive(Clone)]
pub(crate) struct TokenDraft {
    pub(crate) key: SigningKey,
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
}

impl TokenDraft {
    /// A good token of `issuer` for `audience`, good for five minutes.
    pub(crate) fn new(key: SigningKey, issuer: &str, audience: &str) -> Self {
        let header = json!({ "alg": format!("{:?}", key.algorithm), "typ": "at+jwt", "kid": key.id });
        let claims = json!({
            "iss": issuer, "aud": audience, "sub": "machine-1", "client_id": "machine-1", "jti": uuid(),
            "iat": now(), "exp": now() + 300, "groups": ["readers"],
        });
        Self { key, header: object(header), claims: object(claims) }
    }

    pub(crate) fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    pub(crate) fn groups(self, groups: &[&str]) -> Self {
        self.claim("groups", groups)
    }

    /// Sets a claim.
    pub(crate) fn claim(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.claims.insert(name.to_owned(), serde_json::to_value(value).unwrap());
        self
    }

    pub(crate) fn without_claim(mut self, name: &str) -> Self {
        assert!(self.claims.remove(name).is_some(), "there was no claim {name}");
        self
    }

    /// Sets a header parameter.
    pub(crate) fn header(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.header.insert(name.to_owned(), serde_json::to_value(value).unwrap());
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        assert!(self.header.remove(name).is_some(), "there was no header {name}");
        self
    }

    /// Signs with another key, leaving the header as it is.
    pub(crate) fn signed_by(mut self, key: &SigningKey) -> Self {
        self.key = key.clone();
        self
    }

    pub(crate) fn header_text(&self) -> String {
        serde_json::to_string(&self.header).unwrap()
    }

    pub(crate) fn claims_text(&self) -> String {
        serde_json::to_string(&self.claims).unwrap()
    }

    /// The compact token.
    pub(crate) fn mint(&self) -> String {
        self.key.sign(&self.header_text(), &self.claims_text())
    }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("not an object") };
    map
}

/// A text that no other test uses.
pub(crate) fn uuid() -> String {
    ::uuid::Uuid::new_v4().to_string()
}
