//! The token endpoint: codes, refresh tokens and client credentials become signed tokens.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::TokenRequest;
use super::state::{DevelopmentIssuer, Issued, JOB, USERS, User};
use crate::clock::Timestamp;

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
const REFRESH_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The issuer's P-256 key, made at start and never written anywhere.
pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, pair.public_key().as_ref()));
        Ok(Self { pair, id })
    }

    fn jwk(&self) -> Value {
        // Uncompressed point: 0x04, x, y.
        let coordinates = self.pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at_checked(32).unwrap_or_default();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": encode(x), "y": encode(y) })
    }

    fn sign(&self, token_type: &str, claims: &Value) -> Option<String> {
        let header = json!({ "alg": "ES256", "typ": token_type, "kid": self.id }).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl DevelopmentIssuer {
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": [self.key.jwk()] })
    }

    /// Answers `/token`; the error is an OAuth error code.
    pub(super) fn exchange(&self, headers: &HeaderMap, request: &TokenRequest) -> Result<Value, &'static str> {
        let client = self.client_of(headers, request).ok_or("invalid_client")?;
        let is_job = client == JOB;
        match request.grant_type.as_str() {
            "client_credentials" if is_job => self.for_job(request.scope.as_deref()).ok_or("server_error"),
            "authorization_code" if !is_job => {
                let code = request.code.as_deref().ok_or("invalid_request")?;
                let issued = self.take_code(code).ok_or("invalid_grant")?;
                let verifier = request.code_verifier.as_deref().ok_or("invalid_grant")?;
                let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
                if issued.request.code_challenge.as_deref() != Some(challenge.as_str())
                    || request.redirect_uri.as_deref() != Some(issued.request.redirect_uri.as_str())
                {
                    return Err("invalid_grant");
                }
                self.for_user(issued).ok_or("server_error")
            }
            "refresh_token" if !is_job => {
                let token = request.refresh_token.as_deref().ok_or("invalid_request")?;
                self.for_user(self.take_refresh_token(token).ok_or("invalid_grant")?).ok_or("server_error")
            }
            "client_credentials" | "authorization_code" | "refresh_token" => Err("unauthorized_client"),
            _ => Err("unsupported_grant_type"),
        }
    }

    /// An access token for a user or the job, without any flow.
    pub(super) fn token_for(&self, name: &str) -> Option<String> {
        let now = self.clock.now();
        if name == JOB {
            return self.access_token(&json!({ "sub": JOB, "client_id": JOB, "groups": ["jobs"] }), now);
        }
        let user = USERS.iter().find(|user| user.name == name)?;
        self.access_token(&person(user, now), now)
    }

    fn client_of(&self, headers: &HeaderMap, request: &TokenRequest) -> Option<String> {
        let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
            let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
            let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().ok().map(String::from);
            Some((plain(id)?, plain(secret)?))
        });
        let (id, secret) = basic.or_else(|| Some((request.client_id.clone()?, request.client_secret.clone()?)))?;
        [self.client(), self.job()].into_iter().find_map(|(known, known_secret)| {
            let same =
                aws_lc_rs::constant_time::verify_slices_are_equal(known_secret.expose().as_bytes(), secret.as_bytes());
            (known == id && same.is_ok()).then(|| known.to_owned())
        })
    }

    fn for_user(&self, issued: Issued) -> Option<Value> {
        let user = USERS.iter().find(|user| user.name == issued.user)?;
        let now = self.clock.now();
        let mut claims = person(user, issued.authenticated_at);
        let access_token = self.access_token(&claims, now)?;
        let fields = claims.as_object_mut()?;
        fields.insert("iss".into(), self.url().into());
        fields.insert("aud".into(), issued.request.client_id.clone().into());
        fields.insert("iat".into(), now.unix_seconds().into());
        fields.insert("exp".into(), now.plus(TOKEN_LIFETIME).unix_seconds().into());
        if let Some(nonce) = &issued.request.nonce {
            fields.insert("nonce".into(), nonce.clone().into());
        }
        if let Some(acr) = issued.request.acr_values.as_deref().and_then(|values| values.split(' ').next()) {
            fields.insert("acr".into(), acr.into());
        }
        let mut answer = json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME.as_secs(),
            "id_token": self.key.sign("JWT", &claims)?,
            "scope": issued.request.scope,
        });
        if issued.request.scope.split(' ').any(|scope| scope == "offline_access") {
            let next = Issued { expires_at: now.plus(REFRESH_LIFETIME), ..issued };
            answer.as_object_mut()?.insert("refresh_token".into(), self.new_refresh_token(next)?.into());
        }
        Some(answer)
    }

    fn for_job(&self, scope: Option<&str>) -> Option<Value> {
        let now = self.clock.now();
        let claims = json!({ "sub": JOB, "client_id": JOB, "groups": ["jobs"], "scope": scope.unwrap_or_default() });
        Some(json!({
            "access_token": self.access_token(&claims, now)?,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME.as_secs(),
        }))
    }

    /// An RFC 9068 access token with `claims` and the registered ones.
    fn access_token(&self, claims: &Value, now: Timestamp) -> Option<String> {
        let mut claims = claims.clone();
        let fields = claims.as_object_mut()?;
        fields.insert("iss".into(), self.url().into());
        fields.insert("aud".into(), self.audience.clone().into());
        fields.insert("iat".into(), now.unix_seconds().into());
        fields.insert("exp".into(), now.plus(TOKEN_LIFETIME).unix_seconds().into());
        fields.insert("jti".into(), uuid::Uuid::new_v4().to_string().into());
        fields.entry("client_id").or_insert_with(|| self.client().0.into());
        self.key.sign("at+jwt", &claims)
    }
}

fn person(user: &User, authenticated_at: Timestamp) -> Value {
    json!({
        "sub": user.name,
        "name": user.display_name,
        "email": format!("{}@example.test", user.name),
        "email_verified": true,
        "groups": user.groups,
        "auth_time": authenticated_at.unix_seconds(),
        "amr": ["pwd"],
    })
}
