//! A bearer token before anybody vouches for it.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::identity::jwt::{Algorithm, TOKEN_LIMIT_BYTES, UnverifiedToken};
use crate::identity::keys::is_made_by;
use crate::identity::testing::{Claims, SigningKey, jwks};
use crate::identity::token::{TimeRules, check_audience, check_times};

/// Keys of this process. Each algorithm has one that a token without `kid` is judged by.
struct Keys {
    published: String,
    /// A sound token of each, without which a refusal would prove nothing.
    sound: Vec<String>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keys = [
        (SigningKey::es256("p256"), &["ES256"][..]),
        (SigningKey::es384("p384"), &["ES384"]),
        (SigningKey::ed25519("ed"), &["EdDSA"]),
        (SigningKey::rsa("rsa", "RS256"), &["RS256"]),
        (SigningKey::rsa("pss", "PS256"), &["PS256"]),
    ];
    let published = jwks(&keys.iter().map(|(key, _)| key).collect::<Vec<_>>());
    let sign = |(key, algorithms): &(SigningKey, &[&'static str])| -> Vec<String> {
        let header = |algorithm: &&str| json!({ "alg": algorithm });
        algorithms.iter().map(|name| key.sign_with_header(&header(name), &Claims::default())).collect()
    };
    let sound: Vec<String> = keys.iter().flat_map(sign).collect();
    assert!(sound.iter().all(|token| is_made(&published, token)), "sound tokens verify");
    Keys { published, sound }
});

fn is_made(published: &str, token: &str) -> bool {
    let token = UnverifiedToken::parse(token).expect("a sound token");
    is_made_by(published.as_bytes(), &token).expect("a sound key set")
}

/// A token, a header and a payload on two lines, and a signature under a sound token's first two parts: what parses has one spelling and one value a name, and
/// nothing that no key here signed verifies.
///
/// # Panics
/// When it does not.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        as_token(text);
    }
    // Header and payload before they are encoded: so the fuzzer gets past base64url.
    if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let [header, payload] = [&bytes[..end], &bytes[end + 1..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        as_token(&format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([1; 64])));
    }
    if bytes.len() <= 1024 {
        as_signature(bytes);
    }
}

fn as_token(text: &str) {
    let Ok(token) = UnverifiedToken::parse(text) else { return };
    assert!(text.len() <= TOKEN_LIMIT_BYTES);
    let parts: Vec<&str> = text.split('.').collect();
    let decoded: Vec<Vec<u8>> =
        parts.iter().map(|part| URL_SAFE_NO_PAD.decode(part).expect("each part is base64url")).collect();
    let [header, payload, signature] = decoded.as_slice() else { panic!("a token has three parts: {text:?}") };
    for (part, bytes) in parts.iter().zip(&decoded) {
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes), **part, "a token has one spelling");
    }
    assert!(!signature.is_empty(), "nothing unsigned is a token");

    let names = names_of(header);
    assert!(["crit", "b64", "zip"].iter().all(|name| !names.contains(*name)), "{names:?}");
    let header: Value = serde_json::from_slice(header).expect("the header is JSON");
    assert_eq!(header["alg"], token.header().algorithm.as_str());
    assert!(Algorithm::ALL.contains(&token.header().algorithm));

    let names = names_of(payload);
    let claims: Value = serde_json::from_slice(payload).expect("the payload is JSON");
    let read = token.unverified_claims();
    assert_eq!(Some(read), claims.as_object(), "another reader reads the same claims");
    assert_eq!(names, read.keys().cloned().collect(), "each name has one value");

    assert!(!is_made_by(KEYS.published.as_bytes(), &token).expect("a sound key set"), "nobody signed {text:?}");
    let now = Timestamp::from_unix_seconds(1_700_000_000);
    if let Ok(times) = check_times(read, &TimeRules::default(), now) {
        assert!(now < times.accepted_until && times.expires_at <= now.plus(TimeRules::default().longest_token));
        assert!(times.issued_at.is_none_or(|issued_at| issued_at <= times.expires_at));
    }
    let ours = "api://ours".to_owned();
    if check_audience(read, std::slice::from_ref(&ours)).is_ok() {
        let audience = read.get("aud").cloned().unwrap_or_default();
        let is_ours = |value: &Value| value.as_str() == Some(&ours);
        assert!(is_ours(&audience) || audience.as_array().is_some_and(|list| list.iter().any(is_ours)));
    }
}

fn as_signature(bytes: &[u8]) {
    for sound in &KEYS.sound {
        let (signed, _) = sound.rsplit_once('.').expect("a token has parts");
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
        if let Ok(token) = UnverifiedToken::parse(&forged) {
            let is_made = is_made_by(KEYS.published.as_bytes(), &token).expect("a sound key set");
            assert!(!is_made, "no key made this signature: {bytes:?}");
        }
    }
}

/// The names of an object, as they stand; a name that stands twice is a panic.
fn names_of(json: &[u8]) -> HashSet<String> {
    struct Names(HashSet<String>);

    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(NamesVisitor)
        }
    }

    struct NamesVisitor;

    impl<'de> Visitor<'de> for NamesVisitor {
        type Value = Names;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Names, A::Error> {
            let mut names = HashSet::new();
            while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
                assert!(names.insert(name.clone()), "`{name}` stands twice");
            }
            Ok(Names(names))
        }
    }

    serde_json::from_slice::<Names>(json).expect("an object").0
}
