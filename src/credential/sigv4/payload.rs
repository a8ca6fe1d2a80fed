//! What a signature says of the body: its hash, or one of the texts that stand for none.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::body_memory::Room;
use super::{SigningScope, X_AMZ_CONTENT_SHA256};
use crate::body::{self, Body, BoxError};
use crate::hex::hex;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const LEAST_ROOM: usize = 4096;
/// For a whole body to come.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// The payload hash of a canonical request, or the text that stands for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// No body.
    Empty,
    /// A body that is not signed: the connection protects it.
    Unsigned,
    /// A body in chunks with a checksum behind it, none of it signed.
    UnsignedTrailer,
    /// SHA-256 in hexadecimal digits.
    Hash(Arc<str>),
}

impl Payload {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Empty => EMPTY,
            Self::Unsigned => UNSIGNED,
            Self::UnsignedTrailer => UNSIGNED_TRAILER,
            Self::Hash(hash) => hash,
        }
    }
}

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The caller signed for a service or a region that the credential is not for.
    #[error("the caller's signature names a service or a region that this credential does not sign for")]
    Scope,
    /// A header reaches beyond the object that the request names.
    #[error("one of its headers copies from another object, or sets who may read this one")]
    Widening,
    /// A header that some services read as one of AWS's, and that no signature holds.
    #[error("one of its headers is spelt with `_` where AWS's have `-`")]
    Disguised,
    /// Path, query or a header cannot be written in the one way that is signed.
    #[error("its {0} cannot be written in the one way that is signed")]
    Malformed(&'static str),
    /// Each chunk of the body is signed by the caller's own key.
    #[error("each chunk of its body is signed by the caller's own key, which cannot be replaced")]
    SignedChunks,
    /// The body has no length, and is too long to be held until it has.
    #[error("its body has no length")]
    Length,
    /// The body must be hashed before it is sent, and is too long to be held.
    #[error("its body is longer than {0} bytes, and must be hashed before it is sent")]
    TooLarge(usize),
    /// Too many bodies are held at once.
    #[error("too many bodies are held at once until they are hashed")]
    NoMemory,
    /// The body stopped coming.
    #[error("its body stopped coming")]
    Idle,
    /// The body broke off.
    #[error("its body broke off")]
    Body(#[source] BoxError),
}

/// A body that is held, and the memory set aside for it.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Bytes,
    _room: Room,
}

impl Held {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// How a body is held, where it must be.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) room: Room,
    /// Longest body, bytes.
    pub(super) most: usize,
    /// Longest pause between two of its pieces.
    pub(super) idle: Duration,
}

/// What the signature is to say of `body`, and the body as it then goes on: as it came where it need not be hashed,
/// and else out of memory, where it is kept for another try.
///
/// # Errors
/// [`SigningError`].
pub(super) async fn settled(
    scope: &SigningScope,
    headers: &HeaderMap,
    body: Body,
    holding: Holding,
) -> Result<(Payload, Body, Option<Held>), SigningError> {
    if body.is_end_stream() {
        return Ok((Payload::Empty, body, Some(Held { bytes: Bytes::new(), _room: holding.room })));
    }
    let stated = headers.get(X_AMZ_CONTENT_SHA256).and_then(|value| value.to_str().ok());
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match stated {
        Some(text) if text.starts_with("STREAMING-AWS4-") => return Err(SigningError::SignedChunks),
        Some(UNSIGNED_TRAILER) if scope.is_s3() => return Ok((Payload::UnsignedTrailer, body, None)),
        // The server compares it with what it receives: a caller that errs harms itself alone.
        Some(hash) if scope.is_s3() && is_hash(hash) => {
            return Ok((Payload::Hash(hash.to_ascii_lowercase().into()), body, None));
        }
        Some(_) | None => {}
    }
    let has_length = headers.contains_key(CONTENT_LENGTH) || body.size_hint().exact().is_some();
    if scope.is_s3() && has_length {
        return Ok((Payload::Unsigned, body, None));
    }
    let most = holding.most;
    let too_long = || if scope.is_s3() { SigningError::Length } else { SigningError::TooLarge(most) };
    // What is held is held for this caller alone, so it comes within a time, however slowly each piece.
    let held = tokio::time::timeout(LONGEST_HOLD, collected(body, holding)).await;
    let held = held.map_err(|_| SigningError::Idle)??.ok_or_else(too_long)?;
    let payload = if scope.is_s3() {
        Payload::Unsigned
    } else {
        Payload::Hash(hex(digest(&SHA256, &held.bytes).as_ref()).into())
    };
    Ok((payload, body::full(held.bytes.clone()), Some(held)))
}

