//! What the upstream is shown, and how it verifies it.

use http::Method;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::support::{
    Authority, Client, Gate, ORIGIN, Received, RecordingUpstream, RunningGate, StaticIssuer, eventually, now,
};

struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    async fn changed(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let gate = change(Gate::standard(&authority, &issuer, &upstream)).start().await;
        gate.becomes_ready(200).await;
        Self { issuer, upstream, gate }
    }

    /// What the upstream received for a GET of `path` by this token.
    async fn shown(&self, path: &str, token: &str) -> Received {
        let answer = self.gate.get(path).bearer(token).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.upstream.received().pop().unwrap()
    }
}

fn bearer(received: &Received) -> String {
    received.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

/// Verifies as an upstream does that knows the issuer's URL and nothing else: discovery, keys, signature, claims.
async fn verified_by_discovery(documents: &Client, issuer: &str, token: &str, audience: &str) -> (Algorithm, Value) {
    let path = |url: &str| {
        url.split_once("://").unwrap().1.split_once('/').map_or_else(String::new, |(_, path)| format!("/{path}"))
    };
    let discovery = documents.get(&format!("{}/.well-known/openid-configuration", path(issuer))).send().await.json();
    assert_eq!(discovery["issuer"], issuer);
    let keys: JwkSet = documents.get(&path(discovery["jwks_uri"].as_str().unwrap())).send().await.json_as();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let algorithms = discovery["id_token_signing_alg_values_supported"].as_array().unwrap();
    assert!(algorithms.contains(&json!(format!("{:?}", header.alg))), "{discovery}");
    let key = keys.find(header.kid.as_deref().unwrap()).expect("the key is published");
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub", "nbf"]);
    let claims = jsonwebtoken::decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims;
    (header.alg, claims)
}

#[tokio::test]
async fn es256_and_rs256_assertions_verify_by_discovery_alone() {
    let world = World::changed(|gate| {
        gate.config(
            json!({ "credentials": { "rsa": { "signed_assertion": { "algorithm": "RS256", "lifetime": "1m" } } } }),
        )
        .route("rsa", json!({ "path": "/rsa/{*rest}", "credential": "rsa", "audience": "https://billing.internal" }))
    })
    .await;
    let token = world.issuer.token().claim("exp", now() + 3000).claim("iat", now()).mint();
    let own = format!("{ORIGIN}/.doorward");
    for (path, audience, algorithm, longest) in [
        ("/things/1", world.upstream.url(), Algorithm::ES256, 300),
        ("/rsa/1", "https://billing.internal".to_owned(), Algorithm::RS256, 60),
    ] {
        let assertion = bearer(&world.shown(path, &token).await);
        let (signed_by, claims) = verified_by_discovery(&world.gate, &own, &assertion, &audience).await;
        assert_eq!(signed_by, algorithm);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!(own), &json!("machines|machine-1")));
        assert_eq!((&claims["aud"], &claims["roles"]), (&json!(audience), &json!(["reader"])));
        let (issued, expires) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!(expires - issued <= longest && issued <= now() && expires > now(), "{claims}");
        for of_the_request in ["path", "method", "host", "request_id", "htu"] {
            assert!(claims.get(of_the_request).is_none(), "{claims}");
        }
        let record = world.gate.only_record_of(path).await;
        assert_eq!(record.text("credential.id"), claims["jti"].as_str().unwrap());
        assert!(!record.text("credential.expires_at").is_empty());
        world.gate.never_wrote(&assertion);
    }
}

