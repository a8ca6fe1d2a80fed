//! Keys and tokens for tests: minted anew each time, never stored.
#![cfg_attr(fuzzing, allow(dead_code, reason = "the fuzzer needs a part of it"))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::identity::{Principal, PrincipalKind, VerifiedIdentity};
use crate::route::{Accepts, Access, Cors, EvidenceKind, HostPattern, LoginRequirement, PathMode, Route, RouteLimits};

/// A signing key of a test's issuer.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) algorithm: &'static str,
    signing: EncodingKey,
    public: Arc<Value>,
}

/// Claims of a test's token.
#[derive(Clone, Debug)]
pub(crate) struct Claims(pub(crate) Value);

impl Default for Claims {
    fn default() -> Self {
        Self(json!({ "iss": "https://issuer.example", "sub": "u1" }))
    }
}

impl SigningKey {
    pub(crate) fn es256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        Self::on_curve(id, "ES256", "P-256", pkcs8.as_ref(), pair.public_key().as_ref())
    }

    pub(crate) fn es384(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        Self::on_curve(id, "ES384", "P-384", pkcs8.as_ref(), pair.public_key().as_ref())
    }

    pub(crate) fn ed25519(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let signing = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
        let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref()) });
        Self { id: id.to_owned(), algorithm: "EdDSA", signing, public: Arc::new(public) }
    }

    pub(crate) fn rsa(id: &str, algorithm: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let public = json!({ "kty": "RSA", "n": encoded(&parts.n), "e": encoded(&parts.e) });
        // Of DER the library takes the inner PKCS#1 key only; of PEM it takes PKCS#8 too.
        let armoured = STANDARD.encode(pkcs8.as_ref());
        let lines: Vec<&str> = armoured.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let label = "PRIVATE KEY";
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
        let signing = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { id: id.to_owned(), algorithm, signing, public: Arc::new(public) }
    }

    fn on_curve(id: &str, algorithm: &'static str, curve: &str, pkcs8: &[u8], point: &[u8]) -> Self {
        let (x, y) = point[1..].split_at(point.len() / 2);
        let public = json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) });
        Self { id: id.to_owned(), algorithm, signing: EncodingKey::from_ec_der(pkcs8), public: Arc::new(public) }
    }

    /// The same key under another id.
    pub(crate) fn named(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    /// The public key as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = (*self.public).clone();
        jwk["kid"] = json!(self.id);
        jwk["alg"] = json!(self.algorithm);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token of these claims.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        self.sign_as(self.algorithm, claims)
    }

    /// A token whose header asks for this algorithm.
    pub(crate) fn sign_as(&self, algorithm: &str, claims: &Claims) -> String {
        self.sign_with_header(&json!({ "alg": algorithm, "kid": self.id, "typ": "JWT" }), claims)
    }

    /// A token whose header names no key.
    pub(crate) fn sign_without_key_id(&self, claims: &Claims) -> String {
        self.sign_with_header(&json!({ "alg": self.algorithm }), claims)
    }

    /// A token with this header and this payload, which may be any text.
    pub(crate) fn sign_text(&self, header: &Value, payload: &str) -> String {
        let algorithm = header["alg"].as_str().unwrap().parse().unwrap();
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(payload));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.signing, algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    /// A token with this header, signed by the algorithm that it names.
    pub(crate) fn sign_with_header(&self, header: &Value, claims: &Claims) -> String {
        self.sign_text(header, &claims.0.to_string())
    }
}

/// A JWK set.
pub(crate) fn jwks(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The caller `ci|web`, by a token of an hour.
pub(crate) fn workload(began_at: Timestamp) -> Arc<Principal> {
    Arc::new(Principal::verified(VerifiedIdentity {
        kind: PrincipalKind::Workload,
        issuer: "ci".into(),
        subject: "web".into(),
        evidence: EvidenceKind::Bearer,
        email: None,
        groups: Vec::new(),
        scopes: Vec::new(),
        acr: None,
        amr: Vec::new(),
        authenticated_at: None,
        began_at,
        expires_at: Some(began_at.plus(Duration::from_secs(3600))),
        environment: None,
        attributes: BTreeMap::new(),
        claims: serde_json::Map::new(),
        fingerprint: [7; 32],
    }))
}

/// A route that takes every kind of evidence.
pub(crate) fn route() -> Route {
    let kinds = [EvidenceKind::Bearer, EvidenceKind::Session, EvidenceKind::ClientCertificate].into();
    Route {
        name: "invoices".into(),
        index: 0,
        host: HostPattern::Any,
        path: "/{*rest}".into(),
        path_mode: PathMode::Normal,
        environment: "production".into(),
        tags: BTreeSet::new(),
        access: Access::Authenticated(Accepts { issuers: None, kinds }),
        login: LoginRequirement::default(),
        cors: Cors::default(),
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        speaks_aws: false,
        websocket: false,
        identity_headers: None,
        limits: RouteLimits::default(),
    }
}