/// The whole body; `None` where it is longer than what is held.
async fn collected(mut body: Body, holding: Holding) -> Result<Option<Held>, SigningError> {
    let Holding { mut room, most, idle } = holding;
    if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(idle, body.frame()).await.map_err(|_| SigningError::Idle)? {
        // Trailers say nothing that any of these services reads.
        let Ok(data) = frame.map_err(SigningError::Body)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > most {
            return Ok(None);
        }
        if length > bytes.capacity() {
            let capacity = (2 * length).max(LEAST_ROOM).min(most);
            if !room.grow(capacity) {
                return Err(SigningError::NoMemory);
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(Held { bytes: bytes.into(), _room: room }))
}

#[cfg(test)]
mod tests {
    use super::super::BodyMemory;
    use super::*;

    const MOST: usize = 8;

    async fn of(service: &str, headers: &[(&'static str, &str)], body: Body) -> Result<(String, String), SigningError> {
        let scope = SigningScope { service: service.into(), region: "eu-central-1".into() };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let room = BodyMemory::default().room(&"ada".into());
        let holding = Holding { room, most: MOST, idle: Duration::from_secs(5) };
        let (payload, body, _held) = settled(&scope, &map, body, holding).await?;
        let bytes = body.collect().await.unwrap().to_bytes();
        Ok((payload.as_str().to_owned(), String::from_utf8(bytes.to_vec()).unwrap()))
    }

    /// A body whose length is not known beforehand.
    fn unmeasured(pieces: &'static [&'static str]) -> Body {
        let frames =
            pieces.iter().map(|piece| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(piece.as_bytes()))));
        http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn a_body_is_signed_as_its_service_wants_it_and_arrives_whole() {
        let hash = hex(digest(&SHA256, b"abc").as_ref());
        let sha = "x-amz-content-sha256";
        for (service, headers, body, payload, arrives) in [
            ("s3", vec![], body::empty(), EMPTY, ""),
            ("s3", vec![], body::full("abc"), UNSIGNED, "abc"),
            ("s3", vec![], unmeasured(&["a", "bc"]), UNSIGNED, "abc"),
            ("s3", vec![(sha, &*hash)], unmeasured(&["abc"]), &hash, "abc"),
            ("s3", vec![(sha, UNSIGNED_TRAILER)], body::full("3\r\nabc"), UNSIGNED_TRAILER, "3\r\nabc"),
            ("sqs", vec![], unmeasured(&["a", "bc"]), &hash, "abc"),
            ("sqs", vec![(sha, "UNSIGNED-PAYLOAD")], body::full("abc"), &hash, "abc"),
        ] {
            assert_eq!(of(service, &headers, body).await.unwrap(), (payload.to_owned(), arrives.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_signed_is_refused() {
        let signed = [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
        assert!(matches!(of("s3", &signed, body::full("abc")).await, Err(SigningError::SignedChunks)));
        let long = || unmeasured(&["12345", "6789"]);
        assert!(matches!(of("s3", &[], long()).await, Err(SigningError::Length)));
        assert!(matches!(of("sqs", &[], body::full("123456789")).await, Err(SigningError::TooLarge(MOST))));
        assert!(matches!(of("sqs", &[], long()).await, Err(SigningError::TooLarge(MOST))));
    }
}
