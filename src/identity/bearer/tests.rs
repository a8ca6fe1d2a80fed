//! Whole tokens against the whole verifier.

mod hostile;
mod memory;

use std::sync::LazyLock;

use http::HeaderValue;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::identity::PrincipalKind;
use crate::identity::claims::ClaimPath;
use crate::identity::identify;
use crate::identity::keys::{KeySource, KeyStoreSettings};
use crate::identity::testing::{Claims, SigningKey, jwks, route};
use crate::peer::{Downstream, Peer, Scheme, Transport};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "api://acme";

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::es256("k1"));

struct World {
    verifier: Arc<BearerVerifier>,
    clock: Clock,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// One issuer, changed by `change`.
    fn with(change: impl FnOnce(&mut BearerIssuer)) -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let mut issuer = issuer(&directory, &clock, "okta", &[&KEY]);
        change(&mut issuer);
        let verifier = Arc::new(verifier(vec![issuer]).unwrap());
        Self { verifier, clock, directory }
    }

    async fn call(&self, headers: &[&str]) -> Result<Arc<Principal>, IdentityError> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let address = "192.0.2.1:1".parse().unwrap();
        let transport = Transport::Tls;
        let peer = Peer {
            address,
            socket_address: address,
            listener: "public".into(),
            transport,
            tls: None,
            certificate: None,
        };
        let downstream = Downstream { address: peer.address.ip(), scheme: Scheme::Https };
        let presented = Presented {
            method: &http::Method::GET,
            headers: &map,
            peer: &peer,
            downstream,
            route: &route(),
            now: self.clock.now(),
        };
        identify(&[self.verifier.clone() as Arc<dyn IdentityVerifier>], presented).await
    }

    async fn show(&self, token: &str) -> Result<Arc<Principal>, &'static str> {
        self.call(&[&format!("Bearer {token}")]).await.map_err(|error| error.code())
    }

    /// Shows a token of sound claims with these on top; null takes one away.
    async fn claim(&self, changed: Value) -> Result<Arc<Principal>, &'static str> {
        self.show(&KEY.sign(&self.claims(changed))).await
    }

    async fn header(&self, header: Value) -> Result<Arc<Principal>, &'static str> {
        self.show(&KEY.sign_with_header(&header, &self.claims(json!({})))).await
    }

    fn claims(&self, changed: Value) -> Claims {
        let now = self.clock.now().unix_seconds();
        let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "iat": now, "exp": now + 600 });
        for (name, value) in changed.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        Claims(claims)
    }

    fn remembers(&self, token: &str) -> bool {
        let now = self.clock.now();
        let verdict = |issuer| self.verifier.generation(issuer, now);
        self.verifier.recall.verdict(&sha256(token.as_bytes()), now, verdict).is_some()
    }
}

fn verifier(issuers: Vec<BearerIssuer>) -> Result<BearerVerifier, BearerSettingsError> {
    BearerVerifier::new(issuers, 100, Arc::new(FirstSights::new(100)))
}

fn issuer(directory: &tempfile::TempDir, clock: &Clock, name: &str, keys: &[&SigningKey]) -> BearerIssuer {
    let path = directory.path().join(format!("{name}.json"));
    std::fs::write(&path, jwks(keys)).unwrap();
    let settings = KeyStoreSettings::new(name, KeySource::File(path));
    BearerIssuer {
        issuer: ISSUER.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: vec![Algorithm::ES256],
        keys: Arc::new(KeyStore::new(settings, clock.clone()).unwrap()),
        token_type: TokenType::Any,
        times: TimeRules::default(),
        projection: Projection {
            issuer: name.into(),
            kind: PrincipalKind::User,
            principal: vec![ClaimPath::parse("sub").unwrap()],
            required_claims: Vec::new(),
            forbidden_claims: Vec::new(),
            groups: ClaimPath::parse("groups").unwrap(),
            email: ClaimPath::parse("email").unwrap(),
            environment: None,
            attributes: Vec::new(),
        },
    }
}

