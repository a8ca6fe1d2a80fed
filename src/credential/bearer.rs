//! Bearer tokens as credentials: what may be known of them without being able to verify them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::hex::hex;

/// Longest `jti` that is taken for an identifier.
const LONGEST_ID: usize = 128;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stated {
    jti: Option<String>,
    /// What Entra ID has in place of `jti`, in its tokens and in its sign-in logs.
    uti: Option<String>,
    exp: Option<f64>,
    aud: Value,
}

/// What goes on record in a token's place: its `jti` or `uti`, or the beginning of its SHA-256, which who has it can compute.
pub(super) fn public_id(token: &str) -> Arc<str> {
    let plain =
        |id: &String| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    let stated = stated(token);
    match stated.jti.or(stated.uti).filter(plain) {
        Some(id) => id.into(),
        None => {
            let digest = digest(&SHA256, token.as_bytes());
            format!("sha256:{}", hex(digest.as_ref().get(..8).unwrap_or_default())).into()
        }
    }
}

/// The end that a JWT states, where the token is one.
pub(super) fn stated_end(token: &str) -> Option<Timestamp> {
    let exp = stated(token).exp.filter(|exp| (0.0..1e11).contains(exp))?;
    Some(Timestamp::from_unix_millis((exp * 1000.0) as i64))
}

/// Whether a JWT says that it is for `audience`, and for nobody else.
pub(super) fn is_for(token: &str, audience: &str) -> bool {
    stated(token).aud == audience
}

fn stated(token: &str) -> Stated {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Stated::default();
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok();
    claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_known_by_its_jti_or_by_a_digest() {
        assert_eq!(&*public_id(&token(r#"{"jti":"a-1","uti":"b-2","exp":1800000000}"#)), "a-1");
        assert_eq!(&*public_id(&token(r#"{"uti":"b-2"}"#)), "b-2");
        for other in ["opaque", &token(r#"{"jti":"a\nb"}"#), &token("[]"), "a.b.c.d"] {
            let id = public_id(other);
            assert!(id.starts_with("sha256:") && id.len() == 23 && !other.contains(&*id), "{id}");
        }
    }

    #[test]
    fn a_stated_end_is_read_and_nonsense_is_none() {
        let end = stated_end(&token(r#"{"exp":1800000000.5}"#)).unwrap();
        assert_eq!(end.unix_millis(), 1_800_000_000_500);
        assert!(stated_end(&token(r#"{"exp":-1}"#)).is_none() && stated_end("opaque").is_none());
    }

    #[test]
    fn a_token_is_for_the_one_audience_that_it_states() {
        assert!(is_for(&token(r#"{"aud":"https://a.test"}"#), "https://a.test"));
        for other in [r#"{"aud":"https://b.test"}"#, r#"{"aud":["https://a.test","https://b.test"]}"#, "{}", "[]"] {
            assert!(!is_for(&token(other), "https://a.test"), "{other}");
        }
    }
}
