//! AWS Signature Version 4 (AWS IAM user guide, "Signature Version 4 signing process"), put on a request at the last
//! moment: after its connection is known, right before its head is written.

mod body_memory;
mod payload;
mod scope;
mod signer;
mod skew;
#[cfg(test)]
mod tests;
mod uri;

pub use body_memory::BodyMemory;
pub use payload::{Payload, SigningError};
pub use scope::SigningScope;
pub use signer::{AwsSigner, Settled};
pub use skew::ClockSkew;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request};
use time::OffsetDateTime;

use crate::clock::Timestamp;
use crate::hex::hex;
use crate::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// Temporary keys of a role session.
#[derive(Clone)]
pub struct AwsKeys {
    /// Access key id: public.
    pub access_key_id: Arc<str>,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token.
    pub session_token: Option<Secret>,
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsKeys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Everything that one request is signed with, save its time.
#[derive(Clone, Debug)]
pub struct RequestSignature {
    /// By whom.
    pub keys: AwsKeys,
    /// For which service and region.
    pub scope: SigningScope,
    /// What the signature says of the body.
    pub payload: Payload,
    /// What time it is there.
    pub skew: Arc<ClockSkew>,
}

/// Takes a caller's own presigned parameters out of a request that nobody signs.
///
/// # Errors
/// [`SigningError::Malformed`] when path or query cannot be written in the one way that is signed.
pub fn drop_presigned(uri: &mut Uri) -> Result<(), SigningError> {
    rewrite(uri).map(drop)
}

/// Writes path and query in the one way.
fn rewrite(uri: &mut Uri) -> Result<Wire, SigningError> {
    let path = uri::path(uri.path()).ok_or(SigningError::Malformed("path"))?;
    let query = uri::query(uri.query().unwrap_or_default()).ok_or(SigningError::Malformed("query"))?;
    let text = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    let malformed = |_| SigningError::Malformed("path");
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map_err(malformed)?);
    *uri = Uri::from_parts(parts).map_err(|_| SigningError::Malformed("path"))?;
    Ok(Wire { path, query: uri::canonical_query(&query) })
}

impl RequestSignature {
    /// Signs `request`, which goes to `authority` (`host`, with its port where that is not the scheme's own). Signing
    /// again replaces the signature.
    ///
    /// # Errors
    /// [`SigningError::Malformed`] when path or query cannot be written in the one way that is signed.
    pub fn apply<B>(&self, request: &mut Request<B>, authority: &str, now: Timestamp) -> Result<(), SigningError> {
        let at = SigningTime::of(self.skew.applied(now)).ok_or(SigningError::Malformed("time"))?;
        let wire = rewrite(request.uri_mut())?;
        let payload = self.payload.as_str();
        let headers = request.headers_mut();
        headers.insert(X_AMZ_DATE, value(&at.date_time)?);
        headers.remove(X_AMZ_SECURITY_TOKEN);
        if let Some(token) = &self.keys.session_token {
            let mut token = value(token.expose())?;
            token.set_sensitive(true);
            headers.insert(X_AMZ_SECURITY_TOKEN, token);
        }
        if self.scope.is_s3() {
            headers.insert(X_AMZ_CONTENT_SHA256, value(payload)?);
        } else {
            headers.remove(X_AMZ_CONTENT_SHA256);
        }
        let signed = signed_headers(headers, authority)?;
        let path = if self.scope.is_s3() { wire.path } else { uri::twice(&wire.path) };
        let canonical =
            Canonical { method: request.method(), path: &path, query: &wire.query, headers: &signed, payload };
        let authorization = self.authorization(&canonical, &at);
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        Ok(())
    }

    fn authorization(&self, canonical: &Canonical<'_>, at: &SigningTime) -> String {
        let scope = format!("{}/{}/{}/aws4_request", at.date, self.scope.region, self.scope.service);
        let mut names = String::new();
        for (name, _) in canonical.headers {
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        let hashed = hex(digest(&SHA256, canonical.text(&names).as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", at.date_time);
        let signature = hex(self.signing_key(at, to_sign.as_bytes()).as_ref());
        let id = &self.keys.access_key_id;
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }

    fn signing_key(&self, at: &SigningTime, to_sign: &[u8]) -> hmac::Tag {
        let secret = Secret::new(format!("AWS4{}", self.keys.secret_access_key.expose()));
        let step = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let mut tag = step(secret.expose().as_bytes(), at.date.as_bytes());
        for part in [&*self.scope.region, &*self.scope.service, "aws4_request"] {
            tag = step(tag.as_ref(), part.as_bytes());
        }
        step(tag.as_ref(), to_sign)
    }
}

/// Path and query as they are signed.
struct Wire {
    path: String,
    query: String,
}

struct Canonical<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    headers: &'a [(String, String)],
    payload: &'a str,
}

impl Canonical<'_> {
    fn text(&self, names: &str) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in self.headers {
            text.push_str(name);
            text.push(':');
            text.push_str(value);
            text.push('\n');
        }
        for part in ["\n", names, "\n", self.payload] {
            text.push_str(part);
        }
        text
    }
}

/// The headers that are signed, by name: what AWS reads, and nothing that somebody on the way may change.
fn signed_headers(headers: &HeaderMap, authority: &str) -> Result<Vec<(String, String)>, SigningError> {
    let mut signed = vec![(HOST.to_string(), authority.to_owned())];
    for name in headers.keys() {
        if name.as_str().starts_with("x-amz-") || [CONTENT_TYPE, CONTENT_MD5].contains(name) {
            let mut joined = String::new();
            for (place, line) in headers.get_all(name).iter().enumerate() {
                let line = std::str::from_utf8(line.as_bytes()).map_err(|_| SigningError::Malformed("header"))?;
                if place > 0 {
                    joined.push(',');
                }
                push_trimmed(&mut joined, line);
            }
            signed.push((name.to_string(), joined));
        }
    }
    signed.sort_unstable();
    Ok(signed)
}

/// A value without outer spaces, and one for each run of them within.
fn push_trimmed(text: &mut String, value: &str) {
    for (place, word) in value.split([' ', '\t']).filter(|word| !word.is_empty()).enumerate() {
        if place > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
}

/// A time as signatures write it.
struct SigningTime {
    date: String,
    date_time: String,
}

impl SigningTime {
    fn of(at: Timestamp) -> Option<Self> {
        let at = OffsetDateTime::from_unix_timestamp(at.unix_seconds()).ok()?;
        let date = format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day());
        let date_time = format!("{date}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
        Some(Self { date, date_time })
    }
}

fn value(text: &str) -> Result<HeaderValue, SigningError> {
    HeaderValue::from_str(text).map_err(|_| SigningError::Malformed("header"))
}