#[tokio::test]
async fn a_sound_token_is_a_principal() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    let claims = world.claims(json!({ "groups": ["a"], "scope": "read", "auth_time": now - 100 }));
    let token = KEY.sign(&claims);
    let principal = world.show(&token).await.unwrap();
    assert_eq!((&**principal.id(), principal.kind), ("okta|u1", PrincipalKind::User));
    assert_eq!((principal.groups.len(), principal.scopes.len()), (1, 1));
    assert_eq!(principal.expires_at, Some(Timestamp::from_unix_seconds(now + 600)));
    assert_eq!(principal.fingerprint, sha256(token.as_bytes()));
    assert_eq!(Value::Object(principal.claims.clone()), claims.0);
}

#[tokio::test]
async fn the_authorization_header_is_read_strictly() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    let code = async |headers: &[&str]| world.call(headers).await.map(drop).map_err(|error| error.code());
    assert_eq!(code(&[&format!("bEARER {token}")]).await, Ok(()));
    assert_eq!(code(&[]).await, Err("unauthenticated"));
    assert_eq!(code(&[&format!("Bearer {token}"), &format!("Bearer {token}")]).await, Err("two_kinds_of_evidence"));
    assert_eq!(code(&[&format!("Bearer {token}"), "Basic dTpw"]).await, Err("two_kinds_of_evidence"));
    for other in ["Basic dTpw", "DPoP x", "Bearer", "", &token, &format!("Bearer\t{token}"), "Bearerx y"] {
        let expected = if other == "Bearer" { "token_malformed" } else { "unsupported_scheme" };
        assert_eq!(code(&[other]).await, Err(expected), "{other}");
    }
    for spelling in ["Bearer  TOKEN", "Bearer TOKEN ", "Bearer TOKEN, Bearer TOKEN", "Bearer TOKEN TOKEN", "Bearer "] {
        assert_eq!(code(&[&spelling.replace("TOKEN", &token)]).await, Err("token_malformed"), "{spelling}");
    }
}

#[tokio::test]
async fn an_issuer_is_found_by_its_exact_text_only() {
    let world = World::new();
    for other in [
        json!("https://issuer.example/"),
        json!("https://issuer.example.evil"),
        json!("https://ISSUER.example"),
        json!("https://issuer.exampl"),
        json!(""),
        json!([ISSUER]),
        json!(1),
        json!(null),
    ] {
        assert_eq!(world.claim(json!({ "iss": other })).await.map(drop), Err("issuer_unknown"), "{other}");
    }
}

#[tokio::test]
async fn one_issuer_cannot_speak_for_another() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let ours = issuer(&directory, &clock, "okta", &[&KEY]);
    let other_key = SigningKey::es256("k1");
    let mut theirs = issuer(&directory, &clock, "ci", &[&other_key]);
    theirs.issuer = "https://ci.example".to_owned();
    let verifier = Arc::new(verifier(vec![ours, theirs]).unwrap());
    let world = World { verifier, clock, directory };
    let own = other_key.sign(&world.claims(json!({ "iss": "https://ci.example" })));
    assert_eq!(&**world.show(&own).await.unwrap().id(), "ci|u1");
    assert_eq!(world.show(&other_key.sign(&world.claims(json!({})))).await.map(drop), Err("signature_invalid"));
}

