//! Tokens that are not what they say.

use serde_json::json;

use super::World;
use crate::support::{SigningKey, StaticIssuer, TokenDraft, base64url, now};

/// Fails unless the gate refuses `token` with 401, for this reason and no other.
async fn refused(world: &World, what: &str, code: &str, token: &str) {
    let answer = world.gate.get("/things/1").bearer(token).send().await;
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    assert_eq!(answer.json()["code"], code, "{what}: {}", answer.text());
    assert!(token.len() < 8 || !answer.text().contains(token), "{what}: the answer repeats the token");
    world.upstream.heard_nothing();
}

async fn all_refused(drafts: impl IntoIterator<Item = (&'static str, &'static str, TokenDraft)>, world: &World) {
    for (what, code, draft) in drafts {
        refused(world, what, code, &draft.mint()).await;
    }
    let good = world.gate.get("/things/1").bearer(&world.token).send().await;
    assert_eq!(good.status, 200, "the good twin is refused too: {}", good.text());
}

#[tokio::test]
async fn a_token_with_wrong_claims_is_refused() {
    let world = World::start().await;
    let token = || world.issuer.token();
    let drafts = [
        ("another issuer", "issuer_unknown", token().claim("iss", "https://evil.test")),
        ("the issuer with a slash", "issuer_unknown", token().claim("iss", format!("{}/", world.issuer.url()))),
        ("the issuer as a prefix", "issuer_unknown", token().claim("iss", format!("{}.evil.test", world.issuer.url()))),
        ("a list of issuers", "issuer_unknown", token().claim("iss", [world.issuer.url()])),
        ("no issuer", "issuer_unknown", token().without_claim("iss")),
        ("another audience", "audience_mismatch", token().claim("aud", "https://other.test")),
        (
            "an audience that only begins alike",
            "audience_mismatch",
            token().claim("aud", "https://gate.test.evil.test"),
        ),
        ("no audience", "claim_missing", token().without_claim("aud")),
        ("an empty list of audiences", "audience_mismatch", token().claim("aud", json!([]))),
        ("an audience of the wrong type", "claim_malformed", token().claim("aud", json!([7]))),
        ("no expiry", "claim_missing", token().without_claim("exp")),
        ("long expired", "token_expired", token().claim("exp", now() - 3600).claim("iat", now() - 7200)),
        ("an expiry that is text", "claim_malformed", token().claim("exp", (now() + 300).to_string())),
        ("an expiry that is null", "claim_malformed", token().claim("exp", json!(null))),
        ("a beginning in the future", "token_not_yet_valid", token().claim("nbf", now() + 3600)),
        ("a beginning that is text", "claim_malformed", token().claim("nbf", "0")),
        ("issued in the future", "token_not_yet_valid", token().claim("iat", now() + 3600)),
        ("longer than the issuer's entry allows", "token_lives_too_long", token().claim("exp", now() + 7200)),
        ("no subject", "claim_missing", token().without_claim("sub")),
        ("an empty subject", "claim_missing", token().claim("sub", "")),
        ("a subject of the wrong type", "claim_missing", token().claim("sub", json!(["machine-1"]))),
    ];
    all_refused(drafts, &world).await;
}

#[tokio::test]
async fn a_token_with_a_wrong_header_is_refused() {
    let world = World::start().await;
    let token = || world.issuer.token();
    let own = SigningKey::es256("mine");
    let drafts = [
        ("an ID token's type", "token_type_refused", token().header("typ", "JWT")),
        ("no type where RFC 9068 is required", "token_type_refused", token().without_header("typ")),
        ("a logout token", "token_type_refused", token().header("typ", "logout+jwt")),
        ("a logout token under an access token's type", "token_type_refused", token().claim("events", json!({}))),
        ("a DPoP proof", "token_type_refused", token().header("typ", "dpop+jwt")),
        ("an unknown critical extension", "header_refused", token().header("crit", ["x"]).header("x", 1)),
        ("unencoded payload", "header_refused", token().header("crit", ["b64"]).header("b64", false)),
        ("compression", "header_refused", token().header("zip", "DEF")),
        ("an unknown key", "key_unknown", token().header("kid", "unknown")),
        ("a key id of the wrong type", "token_malformed", token().header("kid", 1)),
        ("the other key's id", "key_unfit", token().header("kid", "rs-1")),
        ("another algorithm's name", "algorithm_refused", token().header("alg", "ES384")),
        ("a lower-case algorithm", "algorithm_refused", token().header("alg", "es256")),
        ("our own key under the issuer's id", "signature_invalid", token().signed_by(&own)),
        ("our own key in the header", "signature_invalid", token().signed_by(&own).header("jwk", own.public())),
        (
            "our own keys by address",
            "signature_invalid",
            token().signed_by(&own).header("jku", "https://evil.test/keys"),
        ),
        (
            "our own certificate by address",
            "signature_invalid",
            token().signed_by(&own).header("x5u", "https://evil.test/cert"),
        ),
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
        refused(&world, algorithm, "algorithm_refused", &format!("{header}.{payload}.")).await;
        refused(&world, algorithm, "algorithm_refused", &format!("{header}.{payload}.{}", base64url([0; 32]))).await;
    }
    // The public key as the HMAC secret.
    for secret in [world.issuer.rsa_token().key.public().to_string(), world.issuer.rsa_token().key.public_pem()] {
        let mut draft = world.issuer.rsa_token().header("alg", "HS256");
        draft.key = SigningKey::hs256("rs-1", secret.as_bytes());
        refused(&world, "a public key as a secret", "algorithm_refused", &draft.mint()).await;
    }
}