#[tokio::test]
async fn an_assertion_is_kept_for_its_caller_and_route_and_never_shared() {
    let world = World::changed(|gate| gate.route("others", json!({ "path": "/others/{*rest}" }))).await;
    let (one, two) = (world.issuer.token().mint(), world.issuer.token().subject("machine-2").mint());
    let first = bearer(&world.shown("/things/1", &one).await);
    assert_eq!(bearer(&world.shown("/things/2?x=1", &one).await), first, "one caller, one route, one assertion");
    let second = bearer(&world.shown("/things/1", &two).await);
    let claims = world.gate.verify_assertion(&second, &world.upstream.url()).await;
    assert_eq!(claims["sub"], "machines|machine-2");
    let more = world.issuer.token().groups(&["readers", "writers"]).mint();
    let claims = bearer(&world.shown("/things/1", &more).await);
    let claims = world.gate.verify_assertion(&claims, &world.upstream.url()).await;
    assert_eq!(claims["roles"], json!(["reader", "writer"]), "the same subject with more roles has its own");
}

#[tokio::test]
async fn an_assertion_never_outlives_the_token_that_it_is_about() {
    let world = World::changed(|gate| gate).await;
    let ends = now() + 20;
    let assertion = bearer(&world.shown("/things/1", &world.issuer.token().claim("exp", ends).mint()).await);
    let claims = world.gate.verify_assertion(&assertion, &world.upstream.url()).await;
    assert!(claims["exp"].as_i64().unwrap() <= ends, "{claims}");
}

#[tokio::test]
async fn documents_have_a_listener_of_their_own_that_serves_nothing_else() {
    let world = World::changed(|gate| {
        let tls = json!({ "certificates": [{ "certificate": "server.pem", "key": "file:server.key" }] });
        gate.config(json!({
            "listeners": { "documents": { "address": "127.0.0.1:0", "tls": tls } },
            "assertions": { "issuer": "https://tokens.test/doorward", "listener": "documents" },
        }))
        .route("everything", json!({ "host": "*", "reason": "what nobody else serves", "path": "/{*rest}" }))
    })
    .await;
    let token = world.issuer.token().mint();
    let assertion = bearer(&world.shown("/things/1", &token).await);
    let documents = world.gate.listener("documents");
    let issuer = "https://tokens.test/doorward";
    let (_, claims) = verified_by_discovery(&documents, issuer, &assertion, &world.upstream.url()).await;
    assert_eq!(claims["iss"], issuer);
    let before = world.upstream.received().len();
    for path in ["/things/1", "/", "/doorward", "/.doorward/login", "/.well-known/openid-configuration", "/doorward/x"]
    {
        assert_eq!(documents.get(path).bearer(&token).send().await.status, 404, "{path}");
    }
    assert_eq!(documents.post("/doorward/jwks.json").send().await.status, 404);
    for path in ["/doorward/jwks.json", "/doorward/.well-known/openid-configuration"] {
        let (get, head) = (documents.get(path).send().await, documents.request(Method::HEAD, path).send().await);
        assert_eq!((get.status.as_u16(), head.status.as_u16()), (200, 200), "{path}");
        assert!(head.text().is_empty() && !get.text().is_empty());
        for header in ["content-type", "cache-control"] {
            assert_eq!(head.header(header), get.header(header), "{header}");
        }
        assert_eq!(head.header("content-length"), Some(get.text().len().to_string().as_str()));
    }
    let own = world.gate.request(Method::HEAD, "/.doorward/jwks.json").send().await;
    assert_eq!((own.status.as_u16(), own.text().len()), (200, 0));
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn an_upstreams_own_well_known_documents_are_never_shadowed() {
    let world = World::changed(|gate| gate.route("everything", json!({ "path": "/{*rest}" }))).await;
    let token = world.issuer.token().mint();
    for path in ["/.well-known/openid-configuration", "/.well-known/jwks.json", "/jwks.json", "/.doorwards/x"] {
        assert_eq!(world.shown(path, &token).await.target, path);
    }
    let before = world.upstream.received().len();
    for path in ["/.doorward", "/.doorward/", "/.doorward/x", "/.%64oorward/x", "/.doorward/.well-known/x"] {
        assert_eq!(world.gate.get(path).bearer(&token).send().await.status, 404, "{path}");
    }
    assert_eq!(world.upstream.received().len(), before, "a reserved path reached the upstream");
}

#[tokio::test]
async fn a_credential_of_none_needs_a_reason_and_shows_the_upstream_nothing() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    for none in [json!({}), json!({ "reason": "" })] {
        let gate = Gate::standard(&authority, &issuer, &upstream);
        let (code, log) = gate.config(json!({ "credentials": { "open": { "none": none } } })).refuses_to_start().await;
        assert_eq!(code, 2, "{log}");
        assert!(log.contains("reason"), "{log}");
    }
    let world = World::changed(|gate| {
        gate.config(json!({ "credentials": { "open": { "none": { "reason": "a static site" } } } }))
            .route("open", json!({ "path": "/open/{*rest}", "credential": "open" }))
    })
    .await;
    let received = world.shown("/open/1", &world.issuer.token().mint()).await;
    assert_eq!(received.header("authorization"), None, "the caller's own token reached the upstream");
}

