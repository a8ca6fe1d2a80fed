//! Tokens that somebody made to be taken for another, or for more than they are.

use super::*;

/// The order of P-256's group.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `ORDER - number`, both big-endian.
fn from_order(number: &[u8]) -> Vec<u8> {
    let (mut left, mut borrowed) = (vec![0; 32], 0);
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(number[at]) - borrowed;
        borrowed = i16::from(digit < 0);
        left[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    left
}

/// The same token with the other signature (r, n − s), which everybody can write who has the first.
fn twin_of(token: &str) -> String {
    use base64::Engine as _;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = signature.split_at(32);
    format!("{signed}.{}", jsonwebtoken_base64(&[r, &from_order(s)].concat()))
}

#[tokio::test]
async fn the_twin_of_a_signature_is_as_good_and_gains_nothing() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    let token = KEY.sign(&world.claims(json!({ "exp": now + 60, "jti": "j1" })));
    let twin = twin_of(&token);
    assert_ne!(twin, token);
    assert_eq!(twin_of(&twin), token);
    let [first, second] = [world.show(&token).await.unwrap(), world.show(&twin).await.unwrap()];
    assert_eq!((first.id(), first.kind, &first.claims), (second.id(), second.kind, &second.claims));
    assert_eq!((first.began_at, first.expires_at), (second.began_at, second.expires_at));
    // Both end when the token does, remembered or not.
    assert!(world.remembers(&token) && world.remembers(&twin));
    world.clock.advance(Duration::from_secs(60 + 60));
    for ended in [&token, &twin, &twin_of(&twin)] {
        assert_eq!(world.show(ended).await.map(drop), Err("token_expired"));
    }
}

#[tokio::test]
async fn the_twin_of_a_signature_begins_no_role_session_anew() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({ "iat": null })));
    let first = world.show(&token).await.unwrap();
    world.clock.advance(Duration::from_secs(400));
    assert_eq!(world.show(&twin_of(&token)).await.unwrap().began_at, first.began_at);
    let other = KEY.sign(&world.claims(json!({ "iat": null, "jti": "another" })));
    assert!(world.show(&other).await.unwrap().began_at > first.began_at, "another token is seen for the first time");
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_twin_of_a_token_too() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    let twin = twin_of(&token);
    world.show(&twin).await.unwrap();
    let next = SigningKey::es256("k2");
    std::fs::write(world.directory.path().join("okta.json"), jwks(&[&next])).unwrap();
    let renewed = next.sign(&world.claims(json!({})));
    while world.show(&renewed).await.is_err() {
        world.clock.advance(Duration::from_secs(2));
        tokio::task::yield_now().await;
    }
    for ended in [&token, &twin] {
        assert!(!world.remembers(ended));
        assert_eq!(world.show(ended).await.map(drop), Err("key_unknown"));
    }
}

#[tokio::test]
async fn a_signature_of_nothing_is_refused() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let [zero, one] = [[0; 32], std::array::from_fn(|at| u8::from(at == 31))];
    for (r, s) in [(zero, zero), (zero, one), (one, zero), (one, one), (ORDER, ORDER), (ORDER, one), (one, ORDER)] {
        let forged = format!("{signed}.{}", jsonwebtoken_base64(&[r, s].concat()));
        assert_eq!(world.show(&forged).await.map(drop), Err("signature_invalid"), "{r:?} {s:?}");
    }
    for length in [1, 63, 65, 96, 256] {
        let forged = format!("{signed}.{}", jsonwebtoken_base64(&vec![0; length]));
        assert_eq!(world.show(&forged).await.map(drop), Err("signature_invalid"), "{length}");
    }
    world.show(&token).await.unwrap();
}

#[tokio::test]
async fn a_key_id_is_a_name_and_nothing_else() {
    let world = World::new();
    for key_id in [
        "../../etc/passwd",
        "/dev/null",
        "file:///dev/null",
        "https://evil.example/keys.json",
        "k1' OR '1'='1",
        "k1\0",
        "k1\n",
        " k1",
        "K1",
        "k1; rm -rf /",
        "${jndi:ldap://evil.example/x}",
        "",
    ] {
        let header = json!({ "alg": "ES256", "kid": key_id });
        assert_eq!(world.header(header).await.map(drop), Err("key_unknown"), "{key_id:?}");
    }
    world.header(json!({ "alg": "ES256", "kid": "k1" })).await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_kind_or_curve_is_not_bent_to_fit() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let keys = [SigningKey::rsa("rsa", "RS256"), SigningKey::es384("p384"), SigningKey::ed25519("ed")];
    let mut issuer = issuer(&directory, &clock, "okta", &[&KEY, &keys[0], &keys[1], &keys[2]]);
    issuer.algorithms = Algorithm::ALL.to_vec();
    let world = World { verifier: Arc::new(verifier(vec![issuer]).unwrap()), clock, directory };
    for key in keys.iter().chain([&*KEY]) {
        world.show(&key.sign(&world.claims(json!({})))).await.unwrap();
        for other in keys.iter().chain([&*KEY]).filter(|other| other.id != key.id) {
            // Signed by one key, and said to be by another: under the one's algorithm, then under the other's.
            let header = json!({ "alg": key.algorithm, "kid": other.id });
            let token = key.sign_with_header(&header, &world.claims(json!({})));
            assert_eq!(world.show(&token).await.map(drop), Err("key_unfit"), "{} as {}", key.id, other.id);
            let header = jsonwebtoken_base64(json!({ "alg": other.algorithm, "kid": other.id }).to_string().as_bytes());
            let (_, rest) = token.split_once('.').unwrap();
            let token = format!("{header}.{rest}");
            assert_eq!(world.show(&token).await.map(drop), Err("signature_invalid"), "{} as {}", key.id, other.id);
        }
    }
}

