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
    /// What time it is at the servers.
    pub skew: Arc<ClockSkew>,
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

/// Whether a header of S3's reaches beyond the object that method and path name: another object, or everybody.
fn widens(name: &str) -> bool {
    name == "x-amz-acl"
        || name == "x-amz-bypass-governance-retention"
        || name.starts_with("x-amz-copy-source")
        || name.starts_with("x-amz-grant-")
}

impl AwsSigner {
    /// What the signature of a request for `path` is to say; its body goes on as it came, or out of memory that is `holder`'s.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn settle(
        &self,
        headers: &HeaderMap,
        path: &str,
        body: Body,
        holder: &Arc<str>,
        idle: Duration,
    ) -> Result<(Settled, Body), SigningError> {
        let scope = SigningScope::of(headers, &self.services, &self.regions)?;
        if scope.is_s3() && !self.widening_headers && headers.keys().any(|name| widens(name.as_str())) {
            return Err(SigningError::Widening);
        }
        if scope.is_s3() && encodes_a_slash(path) {
            return Err(SigningError::Malformed("path"));
        }
        let (payload, body, held) = settled(&scope, headers, body, self.held_for(holder, idle)).await?;
        Ok((Settled { scope, payload, held }, body))
    }

    fn held_for(&self, holder: &Arc<str>, idle: Duration) -> Holding {
        Holding { room: self.memory.room(holder), most: self.signed_body_bytes, idle }
    }

    /// The signature by these keys.
    #[must_use]
    pub fn signature(&self, settled: &Settled) -> RequestSignature {
        RequestSignature {
            keys: self.keys.clone(),
            scope: settled.scope.clone(),
            payload: settled.payload.clone(),
            skew: self.skew.clone(),
        }
    }
}
