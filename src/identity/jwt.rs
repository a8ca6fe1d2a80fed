//! The form of a token: compact JWS (RFC 7515), read strictly. Nothing here is verified yet.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::IdentityError;
use super::json::parse_object;

/// Longest token, bytes.
pub const TOKEN_LIMIT_BYTES: usize = 16 * 1024;

/// Longest key id, bytes.
const KEY_ID_LIMIT_BYTES: usize = 1024;

/// Signature algorithms that an issuer may use (RFC 7518, RFC 8037). Symmetric ones and `none` do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Name in headers and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The same for the library that verifies.
    pub(super) const fn for_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The name is none of an asymmetric signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or(UnknownAlgorithm)
    }
}

/// What a token's header says, as far as anybody here listens. Keys and addresses of keys in it (`jwk`, `jku`, `x5c`,
/// `x5u`) are never read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Signature algorithm.
    pub algorithm: Algorithm,
    /// Key id (`kid`).
    pub key_id: Option<String>,
    /// Media type (`typ`), lower case and without `application/`.
    pub media_type: Option<String>,
}

/// A token whose form is sound and whose content nobody vouches for.
pub struct UnverifiedToken<'a> {
    header: Header,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: &'a str,
}

impl fmt::Debug for UnverifiedToken<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UnverifiedToken").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Reads a token: at most 16 KiB, three segments of canonical base64url, JSON objects without a name twice, a header
    /// without extensions (`crit`, `b64`, `zip`).
    ///
    /// # Errors
    /// `token_too_large`, `token_malformed`, `algorithm_refused`, `header_refused`.
    pub fn parse(token: &'a str) -> Result<Self, IdentityError> {
        if token.len() > TOKEN_LIMIT_BYTES {
            return Err(IdentityError::invalid("token_too_large", "the token is longer than 16 KiB"));
        }
        let form = || malformed("the token has not exactly three segments");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(form)?;
        let (header, payload) = signed.split_once('.').ok_or_else(form)?;
        if payload.contains('.') {
            return Err(form());
        }
        let header = parse_header(&decode(header, "header")?)?;
        let claims = decode(payload, "payload")?;
        let claims = parse_object(&claims).map_err(|fault| malformed(format!("the payload is refused: {fault}")))?;
        if decode(signature, "signature")?.is_empty() {
            return Err(malformed("the signature is empty"));
        }
        Ok(Self { header, claims, signed, signature })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the token says its issuer is: good for choosing whose keys to try, and for nothing else.
    #[must_use]
    pub fn unverified_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// What the token says, while nobody has verified it: to be shown, never to be believed.
    #[must_use]
    pub const fn unverified_claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// What the signature covers, and the signature.
    pub(super) const fn signed_and_signature(&self) -> (&'a str, &'a str) {
        (self.signed, self.signature)
    }

    /// The content, for whoever verified the signature.
    pub(super) fn into_parts(self) -> (Header, Map<String, Value>) {
        (self.header, self.claims)
    }
}

fn decode(segment: &str, name: &str) -> Result<Vec<u8>, IdentityError> {
    // The engine refuses padding and non-zero trailing bits: a token has one spelling.
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| malformed(format!("the {name} is not base64url")))
}

fn parse_header(bytes: &[u8]) -> Result<Header, IdentityError> {
    let object = parse_object(bytes).map_err(|fault| malformed(format!("the header is refused: {fault}")))?;
    for extension in ["crit", "b64", "zip"] {
        if object.contains_key(extension) {
            let detail = format!("the header holds `{extension}`, which asks for another reading of the token");
            return Err(IdentityError::invalid("header_refused", detail));
        }
    }
    let text = |name: &str| match object.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.as_str())),
        Some(_) => Err(malformed(format!("the header's `{name}` is no text"))),
    };
    let algorithm = text("alg")?.ok_or_else(|| malformed("the header names no algorithm"))?.parse().map_err(|_| {
        IdentityError::invalid("algorithm_refused", "the header names no asymmetric signature algorithm that is known")
    })?;
    let key_id = text("kid")?;
    if key_id.is_some_and(|key_id| key_id.len() > KEY_ID_LIMIT_BYTES) {
        return Err(malformed("the header's `kid` is too long"));
    }
    let media_type = text("typ")?.map(str::to_ascii_lowercase);
    let media_type = media_type.map(|typ| typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ));
    Ok(Header { algorithm, key_id: key_id.map(str::to_owned), media_type })
}

