//! What a verifier remembers of tokens, and for how long.

use super::*;

#[tokio::test]
async fn a_token_is_verified_once_in_five_minutes() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    let first = world.show(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &world.show(&token).await.unwrap()));
    world.clock.advance(Duration::from_secs(301));
    let later = world.show(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later));
    assert_eq!(first.id(), later.id());
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_ends() {
    let world = World::with(|issuer| issuer.times.leeway = Duration::ZERO);
    let now = world.clock.now().unix_seconds();
    let token = KEY.sign(&world.claims(json!({ "exp": now + 60 })));
    world.show(&token).await.unwrap();
    assert!(world.remembers(&token));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.show(&token).await.map(drop), Err("token_expired"));
}

#[tokio::test]
async fn a_token_within_its_leeway_passes_and_is_not_remembered() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    let token = KEY.sign(&world.claims(json!({ "iat": now - 100, "exp": now - 10 })));
    let principal = world.show(&token).await.unwrap();
    assert_eq!(principal.expires_at, Some(Timestamp::from_unix_seconds(now + 50)));
    assert!(!world.remembers(&token));
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_tokens_that_were_remembered() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    world.show(&token).await.unwrap();
    let next = SigningKey::es256("k2");
    std::fs::write(world.directory.path().join("okta.json"), jwks(&[&next])).unwrap();
    // A token of the new key makes the store look now.
    let renewed = next.sign(&world.claims(json!({})));
    while world.show(&renewed).await.is_err() {
        world.clock.advance(Duration::from_secs(2));
        tokio::task::yield_now().await;
    }
    assert!(!world.remembers(&token));
    assert_eq!(world.show(&token).await.map(drop), Err("key_unknown"));
}

#[tokio::test]
async fn refusals_of_signature_and_claims_are_remembered_for_two_seconds_and_no_others() {
    let world = World::new();
    let expired = KEY.sign(&world.claims(json!({ "aud": "api://other" })));
    let forged = SigningKey::es256("k1").sign(&world.claims(json!({})));
    let unknown = SigningKey::es256("other").sign(&world.claims(json!({})));
    for (token, code, remembered) in [
        (expired.as_str(), "audience_mismatch", true),
        (&forged, "signature_invalid", true),
        (&unknown, "key_unknown", false),
        ("a.b.c", "token_malformed", false),
    ] {
        assert_eq!(world.show(token).await.map(drop), Err(code));
        assert_eq!(world.remembers(token), remembered, "{code}");
        assert_eq!(world.show(token).await.map(drop), Err(code), "a remembered refusal keeps its code");
    }
    world.clock.advance(Duration::from_secs(3));
    assert!(!world.remembers(&forged) && !world.remembers(&expired));
}

#[tokio::test]
async fn an_unreachable_issuer_is_no_verdict_on_a_token() {
    let world = World::new();
    let path = world.directory.path().join("okta.json");
    std::fs::remove_file(&path).unwrap();
    let token = KEY.sign(&world.claims(json!({})));
    let error = world.call(&[&format!("Bearer {token}")]).await.unwrap_err();
    assert!(matches!(&error, IdentityError::Unavailable { issuer, .. } if &**issuer == "okta"), "{error:?}");
    assert!(!world.remembers(&token));
}

#[tokio::test]
async fn role_sessions_begin_at_authentication_else_at_issue_else_at_first_sight() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    let began = async |claims: Value| world.claim(claims).await.unwrap().began_at;
    let at = Timestamp::from_unix_seconds;
    assert_eq!(began(json!({ "auth_time": now - 500, "iat": now - 5 })).await, at(now - 500));
    assert_eq!(began(json!({ "iat": now - 5 })).await, at(now - 5));

    let token = KEY.sign(&world.claims(json!({ "iat": null })));
    let first = world.show(&token).await.unwrap();
    assert!(first.began_at >= at(now));
    world.clock.advance(Duration::from_secs(400));
    let later = world.show(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later), "verified again");
    assert_eq!(first.began_at, later.began_at);
}

#[tokio::test]
async fn a_verifier_that_follows_another_begins_no_role_session_anew() {
    let mut world = World::new();
    let token = KEY.sign(&world.claims(json!({ "iat": null })));
    let first = world.show(&token).await.unwrap();
    world.clock.advance(Duration::from_secs(400));
    let (issuers, first_sights) = (world.verifier.issuers.clone(), world.verifier.first_sights.clone());
    world.verifier = Arc::new(BearerVerifier::new(issuers, 100, first_sights).unwrap());
    let later = world.show(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later), "verified again");
    assert_eq!(first.began_at, later.began_at);
}