#[tokio::test]
async fn an_algorithm_outside_the_issuers_list_is_refused_though_its_key_is_published() {
    let world = World::with(|issuer| issuer.algorithms = vec![Algorithm::RS256]);
    assert_eq!(world.claim(json!({})).await.map(drop), Err("algorithm_refused"));
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret_and_no_signature_is_no_token() {
    let world = World::new();
    let parts = KEY.sign(&world.claims(json!({})));
    let payload = parts.split('.').nth(1).unwrap();
    let encoded = |text: &str| jsonwebtoken_base64(text.as_bytes());
    for (algorithm, header) in [("HS256", r#"{"alg":"HS256","kid":"k1"}"#), ("none", r#"{"alg":"none"}"#)] {
        let signed = format!("{}.{payload}", encoded(header));
        let secret = jsonwebtoken::EncodingKey::from_secret(KEY.jwk().to_string().as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &secret, jsonwebtoken::Algorithm::HS256).unwrap();
        assert_eq!(
            world.show(&format!("{signed}.{signature}")).await.map(drop),
            Err("algorithm_refused"),
            "{algorithm}"
        );
        assert_eq!(world.show(&format!("{signed}.")).await.map(drop), Err("algorithm_refused"), "{algorithm}");
    }
}

#[tokio::test]
async fn a_key_in_the_tokens_own_header_is_not_believed() {
    let world = World::new();
    let attacker = SigningKey::es256("k1");
    let header = json!({
        "alg": "ES256", "kid": "k1", "jwk": attacker.jwk(), "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert", "x5c": ["AAAA"],
    });
    let token = attacker.sign_with_header(&header, &world.claims(json!({})));
    assert_eq!(world.show(&token).await.map(drop), Err("signature_invalid"));
    let header = json!({ "alg": "ES256", "kid": "evil", "jwk": attacker.jwk() });
    let token = attacker.sign_with_header(&header, &world.claims(json!({})));
    assert_eq!(world.show(&token).await.map(drop), Err("key_unknown"));
}

#[tokio::test]
async fn a_changed_payload_or_header_breaks_the_signature() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    world.show(&token).await.unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let root = jsonwebtoken_base64(world.claims(json!({ "sub": "root" })).0.to_string().as_bytes());
    let forged = format!("{}.{root}.{}", parts[0], parts[2]);
    assert_eq!(world.show(&forged).await.map(drop), Err("signature_invalid"));
    let header = jsonwebtoken_base64(br#"{"kid":"k1","alg":"ES256"}"#);
    let forged = format!("{header}.{}.{}", parts[1], parts[2]);
    assert_eq!(world.show(&forged).await.map(drop), Err("signature_invalid"));
}

#[tokio::test]
async fn tokens_of_another_type_are_refused() {
    let world = World::new();
    for passes in ["JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"] {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": passes });
        assert!(world.header(header).await.is_ok(), "{passes}");
    }
    assert!(world.header(json!({ "alg": "ES256", "kid": "k1" })).await.is_ok());
    for refused in ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/Logout+JWT", "kb+jwt", "JWE", "", "x"] {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": refused });
        assert_eq!(world.header(header).await.map(drop), Err("token_type_refused"), "{refused}");
    }
}

#[tokio::test]
async fn an_issuer_of_access_tokens_must_say_so_in_each() {
    let world = World::with(|issuer| issuer.token_type = TokenType::AccessToken);
    for typ in ["JWT", "at+jwtx", "jose"] {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": typ });
        assert_eq!(world.header(header).await.map(drop), Err("token_type_refused"), "{typ}");
    }
    assert_eq!(world.header(json!({ "alg": "ES256", "kid": "k1" })).await.map(drop), Err("token_type_refused"));
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "at+JWT" });
    let complete = json!({ "client_id": "c1", "jti": "j1" });
    let show = async |changed: Value| {
        let mut claims = world.claims(complete.clone()).0;
        for (name, value) in changed.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        world.show(&KEY.sign_with_header(&header, &Claims(claims))).await.map(drop)
    };
    assert_eq!(show(json!({})).await, Ok(()));
    for name in ["sub", "client_id", "iat", "jti"] {
        assert_eq!(show(json!({ (name): null })).await, Err("claim_missing"), "{name}");
    }
    assert_eq!(show(json!({ "jti": 7 })).await, Err("claim_missing"));
}

#[tokio::test]
async fn id_tokens_and_bound_tokens_are_refused() {
    let world = World::new();
    for name in ["nonce", "at_hash", "c_hash"] {
        assert_eq!(world.claim(json!({ (name): "x" })).await.map(drop), Err("id_token_refused"), "{name}");
    }
    for confirmation in [json!({ "jkt": "x" }), json!({ "x5t#S256": "x" }), json!({}), json!("x")] {
        assert_eq!(world.claim(json!({ "cnf": confirmation })).await.map(drop), Err("token_bound"));
    }
}