fn malformed(detail: impl Into<String>) -> IdentityError {
    IdentityError::invalid("token_malformed", detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(text: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", encoded(header), encoded(payload))
    }

    fn code(token: &str) -> &'static str {
        UnverifiedToken::parse(token).unwrap_err().code()
    }

    const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"application/AT+JWT"}"#;

    #[test]
    fn a_sound_token_shows_its_header_and_its_issuer() {
        let text = token(HEADER, r#"{"iss":"https://issuer.example"}"#);
        let read = UnverifiedToken::parse(&text).unwrap();
        let expected = Header {
            algorithm: Algorithm::ES256,
            key_id: Some("k1".to_owned()),
            media_type: Some("at+jwt".to_owned()),
        };
        assert_eq!(read.header(), &expected);
        assert_eq!(read.unverified_issuer(), Some("https://issuer.example"));
    }

    #[test]
    fn a_token_over_sixteen_kibibytes_is_refused_before_it_is_read() {
        let long = token(HEADER, &json!({ "x": "y".repeat(TOKEN_LIMIT_BYTES) }).to_string());
        assert_eq!(code(&long), "token_too_large");
        assert_eq!(code(&".".repeat(TOKEN_LIMIT_BYTES + 1)), "token_too_large");
    }

    #[test]
    fn a_token_has_exactly_three_segments() {
        let sound = token(HEADER, "{}");
        let (two, _) = sound.rsplit_once('.').unwrap();
        for wrong in ["", ".", "..", "...", two, &format!("{sound}.x"), &format!("{sound}.x.y"), &format!("{sound}.")] {
            assert_eq!(code(wrong), "token_malformed", "{wrong}");
        }
        assert_eq!(code(&format!("{two}.")), "token_malformed");
    }

    #[test]
    fn padding_other_alphabets_blanks_and_stray_bits_are_refused() {
        let payload = encoded("{}");
        let header = encoded(HEADER);
        for wrong in [
            format!("{header}.{payload}=.c2ln"),
            format!("{header}.{payload}.c2ln="),
            format!("{header}.{payload}.c2+n"),
            format!("{header}.{payload}.c2/n"),
            format!("{header}.{payload}. c2ln"),
            format!("{header}.{payload}.c2ln\n"),
            // "e30" is `{}`; "e31" decodes to the same bytes for a lenient reader.
            format!("{header}.e31.c2ln"),
        ] {
            assert_eq!(code(&wrong), "token_malformed", "{wrong}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_in_header_or_payload_is_refused() {
        assert_eq!(code(&token(r#"{"alg":"ES256","alg":"ES256"}"#, "{}")), "token_malformed");
        assert_eq!(code(&token(HEADER, r#"{"a":{"b":1,"b":2}}"#)), "token_malformed");
    }

    #[test]
    fn header_or_payload_that_is_no_object_is_refused() {
        for wrong in ["[]", "\"x\"", "null", "1", "", "{}{}"] {
            assert_eq!(code(&token(wrong, "{}")), "token_malformed", "{wrong}");
            assert_eq!(code(&token(HEADER, wrong)), "token_malformed", "{wrong}");
        }
    }

    #[test]
    fn no_algorithm_but_asymmetric_ones_exists() {
        for name in ["none", "None", "HS256", "HS384", "HS512", "", " RS256", "rs256", "ES256K", "RSA-OAEP", "dir"] {
            let header = json!({ "alg": name }).to_string();
            assert_eq!(code(&token(&header, "{}")), "algorithm_refused", "{name}");
        }
        for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["ES256"]}"#] {
            assert_eq!(code(&token(header, "{}")), "token_malformed", "{header}");
        }
    }

    #[test]
    fn a_header_that_asks_for_another_reading_is_refused() {
        for extension in [r#""crit":["exp"]"#, r#""crit":[]"#, r#""b64":false"#, r#""b64":true"#, r#""zip":"DEF""#] {
            assert_eq!(
                code(&token(&format!(r#"{{"alg":"ES256",{extension}}}"#), "{}")),
                "header_refused",
                "{extension}"
            );
        }
    }

    #[test]
    fn a_key_id_or_type_that_is_no_text_is_refused() {
        for field in [r#""kid":1"#, r#""kid":null"#, r#""typ":["JWT"]"#] {
            assert_eq!(code(&token(&format!(r#"{{"alg":"ES256",{field}}}"#), "{}")), "token_malformed", "{field}");
        }
        let long = json!({ "alg": "ES256", "kid": "k".repeat(1025) }).to_string();
        assert_eq!(code(&token(&long, "{}")), "token_malformed");
    }

    #[test]
    fn an_issuer_that_is_no_text_is_no_issuer() {
        let text = token(HEADER, r#"{"iss":["https://issuer.example"]}"#);
        assert_eq!(UnverifiedToken::parse(&text).unwrap().unverified_issuer(), None);
    }

    #[test]
    fn nothing_of_a_token_shows_when_it_is_printed() {
        let text = token(HEADER, r#"{"sub":"s3cret"}"#);
        assert!(!format!("{:?}", UnverifiedToken::parse(&text).unwrap()).contains("s3cret"));
    }
}