#[tokio::test]
async fn what_is_no_compact_signed_token_is_refused() {
    let world = World::new();
    let token = KEY.sign(&world.claims(json!({})));
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let encrypted = jsonwebtoken_base64(br#"{"alg":"RSA-OAEP","enc":"A256GCM","kid":"k1"}"#);
    for (what, other) in [
        ("a JWE", format!("{encrypted}.AAAA.AAAA.AAAA.AAAA")),
        ("a JWE of a direct key", format!("{encrypted}..AAAA.AAAA.AAAA")),
        (
            "a JWS in JSON",
            format!(r#"{{"protected":"{header}","payload":"{payload}","signature":"{signature}"}}"#).replace(',', "\t"),
        ),
        ("JSON around a token", format!(r#"{{"token":"{token}"}}"#)),
        ("JSON that ends in a token", format!(r#"{{"x":"{header}"}}.{payload}.{signature}"#)),
        ("a token that ends in JSON", format!("{header}.{payload}.{signature}{{}}")),
        ("a detached payload", format!("{header}..{signature}")),
        ("a token twice", format!("{token}{token}")),
        ("many dots", ".".repeat(10_000)),
    ] {
        assert_eq!(world.show(&other).await.map(drop), Err("token_malformed"), "{what}");
    }
    let header = jsonwebtoken_base64(br#"{"alg":"RSA-OAEP","enc":"A256GCM","kid":"k1"}"#);
    let three = format!("{header}.{payload}.{signature}");
    assert_eq!(world.show(&three).await.map(drop), Err("algorithm_refused"), "a JWE's header");
    world.show(&token).await.unwrap();
}

#[tokio::test]
async fn a_time_is_a_number_of_seconds_whatever_json_can_say() {
    let world = World::new();
    let now = world.clock.now().unix_seconds();
    let show = async |name: &str, value: &str| {
        let claims = world.claims(json!({ (name): "HERE" })).0.to_string();
        assert_eq!(claims.matches("\"HERE\"").count(), 1);
        let header = json!({ "alg": "ES256", "kid": "k1" });
        let token = KEY.sign_text(&header, &claims.replace("\"HERE\"", value));
        world.show(&token).await.map(drop)
    };
    for name in ["exp", "nbf", "iat", "auth_time"] {
        for value in ["1e400", "-1e400", "NaN", "Infinity", "+1", "01", "0x10", "1_000", ".5", "1e", "'1'"] {
            assert_eq!(show(name, value).await, Err("token_malformed"), "{name}: {value}");
        }
        for value in [
            "-1",
            "-0.5",
            "-1e300",
            "1e300",
            "1e18",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "253402300800",
            "\"1700000000\"",
            "\"\"",
            "true",
            "false",
            "null",
            "[1700000000]",
            "[]",
            "{}",
            "{\"seconds\":1700000000}",
        ] {
            assert_eq!(show(name, value).await, Err("claim_malformed"), "{name}: {value}");
        }
    }
    assert_eq!(show("exp", "0").await, Err("token_expired"));
    assert_eq!(show("exp", "1e-9").await, Err("token_expired"));
    for sound in [format!("{}.5", now + 100), format!("{}e2", (now + 200) / 100)] {
        assert_eq!(show("exp", &sound).await, Ok(()), "{sound}");
    }
}

#[tokio::test]
async fn an_audience_is_ours_as_a_whole_and_alone() {
    let world = World::new();
    let code = async |audience: Value| world.claim(json!({ "aud": audience })).await.map(drop);
    for other in [
        json!([]),
        json!(""),
        json!([""]),
        json!(format!("{AUDIENCE} other")),
        json!(format!("{AUDIENCE}\0")),
        json!(format!("{AUDIENCE},{AUDIENCE}")),
        json!(&AUDIENCE[..AUDIENCE.len() - 1]),
        json!(format!("{AUDIENCE}.evil.example")),
        json!(AUDIENCE.to_uppercase()),
        json!("*"),
    ] {
        assert_eq!(code(other.clone()).await, Err("audience_mismatch"), "{other}");
    }
    for other in [json!(0), json!(true), json!({ (AUDIENCE): true }), json!([[AUDIENCE]]), json!([AUDIENCE, null])] {
        assert_eq!(code(other.clone()).await, Err("claim_malformed"), "{other}");
    }
    assert_eq!(code(json!(["other", AUDIENCE])).await, Ok(()));
}
