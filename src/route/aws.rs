//! How callers with an AWS SDK bring their token: the SDK signs with keys that are worth nothing, and sends the token where
//! the session token of real keys stands.

use http::HeaderValue;

/// The header of a session token, in which a caller's JWT comes.
pub const SECURITY_TOKEN: &str = "x-amz-security-token";

/// Whether this is a signature by AWS keys, which here are nobody's.
#[must_use]
pub fn is_signature(authorization: &HeaderValue) -> bool {
    authorization.as_bytes().starts_with(b"AWS4-")
}