/// A good token of exactly so many bytes. Base64url has no text of 4n + 1, so header and payload are both filled up.
fn of_length(draft: &TokenDraft, bytes: usize) -> String {
    let filled = |header: usize, claims: usize| {
        draft.clone().header("fill", "x".repeat(header)).claim("fill", "x".repeat(claims)).mint()
    };
    let about = (bytes - filled(0, 0).len()) * 3 / 4;
    let tokens = (0..4).flat_map(|header| (about - 8..=about).map(move |claims| (header, claims)));
    tokens.map(|(header, claims)| filled(header, claims)).find(|token| token.len() == bytes).unwrap()
}

#[tokio::test]
async fn a_touched_token_is_refused() {
    let world = World::start().await;
    let token = world.issuer.token().mint();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = base64url(world.issuer.token().groups(&["writers"]).claims_text());
    let zeroes = base64url([0; 64]);
    for (what, code, touched) in [
        ("another payload", "signature_invalid", format!("{header}.{other}.{signature}")),
        ("an empty signature", "token_malformed", format!("{header}.{payload}.")),
        ("no signature", "token_malformed", format!("{header}.{payload}")),
        ("a signature of zeroes", "signature_invalid", format!("{header}.{payload}.{zeroes}")),
        ("a fourth part", "token_malformed", format!("{token}.x")),
        ("nothing but dots", "token_too_large", ".".repeat(20_000)),
        ("padding", "token_malformed", format!("{header}.{payload}.{signature}=")),
        ("a blank inside", "token_malformed", format!("{header}. {payload}.{signature}")),
        ("five parts", "token_malformed", format!("{header}..{payload}.{payload}.{signature}")),
        ("nothing", "token_malformed", String::new()),
        ("no token", "token_malformed", "x".to_owned()),
        ("16 KiB and a byte", "token_too_large", of_length(&world.issuer.token(), 16 * 1024 + 1)),
    ] {
        refused(&world, what, code, &touched).await;
    }
    let longest = world.gate.get("/things/1").bearer(&of_length(&world.issuer.token(), 16 * 1024)).send().await;
    assert_eq!(longest.status, 200, "16 KiB are none too many: {}", longest.text());
}

#[tokio::test]
async fn json_that_two_readers_read_differently_is_refused() {
    let world = World::start().await;
    let draft = world.issuer.token();
    let header = draft.header_text();
    let claims = draft.claims_text();
    let doubled_claim = claims.replacen('{', r#"{"sub":"root","#, 1);
    let doubled_header = header.replacen('{', r#"{"alg":"none","#, 1);
    for (what, code, token) in [
        ("a claim twice", "token_malformed", draft.key.sign(&header, &doubled_claim)),
        ("a header parameter twice", "token_malformed", draft.key.sign(&doubled_header, &claims)),
        ("a list for claims", "token_malformed", draft.key.sign(&header, &format!("[{claims}]"))),
        ("something after the claims", "token_malformed", draft.key.sign(&header, &format!("{claims}{{}}"))),
        ("no JSON", "token_malformed", draft.key.sign(&header, "hello")),
        (
            "deep nesting",
            "token_malformed",
            draft.key.sign(&header, &format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
        ),
    ] {
        refused(&world, what, code, &token).await;
    }
}

#[tokio::test]
async fn the_key_of_one_issuer_never_signs_for_another() {
    let world = World::start().await;
    let authority = crate::support::Authority::new();
    let stranger = StaticIssuer::start(&authority).await;
    refused(&world, "a stranger's token", "issuer_unknown", &stranger.token().mint()).await;
    refused(&world, "a stranger's key", "signature_invalid", &stranger.token().claim("iss", world.issuer.url()).mint())
        .await;
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