#[tokio::test]
async fn a_fixed_secret_goes_where_its_route_says_and_a_broken_file_keeps_the_last_good_one() {
    let world = World::changed(|gate| {
        gate.file("api.key", "first-secret\n")
            .config(json!({ "credentials": { "key": { "fixed": {
                "header": "Authorization", "secret": "file:api.key", "prefix": "Token ",
            } } } }))
            .route("keyed", json!({ "path": "/keyed/{*rest}", "credential": "key" }))
    })
    .await;
    let token = world.issuer.token().mint();
    assert_eq!(world.shown("/keyed/1", &token).await.header("authorization"), Some("Token first-secret"));
    world.gate.write("api.key", "two\nlines\n");
    world.gate.write("beside.key", "unrelated");
    assert_eq!(world.shown("/keyed/2", &token).await.header("authorization"), Some("Token first-secret"));
    world.gate.write("api.key", "second-secret\n");
    eventually("the new secret", || async {
        (world.shown("/keyed/3", &token).await.header("authorization") == Some("Token second-secret")).then_some(())
    })
    .await;
    for secret in ["first-secret", "second-secret"] {
        world.gate.never_wrote(secret);
    }
}

#[tokio::test]
async fn identity_headers_have_the_configured_names_and_values_of_one_safe_line() {
    let names = json!({ "subject": "X-User", "groups": "X-Groups", "email": "X-Email" });
    let world =
        World::changed(|gate| gate.route("things", json!({ "path": "/things/{*rest}", "identity_headers": names })))
            .await;
    let token = world.issuer.token().subject("zoë, 100% ").groups(&["readers", "a,b", "line\r\nX-Evil: 1"]);
    let token = token.claim("email", "zoë@example.test").mint();
    let request = world.gate.get("/things/1").bearer(&token).header("x-user", "root").header("X_Groups", "admins");
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("x-user"), Some("zo%C3%AB%2C 100%25%20"));
    assert_eq!(received.header("x-groups"), Some("readers,a%2Cb,line%0D%0AX-Evil: 1"));
    assert_eq!(received.header("x-email"), Some("zo%C3%AB@example.test"));
    for absent in ["x-evil", "x_groups", "x-doorward-subject", "x-doorward-issuer", "x-doorward-roles"] {
        assert_eq!(received.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn identity_too_large_for_a_header_forwards_nothing() {
    let world =
        World::changed(|gate| gate.route("things", json!({ "path": "/things/{*rest}", "identity_headers": {} }))).await;
    let many: Vec<String> = (0..90).map(|number| format!("group-{number}-{}", "x".repeat(60))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["readers"]).collect();
    let answer = world.gate.get("/things/1").bearer(&world.issuer.token().groups(&many).mint()).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("principal_too_large")));
    assert_eq!(answer.header("retry-after"), None, "to try again would not help");
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn cookies_and_authorization_pass_only_where_the_route_says_so_and_doorwards_cookies_nowhere() {
    let cookies = "a=1; __Host-doorward=x; __Host-doorward_login_0=y; doorward.0=z; b=2";
    let world = World::changed(|gate| {
        gate.config(json!({ "credentials": { "open": { "none": { "reason": "the application's own" } } } })).route(
            "own",
            json!({
                "path": "/own/{*rest}", "credential": "open", "public": { "reason": "the application checks" },
                "pass_cookies": { "reason": "its session" }, "pass_authorization": { "reason": "its tokens" },
            }),
        )
    })
    .await;
    let own = world.gate.get("/own/1").header("cookie", cookies).header("authorization", "Basic eDp5");
    assert_eq!(own.send().await.status, 200);
    let received = world.upstream.received().pop().unwrap();
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    assert_eq!(received.header("authorization"), Some("Basic eDp5"));
    let token = world.issuer.token().mint();
    let other = world.gate.get("/things/1").header("cookie", "a=1; b=2").bearer(&token);
    assert_eq!(other.send().await.status, 200);
    let received = world.upstream.received().pop().unwrap();
    assert_eq!(received.header("cookie"), None);
    assert_ne!(bearer(&received), token);
}

#[tokio::test]
async fn an_upstream_cannot_set_a_cookie_of_doorwards() {
    let world = World::changed(|gate| gate).await;
    let cookies = vec![("set-cookie", "__Host-doorward=evil; Path=/; Secure"), ("set-cookie", "own=1")];
    world.upstream.script("/things/1", crate::support::Script::Fixed(http::StatusCode::OK, cookies, "x"));
    let answer = world.gate.get("/things/1").bearer(&world.issuer.token().mint()).send().await;
    assert_eq!(answer.set_cookies(), ["own=1"]);
}

/// Makes every key that is not retired `days` older than it is.
fn age_keys(gate: &RunningGate, days: i64) {
    let mut ring: Value = serde_json::from_str(&gate.read("state/keys/ES256.json")).unwrap();
    for key in ring["keys"].as_array_mut().unwrap().iter_mut().filter(|key| key["state"] != "retired") {
        key["since"] = json!(key["since"].as_i64().unwrap() - days * 24 * 3600 * 1000);
    }
    // In place: the file keeps its mode, without which it is refused.
    std::fs::write(gate.path("state/keys/ES256.json"), ring.to_string()).unwrap();
}

#[tokio::test]
async fn signing_keys_turn_with_an_overlap_in_which_upstreams_verify_old_and_new() {
    let World { issuer, upstream, gate } = World::changed(|gate| gate).await;
    let token = issuer.token().claim("exp", now() + 3000).mint();
    let shown = async |gate: &RunningGate| {
        assert_eq!(gate.get("/things/1").bearer(&token).send().await.status, 200);
        bearer(&upstream.received().pop().unwrap())
    };
    let key_of = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let published = async |gate: &RunningGate| {
        let keys: JwkSet = gate.get("/.doorward/jwks.json").send().await.json_as();
        keys.keys.into_iter().map(|key| key.common.key_id.unwrap()).collect::<Vec<_>>()
    };
    let old = shown(&gate).await;
    assert_eq!(published(&gate).await, [key_of(&old)]);

    age_keys(&gate, 30);
    let gate = gate.restart().await;
    eventually("the next key", || async { (published(&gate).await.len() == 2).then_some(()) }).await;
    assert_eq!(key_of(&shown(&gate).await), key_of(&old), "a key is published before it signs");

    age_keys(&gate, 2);
    let gate = gate.restart().await;
    eventually("the new key to sign", || async { (key_of(&shown(&gate).await) != key_of(&old)).then_some(()) }).await;
    let new = shown(&gate).await;
    assert_eq!(published(&gate).await.len(), 2);
    for assertion in [old, new] {
        gate.verify_assertion(&assertion, &upstream.url()).await;
    }
    gate.audited("the change", |record| record.event() == "credential.key_rotated").await;
}
