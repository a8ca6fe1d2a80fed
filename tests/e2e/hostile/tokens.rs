//! Tokens that are not what they say.

use serde_json::json;

use super::World;
use crate::support::{SigningKey, StaticIssuer, TokenDraft, base64url, now};

/// Fails unless the gate refuses `token` with 401, or 400 where it cannot even be read.
async fn refused(world: &World, what: &str, token: &str) {
    let answer = world.gate.get("/things/1").bearer(token).send().await;
    assert!(matches!(answer.status.as_u16(), 400 | 401 | 431), "{what}: {} {}", answer.status, answer.text());
    assert!(token.len() < 8 || !answer.text().contains(token), "{what}: the answer repeats the token");
    world.upstream.heard_nothing();
}

async fn all_refused(drafts: impl IntoIterator<Item = (&'static str, TokenDraft)>, world: &World) {
    for (what, draft) in drafts {
        refused(world, what, &draft.mint()).await;
    }
    let good = world.gate.get("/things/1").bearer(&world.token).send().await;
    assert_eq!(good.status, 200, "the good twin is refused too: {}", good.text());
}

#[tokio::test]
async fn a_token_with_wrong_claims_is_refused() {
    let world = World::start().await;
    let token = || world.issuer.token();
    let drafts = [
        ("another issuer", token().claim("iss", "https://evil.test")),
        ("the issuer with a slash", token().claim("iss", format!("{}/", world.issuer.url()))),
        ("the issuer as a prefix", token().claim("iss", format!("{}.evil.test", world.issuer.url()))),
        ("a list of issuers", token().claim("iss", [world.issuer.url()])),
        ("no issuer", token().without_claim("iss")),
        ("another audience", token().claim("aud", "https://other.test")),
        ("an audience that only begins alike", token().claim("aud", "https://gate.test.evil.test")),
        ("no audience", token().without_claim("aud")),
        ("an empty list of audiences", token().claim("aud", json!([]))),
        ("an audience of the wrong type", token().claim("aud", json!([7]))),
        ("no expiry", token().without_claim("exp")),
        ("long expired", token().claim("exp", now() - 3600).claim("iat", now() - 7200)),
        ("an expiry that is text", token().claim("exp", (now() + 300).to_string())),
        ("an expiry that is null", token().claim("exp", json!(null))),
        ("a beginning in the future", token().claim("nbf", now() + 3600)),
        ("a beginning that is text", token().claim("nbf", "0")),
        ("issued in the future", token().claim("iat", now() + 3600)),
        ("longer than the issuer's entry allows", token().claim("exp", now() + 7200)),
        ("no subject", token().without_claim("sub")),
        ("an empty subject", token().claim("sub", "")),
        ("a subject of the wrong type", token().claim("sub", json!(["machine-1"]))),
    ];
    all_refused(drafts, &world).await;
}

#[tokio::test]
async fn a_token_with_a_wrong_header_is_refused() {
    let world = World::start().await;
    let token = || world.issuer.token();
    let own = SigningKey::es256("mine");
    let drafts = [
        ("an ID token's type", token().header("typ", "JWT")),
        ("no type where RFC 9068 is required", token().without_header("typ")),
        ("a logout token", token().header("typ", "logout+jwt")),
        ("a DPoP proof", token().header("typ", "dpop+jwt")),
        ("an unknown critical extension", token().header("crit", ["x"]).header("x", 1)),
        ("unencoded payload", token().header("crit", ["b64"]).header("b64", false)),
        ("compression", token().header("zip", "DEF")),
        ("an unknown key", token().header("kid", "unknown")),
        ("a key id of the wrong type", token().header("kid", 1)),
        ("the other key's id", token().header("kid", "rs-1")),
        ("another algorithm's name", token().header("alg", "ES384")),
        ("a lower-case algorithm", token().header("alg", "es256")),
        ("our own key under the issuer's id", token().signed_by(&own)),
        ("our own key in the header", token().signed_by(&own).header("jwk", own.public())),
        ("our own keys by address", token().signed_by(&own).header("jku", "https://evil.test/keys")),
        ("our own certificate by address", token().signed_by(&own).header("x5u", "https://evil.test/cert")),
    ];
    all_refused(drafts, &world).await;
}

#[tokio::test]
async fn no_signature_and_symmetric_signatures_are_refused() {
    let world = World::start().await;
    let token = world.issuer.token();
    let payload = base64url(token.claims_text());
    for algorithm in ["none", "None", "NONE", "HS256", " HS256", "HS512", ""] {
        let header = base64url(token.clone().header("alg", algorithm).header_text());
        refused(&world, algorithm, &format!("{header}.{payload}.")).await;
        refused(&world, algorithm, &format!("{header}.{payload}.{}", base64url([0; 32]))).await;
    }
    // The public key as the HMAC secret.
    for secret in [world.issuer.rsa_token().key.public().to_string(), world.issuer.rsa_token().key.public_pem()] {
        let mut draft = world.issuer.rsa_token().header("alg", "HS256");
        draft.key = SigningKey::hs256("rs-1", secret.as_bytes());
        refused(&world, "a public key as a secret", &draft.mint()).await;
    }
}

#[tokio::test]
async fn a_touched_token_is_refused() {
    let world = World::start().await;
    let token = world.issuer.token().mint();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = base64url(world.issuer.token().groups(&["writers"]).claims_text());
    let zeroes = base64url([0; 64]);
    for (what, touched) in [
        ("another payload", format!("{header}.{other}.{signature}")),
        ("an empty signature", format!("{header}.{payload}.")),
        ("no signature", format!("{header}.{payload}")),
        ("a signature of zeroes", format!("{header}.{payload}.{zeroes}")),
        ("a fourth part", format!("{token}.x")),
        ("a hundred thousand dots", ".".repeat(20_000)),
        ("padding", format!("{header}.{payload}.{signature}=")),
        ("a blank inside", format!("{header}. {payload}.{signature}")),
        ("five parts", format!("{header}..{payload}.{payload}.{signature}")),
        ("nothing", String::new()),
        ("no token", "x".to_owned()),
        ("20 KiB", "x".repeat(20 * 1024)),
    ] {
        refused(&world, what, &touched).await;
    }
}

#[tokio::test]
async fn json_that_two_readers_read_differently_is_refused() {
    let world = World::start().await;
    let draft = world.issuer.token();
    let header = draft.header_text();
    let claims = draft.claims_text();
    let doubled_claim = claims.replacen('{', r#"{"sub":"root","#, 1);
    let doubled_header = header.replacen('{', r#"{"alg":"none","#, 1);
    for (what, token) in [
        ("a claim twice", draft.key.sign(&header, &doubled_claim)),
        ("a header parameter twice", draft.key.sign(&doubled_header, &claims)),
        ("a list for claims", draft.key.sign(&header, &format!("[{claims}]"))),
        ("something after the claims", draft.key.sign(&header, &format!("{claims}{{}}"))),
        ("no JSON", draft.key.sign(&header, "hello")),
        ("deep nesting", draft.key.sign(&header, &format!("{}{}", "[".repeat(5000), "]".repeat(5000)))),
    ] {
        refused(&world, what, &token).await;
    }
}

#[tokio::test]
async fn the_key_of_one_issuer_never_signs_for_another() {
    let world = World::start().await;
    let authority = crate::support::Authority::new();
    let stranger = StaticIssuer::start(&authority).await;
    refused(&world, "a stranger's token", &stranger.token().mint()).await;
    refused(&world, "a stranger's key", &stranger.token().claim("iss", world.issuer.url()).mint()).await;
}

#[tokio::test]
async fn a_group_is_a_whole_name_and_text_is_never_searched() {
    let world = World::start().await;
    for groups in [
        json!("not-readers-at-all"),
        json!(["readers2", "READERS", "reader"]),
        json!([["readers"]]),
        json!({ "readers": true }),
        json!(null),
        json!(7),
    ] {
        let token = world.issuer.token().claim("groups", &groups).mint();
        let answer = world.gate.get("/things/1").bearer(&token).send().await;
        assert!(matches!(answer.status.as_u16(), 401 | 403), "{groups}: {}", answer.status);
    }
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_expires() {
    let world = World::changed(|gate| gate.config(json!({ "issuers": { "machines": { "leeway": "1s" } } }))).await;
    let token = world.issuer.token().claim("exp", now() + 2).mint();
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
    crate::support::eventually("the token's end", || async {
        (world.gate.get("/things/1").bearer(&token).send().await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_session_ends_though_the_token_lives_on() {
    let world = World::changed(|gate| {
        gate.role_of(
            "short",
            json!({
                "environment": "test", "longest_session": "1m",
                "trust": [{ "issuer": "machines", "groups": ["shorts"] }],
            }),
        )
        .policy(r#"@id("shorts-read") permit(principal in Role::"short", action in Action::"read", resource);"#)
    })
    .await;
    let token = world.issuer.token().groups(&["shorts"]);
    assert_eq!(world.gate.get("/things/1").bearer(&token.mint()).send().await.status, 200);
    let old = token.claim("iat", now() - 600).mint();
    let answer = world.gate.get("/things/2").bearer(&old).send().await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("role_session_expired"), "{}", answer.text());
}
