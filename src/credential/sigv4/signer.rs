//! What signs the requests of one role session: keys, and what they may be used for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::payload::{Held, Holding, settled};
use super::uri::encodes_a_slash;
use super::{AwsKeys, BodyMemory, ClockSkew, Payload, RequestSignature, SigningError, SigningScope};
use crate::body::Body;
use crate::target::Target;

/// Keys of one role session, and what they sign.
#[derive(Clone)]
pub struct AwsSigner {
    /// The keys.
    pub keys: AwsKeys,
    /// Services that they sign for; the first unless the caller says.
    pub services: Arc<[Arc<str>]>,
    /// Regions that they sign for; the first unless the caller says.
    pub regions: Arc<[Arc<str>]>,
    /// Whether callers may copy from other objects, set access rights and lift retention by headers.
    pub widening_headers: bool,
    /// Longest body that is held until it is hashed.
    pub signed_body_bytes: usize,
    /// Memory for such bodies.
    pub memory: BodyMemory,
}

impl fmt::Debug for AwsSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsSigner").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// What the signature of one request says, whichever keys it is by.
#[derive(Debug)]
pub struct Settled {
    scope: SigningScope,
    payload: Payload,
    held: Option<Held>,
}

impl Settled {
    /// The whole body, where it can be sent once more.
    #[must_use]
    pub fn held(&self) -> Option<&Bytes> {
        self.held.as_ref().map(Held::bytes)
    }
}

/// Whether a header of S3's, or the parameter of a query that stands for it, reaches beyond the object that method and
/// path name: another object, or everybody.
fn widens(name: &str) -> bool {
    matches!(name, "x-amz-acl" | "x-amz-bypass-governance-retention" | "x-amz-rename-source")
        || name.starts_with("x-amz-copy-source")
        || name.starts_with("x-amz-grant-")
}

/// Whether a header is one of AWS's to a service that takes `_` for `-`, and none to whoever signs.
fn is_disguised(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(plain) {
        return false;
    }
    let read: String = name.bytes().map(|byte| if plain(byte) { char::from(byte) } else { '-' }).collect();
    read.starts_with("x-amz-")
}

/// Names of a query's parameters, in lower case.
fn parameter_names(query: &str) -> impl Iterator<Item = String> {
    query.split('&').filter_map(|parameter| parameter.split('=').next()).map(|name| {
        let name = name.replace('+', " ");
        percent_encoding::percent_decode_str(&name).decode_utf8_lossy().to_ascii_lowercase()
    })
}

impl AwsSigner {
    /// What the signature of a request for `target` is to say; its body goes on as it came, or out of memory that is `holder`'s.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn settle(
        &self,
        headers: &HeaderMap,
        target: &Target,
        body: Body,
        holder: &Arc<str>,
        idle: Duration,
    ) -> Result<(Settled, Body), SigningError> {
        let scope = SigningScope::of(headers, &self.services, &self.regions)?;
        if headers.keys().any(|name| is_disguised(name.as_str())) {
            return Err(SigningError::Disguised);
        }
        if scope.is_s3() && !self.widening_headers {
            let widened = headers.keys().any(|name| widens(name.as_str()))
                || target.query().is_some_and(|query| parameter_names(query).any(|name| widens(&name)));
            if widened {
                return Err(SigningError::Widening);
            }
        }
        if scope.is_s3() && encodes_a_slash(target.path()) {
            return Err(SigningError::Malformed("path"));
        }
        let (payload, body, held) = settled(&scope, headers, body, self.held_for(holder, idle)).await?;
        Ok((Settled { scope, payload, held }, body))
    }

    fn held_for(&self, holder: &Arc<str>, idle: Duration) -> Holding {
        Holding { room: self.memory.room(holder), most: self.signed_body_bytes, idle }
    }

    /// The signature by these keys, by the clock of whom it is for.
    #[must_use]
    pub fn signature(&self, settled: &Settled, skew: &Arc<ClockSkew>) -> RequestSignature {
        RequestSignature {
            keys: self.keys.clone(),
            scope: settled.scope.clone(),
            payload: settled.payload.clone(),
            skew: skew.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_beyond_the_object_is_known_however_it_is_spelt() {
        for name in
            ["x-amz-acl", "x-amz-copy-source", "x-amz-copy-source-range", "x-amz-grant-read", "x-amz-rename-source"]
        {
            assert!(widens(name) && !is_disguised(name), "{name}");
        }
        for name in ["x_amz_acl", "x-amz_copy-source", "x_amz-copy_source", "x.amz.acl", "x_amz_date"] {
            assert!(is_disguised(name), "{name}");
        }
        for name in ["x-amz-meta-a", "x-amzn-trace-id", "x_request_id", "content-type"] {
            assert!(!widens(name) && !is_disguised(name), "{name}");
        }
        let names: Vec<_> = parameter_names("prefix=a&X-Amz-Acl=public-read&x%2Damz%2Dgrant-read=b&uploads").collect();
        assert_eq!(names, ["prefix", "x-amz-acl", "x-amz-grant-read", "uploads"]);
    }
}