#[tokio::test]
async fn a_token_that_tells_of_events_is_refused_whatever_its_type() {
    let logout = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let whole = json!({ "client_id": "c1", "jti": "j1" });
    for (token_type, typ) in [
        (TokenType::Any, None),
        (TokenType::Any, Some("JWT")),
        (TokenType::Any, Some("at+jwt")),
        (TokenType::AccessToken, Some("at+jwt")),
    ] {
        let world = World::with(|issuer| issuer.token_type = token_type);
        let mut header = json!({ "alg": "ES256", "kid": "k1" });
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let mut claims = world.claims(whole.clone());
        world.show(&KEY.sign_with_header(&header, &claims)).await.unwrap();
        for events in [logout.clone(), json!({}), json!(null), json!("x")] {
            claims.0["events"] = events;
            let token = KEY.sign_with_header(&header, &claims);
            assert_eq!(world.show(&token).await.map(drop), Err("token_type_refused"), "{token_type:?} {typ:?}");
        }
    }
}

#[tokio::test]
async fn times_and_audience_are_judged() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    for (claims, code) in [
        (json!({ "exp": now - 61 }), "token_expired"),
        (json!({ "exp": null }), "claim_missing"),
        (json!({ "exp": "soon" }), "claim_malformed"),
        (json!({ "nbf": now + 120 }), "token_not_yet_valid"),
        (json!({ "nbf": "1" }), "claim_malformed"),
        (json!({ "iat": now + 120 }), "token_not_yet_valid"),
        (json!({ "auth_time": now + 120 }), "token_not_yet_valid"),
        (json!({ "exp": now + 24 * 3600 + 1 }), "token_lives_too_long"),
        (json!({ "aud": "api://other" }), "audience_mismatch"),
        (json!({ "aud": [] }), "audience_mismatch"),
        (json!({ "aud": [AUDIENCE, 7] }), "claim_malformed"),
        (json!({ "aud": null }), "claim_missing"),
        (json!({ "sub": null }), "claim_missing"),
        (json!({ "sub": "a\nb" }), "subject_refused"),
        (json!({ "_claim_names": { "groups": "s" } }), "groups_overage"),
    ] {
        assert_eq!(world.claim(claims.clone()).await.map(drop), Err(code), "{claims}");
    }
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_token() {
    let world = World::with(|issuer| {
        issuer.projection.required_claims = vec![(ClaimPath::parse("env").unwrap(), vec![json!("production")])];
    });
    for claims in [
        json!({ "env": "s3cret" }),
        json!({ "sub": "s3cret|" }),
        json!({ "aud": "s3cret" }),
        json!({ "iss": "s3cret" }),
        json!({ "exp": "s3cret" }),
        json!({ "cnf": "s3cret" }),
        json!({ "email": ["s3cret"], "env": "production" }),
    ] {
        let token = KEY.sign(&world.claims(claims));
        let error = world.call(&[&format!("Bearer {token}")]).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    let error = world.call(&["s3cret dG9rZW4="]).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn settings_that_would_let_in_too_much_make_no_verifier() {
    let refused = |change: &dyn Fn(&mut BearerIssuer)| {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let mut issuer = issuer(&directory, &clock, "okta", &[&KEY]);
        change(&mut issuer);
        verifier(vec![issuer]).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|issuer| issuer.issuer.clear()));
    assert!(refused(&|issuer| issuer.projection.issuer = "okta|u1".into()));
    assert!(refused(&|issuer| issuer.audiences.clear()));
    assert!(refused(&|issuer| issuer.audiences.push(String::new())));
    assert!(refused(&|issuer| issuer.algorithms.clear()));
    assert!(refused(&|issuer| issuer.projection.principal.clear()));
    assert!(refused(&|issuer| issuer.times.leeway = Duration::from_secs(301)));
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let twice = ["okta", "entra"].map(|name| issuer(&directory, &clock, name, &[&KEY]));
    let error = verifier(twice.into()).unwrap_err();
    assert_eq!(&*error.issuer, "entra");
}

fn jsonwebtoken_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
